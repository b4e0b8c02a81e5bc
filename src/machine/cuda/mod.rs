//! The machine that is an NVIDIA GPU: convolutions by cuDNN, matrix products by cuBLAS, everything else by
//! [`kernels`](super::kernels), compiled when a type is first used. All work goes to one stream, in order.

mod dnn;
mod graph;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::cudarc::cublas::{result as blas, sys as blas_sys};
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool, memcpy_htod_async};
use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute, CUmemoryPool};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PinnedHostSlice, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaStorageSlice, DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, DType, Device, Result, Shape, Storage, Tensor, bail};

use self::dnn::{Descriptors, Plan, WORKSPACE, ints};
use super::call::{Call, Memory, Product, Word, Work};
use super::convolution::{Dims, Pass};
use super::interface::{Machine, Replay};
use super::kernels::{COUNTERS, SOURCE, WORDS};
use super::precision::Precision;

static DETERMINISTIC: AtomicBool = AtomicBool::new(false);

/// Bytes that cuBLAS may use beside its operands; what NVIDIA advises for Hopper.
const BLAS_WORKSPACE: usize = 32 << 20;

const DECLARATIONS: &str = r#"
#define KERNEL(name) extern "C" __global__ void k_##name
#define BLOCK_KERNEL(name) extern "C" __global__ void k_##name
"#;

/// Opens the GPU of this number. From then on convolutions give the same bits every time if `deterministic`, on every GPU of
/// the process.
///
/// # Errors
/// When there is no driver or no such device.
pub fn open(number: usize, deterministic: bool) -> Result<Device> {
    let device = Device::new_cuda_with_stream(number)?;
    DETERMINISTIC.store(deterministic, Ordering::Relaxed);
    let cuda = device.as_cuda_device()?;
    // SAFETY: one stream does all work, in order.
    unsafe { cuda.disable_event_tracking() };
    // Freed memory stays with the process: else each synchronisation would give it back.
    let mut keep = u64::MAX;
    // SAFETY: the attribute is 64 bits wide.
    unsafe {
        let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        mem_pool::set_attribute(pool(cuda)?, threshold, (&raw mut keep).cast())?;
    }
    Ok(device)
}

fn pool(device: &CudaDevice) -> Result<CUmemoryPool> {
    // SAFETY: the context's own device.
    Ok(unsafe { device::get_default_mem_pool(device.cuda_stream().context().cu_device()) }?)
}

/// Most bytes in use on the device since [`reset_peak`].
///
/// # Errors
/// When the driver does not say.
pub fn peak_bytes(device: &CudaDevice) -> Result<u64> {
    let mut bytes = 0u64;
    let high = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    // SAFETY: the attribute is 64 bits wide.
    unsafe { mem_pool::get_attribute(pool(device)?, high, (&raw mut bytes).cast())? };
    Ok(bytes)
}

/// Forgets the peak.
///
/// # Errors
/// When the driver refuses.
pub fn reset_peak(device: &CudaDevice) -> Result<()> {
    let mut zero = 0u64;
    let high = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    // SAFETY: the attribute is 64 bits wide, and zero is what it may be set to.
    unsafe { mem_pool::set_attribute(pool(device)?, high, (&raw mut zero).cast())? };
    Ok(())
}

/// Bytes that are free on the device.
///
/// # Errors
/// When the driver does not say.
pub fn free_bytes(device: &CudaDevice) -> Result<usize> {
    Ok(device.cuda_stream().context().mem_get_info()?.0)
}

/// An element type in CUDA C.
fn c_name(element: DType) -> &'static str {
    if element == DType::F64 { "double" } else { "float" }
}

/// An element type in cuBLAS, and what products of it are computed in.
fn blas_types(element: DType) -> (blas_sys::cudaDataType, blas_sys::cublasComputeType_t) {
    use blas_sys::cublasComputeType_t as Compute;
    match element {
        DType::F64 => (blas_sys::cudaDataType::CUDA_R_64F, Compute::CUBLAS_COMPUTE_64F),
        DType::BF16 => (blas_sys::cudaDataType::CUDA_R_16BF, Compute::CUBLAS_COMPUTE_32F),
        _ if Precision::current() == Precision::F32 => {
            (blas_sys::cudaDataType::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F)
        }
        _ => (blas_sys::cudaDataType::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F_FAST_TF32),
    }
}

/// One and zero of the type that products of an element type are scaled in.
struct Scalars {
    doubles: [f64; 2],
    floats: [f32; 2],
}

/// The address of one, and of what is there already times it: one where it is added to, else zero.
fn scalars(element: DType, add: bool) -> [*const c_void; 2] {
    static VALUES: Scalars = Scalars { doubles: [1.0, 0.0], floats: [1.0, 0.0] };
    let other = usize::from(!add);
    match element {
        DType::F64 => [(&raw const VALUES.doubles[0]).cast(), (&raw const VALUES.doubles[other]).cast()],
        _ => [(&raw const VALUES.floats[0]).cast(), (&raw const VALUES.floats[other]).cast()],
    }
}

#[repr(C)]
struct Words([u64; WORDS]);

// SAFETY: the kernels' `Words`, by value.
unsafe impl DeviceRepr for Words {}

/// What a plan depends on: pass, geometry, element type, whether channels are last, the precision.
type Key = (Pass, Dims, DType, bool, &'static str);

thread_local! {
    // cuDNN's handles belong to a thread.
    static GPUS: RefCell<HashMap<DeviceId, Rc<Gpu>>> = RefCell::new(HashMap::new());
}

/// The machine of a GPU in this thread, which it keeps until the process ends.
///
/// # Errors
/// When cuDNN does not start.
pub fn gpu(device: &CudaDevice) -> Result<Rc<dyn Machine>> {
    GPUS.with_borrow_mut(|all| {
        if let Some(gpu) = all.get(&device.id()) {
            return Ok(gpu.clone() as Rc<dyn Machine>);
        }
        let gpu = Gpu::new(device)?;
        all.insert(device.id(), gpu.clone());
        Ok(gpu as Rc<dyn Machine>)
    })
}

/// A GPU.
struct Gpu {
    device: CudaDevice,
    me: std::rc::Weak<Self>,
    dnn: sys::cudnnHandle_t,
    modules: RefCell<HashMap<&'static str, Arc<CudaModule>>>,
    functions: RefCell<HashMap<(&'static str, &'static str), CudaFunction>>,
    /// How cuDNN does a convolution; none where it does not.
    plans: RefCell<HashMap<Key, Option<Rc<(Descriptors, Plan)>>>>,
    counters: CudaSlice<u32>,
    _blas_workspace: CudaSlice<u8>,
    /// What convolutions use beside their operands. Those that became too small stay, for the graphs that know them.
    workspaces: RefCell<Vec<CudaSlice<u8>>>,
    capturing: Cell<bool>,
    /// What numbers are sent from.
    pinned: RefCell<Option<PinnedHostSlice<u8>>>,
}

impl Gpu {
    fn new(device: &CudaDevice) -> Result<Rc<Self>> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread()?;
        let dnn = result::create_handle()?;
        // SAFETY: handle and stream are alive; cuDNN's stream type is the driver's.
        unsafe { result::set_stream(dnn, stream.cu_stream() as *mut _)? };
        let counters = device.alloc_zeros::<u32>(COUNTERS)?;
        // SAFETY: nobody reads it before it is written.
        let blas_workspace = unsafe { device.alloc::<u8>(BLAS_WORKSPACE)? };
        let at = blas_workspace.device_ptr(&stream).0;
        // SAFETY: the workspace lives as long as the handle is used.
        unsafe {
            blas_sys::cublasSetWorkspace_v2(*device.cublas_handle().handle(), at as *mut c_void, BLAS_WORKSPACE)
                .result()
                .w()?;
        }
        Ok(Rc::new_cyclic(|me| Self {
            device: device.clone(),
            me: me.clone(),
            dnn,
            modules: RefCell::default(),
            functions: RefCell::default(),
            plans: RefCell::default(),
            counters,
            _blas_workspace: blas_workspace,
            workspaces: RefCell::default(),
            capturing: Cell::new(false),
            pinned: RefCell::default(),
        }))
    }

    /// The function `k_kernel` for elements of C type `real`.
    fn function(&self, kernel: &'static str, real: &'static str) -> Result<CudaFunction> {
        if let Some(function) = self.functions.borrow().get(&(kernel, real)) {
            return Ok(function.clone());
        }
        let known = self.modules.borrow().get(real).cloned();
        let module = match known {
            Some(module) => module,
            None => {
                let ptx = compile_ptx(format!("typedef {real} real;\n{DECLARATIONS}{SOURCE}")).w()?;
                let module = self.device.cuda_stream().context().load_module(ptx)?;
                self.modules.borrow_mut().insert(real, module.clone());
                module
            }
        };
        let function = module.load_function(&format!("k_{kernel}"))?;
        self.functions.borrow_mut().insert((kernel, real), function.clone());
        Ok(function)
    }

    /// Memory of at least so many bytes beside operands.
    fn workspace(&self, bytes: usize) -> Result<u64> {
        let mut all = self.workspaces.borrow_mut();
        if all.last().is_none_or(|last| last.len() < bytes) {
            if self.capturing.get() {
                bail!("a convolution that was not made before is captured")
            }
            // SAFETY: whoever uses it writes before it reads.
            all.push(unsafe { self.device.alloc::<u8>(bytes.max(1))? });
        }
        match all.last() {
            Some(last) => Ok(last.device_ptr(&self.device.cuda_stream()).0),
            None => Ok(0),
        }
    }

    /// How cuDNN does a convolution, where it does.
    fn plan(
        &self,
        pass: Pass,
        d: &Dims,
        element: DType,
        channels_last: bool,
    ) -> Result<Option<Rc<(Descriptors, Plan)>>> {
        let key = (pass, *d, element, channels_last, Precision::current().id());
        if let Some(plan) = self.plans.borrow().get(&key) {
            return Ok(plan.clone());
        }
        self.device.cuda_stream().context().bind_to_thread()?;
        let of = Descriptors::new(d, element, channels_last)?;
        if self.capturing.get() {
            bail!("a convolution that was not made before is captured")
        }
        // What cuDNN measures with needs operands; their values do not matter.
        let sides = [d.input_dims(), d.weight_dims(), d.output_dims()];
        let operands = sides
            .iter()
            .map(|dims| self.device.alloc_zeros::<u8>(dims.iter().product::<usize>() * element.size_in_bytes()))
            .collect::<Result<Vec<_>>>()?;
        let stream = self.device.cuda_stream();
        let at = [0, 1, 2].map(|k: usize| operands[k].device_ptr(&stream).0);
        let space = self.device.alloc_zeros::<u8>(WORKSPACE)?;
        let space_at = space.device_ptr(&stream).0;
        let plan = Plan::measured(self.dnn, (pass, element), &of, at, space_at)?.map(|plan| Rc::new((of, plan)));
        self.plans.borrow_mut().insert(key, plan.clone());
        Ok(plan)
    }

    fn launch(
        &self,
        kernel: &'static str,
        element: DType,
        grid: [usize; 3],
        block: [usize; 2],
        words: [Word; WORDS],
    ) -> Result<()> {
        let function = self.function(kernel, c_name(element))?;
        let [x, y, z] = grid.map(|g| g as u32);
        let config =
            LaunchConfig { grid_dim: (x, y, z), block_dim: (block[0] as u32, block[1] as u32, 1), shared_mem_bytes: 0 };
        let stream = self.device.cuda_stream();
        let words = Words(words.map(|word| match word {
            Word::Nothing => 0,
            Word::Count(n) => n,
            Word::Value(v) => v.to_bits(),
            Word::Memory(memory) => memory.at,
            Word::Counters => self.counters.device_ptr(&stream).0,
        }));
        // SAFETY: every kernel takes `Words` alone; its addresses and extents come from operands that outlive the launch.
        unsafe { stream.launch_builder(&function).arg(&words).launch(config)? };
        Ok(())
    }

    fn product(&self, product: &Product, element: DType, [a, b, out]: [Memory; 3], add: bool) -> Result<()> {
        self.device.cuda_stream().context().bind_to_thread()?;
        let [m, n, k] = ints(product.size)?;
        let [a_transposed, b_transposed] = product.transposed;
        // cuBLAS counts columns first: there every matrix is its transpose, and outᵀ = bᵀ·aᵀ.
        let operation = |transposed: bool| {
            if transposed { blas_sys::cublasOperation_t::CUBLAS_OP_T } else { blas_sys::cublasOperation_t::CUBLAS_OP_N }
        };
        let [a_row, b_row] = [if a_transposed { m } else { k }, if b_transposed { k } else { n }];
        let ([one, other], (data, compute)) = (scalars(element, add), blas_types(element));
        // SAFETY: addresses hold matrices of these sizes; the scalars are of the type of the sums.
        unsafe {
            blas::gemm_ex(
                *self.device.cublas_handle().handle(),
                operation(b_transposed),
                operation(a_transposed),
                n,
                m,
                k,
                one,
                b.at as *const c_void,
                data,
                b_row,
                a.at as *const c_void,
                data,
                a_row,
                other,
                out.at as *mut c_void,
                data,
                n,
                compute,
                blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
            .w()
        }
    }
}

impl Machine for Gpu {
    fn alloc(&self, dims: &[usize], dtype: DType) -> Result<Tensor> {
        let shape = Shape::from(dims);
        // SAFETY: whoever asks for memory writes all of it before it reads any.
        let storage = unsafe { self.device.alloc_uninit(&shape, dtype)? };
        Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
    }

    fn address(&self, t: &Tensor) -> Result<u64> {
        let (storage, layout) = t.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { bail!("expected a tensor on the GPU, got {:?}", t.dims()) };
        if !layout.is_contiguous() {
            bail!("operand of shape {:?} is not contiguous", layout.dims())
        }
        let stream = self.device.cuda_stream();
        // Nothing is recorded when the guard goes: events are off, and one stream does everything.
        let start = match &storage.slice {
            CudaStorageSlice::U8(data) => data.device_ptr(&stream).0,
            CudaStorageSlice::I64(data) => data.device_ptr(&stream).0,
            CudaStorageSlice::BF16(data) => data.device_ptr(&stream).0,
            CudaStorageSlice::F32(data) => data.device_ptr(&stream).0,
            CudaStorageSlice::F64(data) => data.device_ptr(&stream).0,
            _ => bail!("no machine takes elements of {:?}", t.dtype()),
        };
        Ok(start + (layout.start_offset() * t.dtype().size_in_bytes()) as u64)
    }

    fn send(&self, numbers: &[f32], into: &Tensor) -> Result<()> {
        if numbers.len() > into.elem_count() {
            bail!("{} numbers into {:?}", numbers.len(), into.dims())
        }
        let (at, stream) = (self.address(into)?, self.device.cuda_stream());
        // What was sent before is there by then.
        stream.synchronize()?;
        let mut pinned = self.pinned.borrow_mut();
        let bytes = numbers.len() * into.dtype().size_in_bytes();
        if pinned.as_ref().is_none_or(|p| p.len() < bytes) {
            // SAFETY: bytes have no invalid values, and they are written before they are sent.
            *pinned = Some(unsafe { stream.context().alloc_pinned::<u8>(bytes)? });
        }
        let Some(pinned) = pinned.as_mut() else { bail!("no pinned memory") };
        let host = &mut pinned.as_mut_slice()?[..bytes];
        match into.dtype() {
            DType::F64 => {
                for (to, &v) in host.chunks_exact_mut(8).zip(numbers) {
                    to.copy_from_slice(&f64::from(v).to_ne_bytes());
                }
            }
            DType::F32 => {
                for (to, v) in host.chunks_exact_mut(4).zip(numbers) {
                    to.copy_from_slice(&v.to_ne_bytes());
                }
            }
            other => bail!("numbers into {other:?}"),
        }
        // SAFETY: the tensor has as many bytes at its address, and the memory they come from stays until the next call.
        unsafe { memcpy_htod_async(at, host, stream.cu_stream())? };
        Ok(())
    }

    fn channels_last(&self, pass: Pass, d: &Dims, element: DType) -> Result<bool> {
        // It takes doubles with the channels first.
        Ok(element != DType::F64 && self.plan(pass, d, element, true)?.is_some())
    }

    fn run(&self, call: &Call) -> Result<()> {
        match &call.work {
            Work::Launch { kernel, grid, block, words } => self.launch(kernel, call.element, *grid, *block, *words),
            Work::Convolve { pass, dims, channels_last, sides } => {
                let Some(plan) = self.plan(*pass, dims, call.element, *channels_last)? else {
                    bail!("cuDNN has no algorithm for {pass:?} of {dims:?} in {:?}", call.element)
                };
                let space = self.workspace(plan.1.workspace)?;
                self.device.cuda_stream().context().bind_to_thread()?;
                // SAFETY: addresses hold what the descriptors say; the workspace is used in the order of the stream.
                unsafe { plan.1.run(self.dnn, &plan.0, sides.map(|m| m.at), space, scalars(call.element, call.add)) }
            }
            Work::Product { product, sides } => self.product(product, call.element, *sides, call.add),
        }
    }

    fn ready(&self, calls: Vec<Call>) -> Result<Box<dyn Replay>> {
        let Some(me) = self.me.upgrade() else { bail!("the GPU is gone") };
        graph::captured(me, &calls)
    }

    fn timed(&self, calls: &[Call], rounds: usize) -> Result<Vec<f64>> {
        graph::timed(self, calls, rounds)
    }
}
