//! Libraries that panic on a damaged file, turned into errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Guarded calls in progress: the libraries work on threads of their own, so this is for all threads.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);
static HOOK: Once = Once::new();

struct Active;

impl Active {
    fn new() -> Self {
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if ACTIVE.load(Ordering::SeqCst) == 0 {
                    usual(info);
                }
            }));
        });
        ACTIVE.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a panic said.
pub fn message(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other.downcast::<&str>().map_or_else(|_| "it is damaged".to_owned(), |text| (*text).to_owned()),
    }
}

/// Calls `f`; a panic is an error with its message, and prints nothing.
///
/// # Errors
/// When `f` panics.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    let active = Active::new();
    let result = catch_unwind(AssertUnwindSafe(f));
    drop(active);
    result.map_err(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(caught(|| -> u8 { panic!("bad page {}", 3) }), Err("bad page 3".to_owned()));
        assert_eq!(caught(|| -> u8 { panic!("plain") }), Err("plain".to_owned()));
    }
}
