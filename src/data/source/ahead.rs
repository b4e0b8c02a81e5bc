//! Batches that a thread makes ahead of whoever takes them, where images can only be read one after the other.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::{Batches, Picture};
use crate::error::Result;

/// Batches the thread may be ahead.
const AHEAD: usize = 2;

/// What `make` gives to its argument, which is false when nobody listens any more.
pub fn ahead(
    make: impl FnOnce(&mut dyn FnMut(Vec<Picture>) -> bool) -> Result<()> + Send + 'static,
) -> Batches<'static> {
    let (send, receive) = sync_channel::<Result<Vec<Picture>>>(AHEAD);
    let thread = std::thread::spawn(move || {
        if let Err(error) = make(&mut |batch| send.send(Ok(batch)).is_ok()) {
            // Nobody listening is no fault.
            let _ = send.send(Err(error));
        }
    });
    Box::new(Ahead { receive: Some(receive), thread: Some(thread) })
}

/// The thread has ended when this is dropped.
struct Ahead {
    receive: Option<Receiver<Result<Vec<Picture>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Iterator for Ahead {
    type Item = Result<Vec<Picture>>;
    fn next(&mut self) -> Option<Self::Item> {
        self.receive.as_ref()?.recv().ok()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Without a receiver the thread's next batch ends it.
        self.receive = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads records one after the other and gives those of `indices`, `size` at a time: `read` makes a picture of the next record, if
/// it is wanted.
pub fn records(
    indices: &[usize],
    size: usize,
    give: &mut dyn FnMut(Vec<Picture>) -> bool,
    mut read: impl FnMut(bool) -> Result<Option<Picture>>,
) -> Result<()> {
    let mut next = 0;
    for chunk in indices.chunks(size.max(1)) {
        let mut batch = Vec::with_capacity(chunk.len());
        for &index in chunk {
            for skipped in next..=index {
                batch.extend(read(skipped == index)?);
            }
            next = index + 1;
        }
        if !give(batch) {
            break;
        }
    }
    Ok(())
}
