//! Calls as one CUDA graph, and the time that each takes.

use std::rc::Rc;

use candle_core::cuda_backend::cudarc::driver::CudaGraph;
use candle_core::cuda_backend::cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::{Result, bail};

use super::Gpu;
use crate::machine::call::Call;
use crate::machine::interface::{Machine, Replay};

/// A graph and the machine whose workspaces and functions it knows.
struct Captured {
    graph: CudaGraph,
    _gpu: Rc<Gpu>,
}

impl Replay for Captured {
    fn replay(&self) -> Result<()> {
        Ok(self.graph.launch()?)
    }
}

/// Captures calls that have been made before: their kernels are compiled and cuDNN's algorithms chosen, so that nothing is
/// allocated and nothing waited for.
pub(super) fn captured(gpu: Rc<Gpu>, calls: &[Call]) -> Result<Box<dyn Replay>> {
    let stream = gpu.device.cuda_stream();
    stream.synchronize()?;
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    gpu.capturing.set(true);
    let made = calls.iter().try_for_each(|call| gpu.run(call));
    gpu.capturing.set(false);
    // The capture ends whatever happened in it.
    let graph = stream.end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    made?;
    let Some(graph) = graph? else { bail!("the driver captured no graph") };
    graph.upload()?;
    Ok(Box::new(Captured { graph, _gpu: gpu }))
}

/// Seconds between events around each call, of the last of some rounds.
pub(super) fn timed(gpu: &Gpu, calls: &[Call], rounds: usize) -> Result<Vec<f64>> {
    let stream = gpu.device.cuda_stream();
    let event = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
    let mut seconds = vec![0.0; calls.len()];
    for _ in 0..rounds {
        let mut events = vec![event()?];
        for call in calls {
            gpu.run(call)?;
            events.push(event()?);
        }
        for (seconds, pair) in seconds.iter_mut().zip(events.windows(2)) {
            *seconds = f64::from(pair[0].elapsed_ms(&pair[1])?) / 1e3;
        }
    }
    Ok(seconds)
}
