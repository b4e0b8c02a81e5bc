//! The machine that is an NVIDIA GPU: convolutions by cuDNN, matrix products by cuBLAS, everything else by
//! [`kernels`](super::kernels), compiled when a type is first used. All work goes to one stream, in order.

mod dnn;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::cuda_backend::cudarc::cublas::{result as blas, sys as blas_sys};
use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute, CUmemoryPool};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDType, DeviceId, WrapErr};
use candle_core::{CudaDevice, CudaStorage, Device, Layout, Result, Storage, Tensor, bail};

use self::dnn::{Descriptors, Plan, ints};
use super::kernels::{SOURCE, WORDS};
use super::{Array, Machine, Pass, Product};
use crate::nn::conv::Dims;
use crate::nn::real::Real;

static TF32: AtomicBool = AtomicBool::new(false);
static DETERMINISTIC: AtomicBool = AtomicBool::new(false);

/// Opens the GPU of this number. From then on products of f32 numbers may round them to TF32 (10 bits of mantissa) if `tf32`,
/// and convolutions give the same bits every time if `deterministic`, on every GPU of the process.
///
/// # Errors
/// When there is no driver or no such device.
pub fn open(number: usize, tf32: bool, deterministic: bool) -> Result<Device> {
    let device = Device::new_cuda_with_stream(number)?;
    TF32.store(tf32, Ordering::Relaxed);
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

/// Runs `work` with TF32 as said, and as before afterwards. Launches take the setting of the moment they are made.
pub fn with_tf32<R>(tf32: bool, work: impl FnOnce() -> R) -> R {
    let before = TF32.swap(tf32, Ordering::Relaxed);
    let result = work();
    TF32.store(before, Ordering::Relaxed);
    result
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

/// An element type, as the libraries name it.
pub trait Element: Real + CudaDType + DeviceRepr {
    /// In CUDA C.
    const C: &'static str;
    /// In cuDNN.
    const DNN: sys::cudnnDataType_t;
    /// In cuBLAS.
    const BLAS: blas_sys::cudaDataType;
    /// What products are computed in.
    fn compute() -> blas_sys::cublasComputeType_t;
}

impl Element for f32 {
    const C: &'static str = "float";
    const DNN: sys::cudnnDataType_t = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
    const BLAS: blas_sys::cudaDataType = blas_sys::cudaDataType::CUDA_R_32F;
    fn compute() -> blas_sys::cublasComputeType_t {
        if TF32.load(Ordering::Relaxed) {
            blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        } else {
            blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
        }
    }
}

impl Element for f64 {
    const C: &'static str = "double";
    const DNN: sys::cudnnDataType_t = sys::cudnnDataType_t::CUDNN_DATA_DOUBLE;
    const BLAS: blas_sys::cudaDataType = blas_sys::cudaDataType::CUDA_R_64F;
    fn compute() -> blas_sys::cublasComputeType_t {
        blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_64F
    }
}

#[repr(C)]
struct Words([u64; WORDS]);

// SAFETY: the kernels' `Words`, by value.
unsafe impl DeviceRepr for Words {}

/// What a plan depends on: pass, every extent, element type, whether channels are last, whether TF32 is allowed.
type Key = (Pass, [usize; 12], &'static str, bool, bool);

/// What a thread keeps for a device, until the process ends.
struct Handles {
    dnn: sys::cudnnHandle_t,
    modules: RefCell<HashMap<&'static str, Arc<CudaModule>>>,
    functions: RefCell<HashMap<(&'static str, &'static str), CudaFunction>>,
    /// None where cuDNN has no algorithm.
    plans: RefCell<HashMap<Key, Option<Plan>>>,
}

thread_local! {
    // cuDNN's handles belong to a thread.
    static HANDLES: RefCell<HashMap<DeviceId, Rc<Handles>>> = RefCell::new(HashMap::new());
}

fn handles(device: &CudaDevice) -> Result<Rc<Handles>> {
    HANDLES.with_borrow_mut(|all| {
        if let Some(handles) = all.get(&device.id()) {
            return Ok(handles.clone());
        }
        let stream = device.cuda_stream();
        stream.context().bind_to_thread()?;
        let dnn = result::create_handle()?;
        // SAFETY: handle and stream are alive; cuDNN's stream type is the driver's.
        unsafe { result::set_stream(dnn, stream.cu_stream() as *mut _)? };
        let handles = Rc::new(Handles {
            dnn,
            modules: RefCell::default(),
            functions: RefCell::default(),
            plans: RefCell::default(),
        });
        all.insert(device.id(), handles.clone());
        Ok(handles)
    })
}

impl Handles {
    /// The function `k_kernel` for elements of C type `real`.
    fn function(&self, device: &CudaDevice, kernel: &'static str, real: &'static str) -> Result<CudaFunction> {
        if let Some(function) = self.functions.borrow().get(&(kernel, real)) {
            return Ok(function.clone());
        }
        let known = self.modules.borrow().get(real).cloned();
        let module = match known {
            Some(module) => module,
            None => {
                let ptx = compile_ptx(format!("typedef {real} real;\n{SOURCE}")).w()?;
                let module = device.cuda_stream().context().load_module(ptx)?;
                self.modules.borrow_mut().insert(real, module.clone());
                module
            }
        };
        let function = module.load_function(&format!("k_{kernel}"))?;
        self.functions.borrow_mut().insert((kernel, real), function.clone());
        Ok(function)
    }
}

/// A GPU that computes in `T`.
pub struct Gpu<T> {
    device: CudaDevice,
    handles: Rc<Handles>,
    element: PhantomData<T>,
}

impl<T: Element> Gpu<T> {
    /// On a device.
    ///
    /// # Errors
    /// When cuDNN does not start.
    pub fn new(device: &CudaDevice) -> Result<Self> {
        Ok(Self { device: device.clone(), handles: handles(device)?, element: PhantomData })
    }

    /// An operand.
    ///
    /// # Errors
    /// When it is not contiguous, or of another type.
    pub fn array<'a>(&self, name: &str, storage: &CudaStorage, layout: &'a Layout) -> Result<Array<'a>> {
        if !layout.is_contiguous() {
            bail!("{name}: operand of shape {:?} is not contiguous", layout.dims())
        }
        Ok(Array { at: self.operand::<T>(storage, layout)?, dims: layout.dims() })
    }

    /// Address of a contiguous operand of another type.
    ///
    /// # Errors
    /// When it is of neither.
    pub fn operand<U: CudaDType>(&self, storage: &CudaStorage, layout: &Layout) -> Result<u64> {
        let stream = self.device.cuda_stream();
        // Nothing is recorded when the guard goes: events are off, and one stream does everything.
        Ok(storage.as_cuda_slice::<U>()?.slice(layout.start_offset()..).device_ptr(&stream).0)
    }

    /// How cuDNN does a convolution, where it does, with its descriptors.
    fn plan(&self, pass: Pass, d: &Dims, channels_last: bool) -> Result<(Descriptors, Option<Plan>)> {
        self.device.cuda_stream().context().bind_to_thread()?;
        let of = Descriptors::new::<T>(d, channels_last)?;
        let [i, o, k, padding] = [d.input, d.output, d.kernel, d.spec.padding];
        let extents = [d.n, d.i, d.o, i[0], i[1], o[0], o[1], k[0], k[1], d.spec.stride, padding[0], padding[1]];
        let key = (pass, extents, T::C, channels_last, TF32.load(Ordering::Relaxed));
        let known = self.handles.plans.borrow().get(&key).copied();
        let plan = match known {
            Some(plan) => plan,
            None => {
                let plan = Plan::new(self.handles.dnn, pass, &of)?;
                self.handles.plans.borrow_mut().insert(key, plan);
                plan
            }
        };
        Ok((of, plan))
    }

    /// What an operator made, as a storage.
    pub fn store(&self, made: CudaSlice<T>) -> CudaStorage {
        CudaStorage::wrap_cuda_slice(made, self.device.clone())
    }
}

impl<T: Element> Machine for Gpu<T> {
    type Buffer = CudaSlice<T>;
    const BYTES: usize = size_of::<T>();

    fn alloc(&self, elements: usize) -> Result<CudaSlice<T>> {
        // SAFETY: whoever asks for memory writes all of it before it reads any.
        unsafe { self.device.alloc(elements) }
    }

    fn at(&self, buffer: &CudaSlice<T>) -> u64 {
        buffer.device_ptr(&self.device.cuda_stream()).0
    }

    fn address(&self, name: &str, t: &Tensor) -> Result<u64> {
        let (storage, layout) = t.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok(self.array(name, storage, layout)?.at),
            _ => bail!("{name}: expected a tensor on the GPU"),
        }
    }

    fn launch(&self, kernel: &'static str, grid: [usize; 3], block: [usize; 2], words: [u64; WORDS]) -> Result<()> {
        let function = self.handles.function(&self.device, kernel, T::C)?;
        let [x, y, z] = grid.map(|g| g as u32);
        let config =
            LaunchConfig { grid_dim: (x, y, z), block_dim: (block[0] as u32, block[1] as u32, 1), shared_mem_bytes: 0 };
        let words = Words(words);
        let stream = self.device.cuda_stream();
        // SAFETY: every kernel takes `Words` alone; its addresses and extents come from operands that outlive the launch.
        unsafe { stream.launch_builder(&function).arg(&words).launch(config)? };
        Ok(())
    }

    fn channels_last(&self, pass: Pass, d: &Dims) -> Result<bool> {
        // It takes doubles with the channels first.
        Ok(size_of::<T>() == 4 && self.plan(pass, d, true)?.1.is_some())
    }

    fn convolve(&self, pass: Pass, d: &Dims, channels_last: bool, [x, w, y]: [u64; 3]) -> Result<()> {
        let (of, Some(plan)) = self.plan(pass, d, channels_last)? else {
            bail!("cuDNN has no algorithm for {pass:?} of {d:?} in {}", T::C)
        };
        let workspace = self.alloc(plan.workspace.div_ceil(Self::BYTES).max(1))?;
        // SAFETY: addresses hold what the descriptors say; freed memory is reused in the order of the stream.
        unsafe { plan.run::<T>(self.handles.dnn, &of, [x, w, y], self.at(&workspace)) }
    }

    fn product(&self, product: &Product, a: u64, b: u64, out: u64) -> Result<()> {
        self.device.cuda_stream().context().bind_to_thread()?;
        let [m, n, k] = ints(product.size)?;
        let [a_transposed, b_transposed] = product.transposed;
        // cuBLAS counts columns first: there every matrix is its transpose, and outᵀ = bᵀ·aᵀ.
        let operation = |transposed: bool| {
            if transposed { blas_sys::cublasOperation_t::CUBLAS_OP_T } else { blas_sys::cublasOperation_t::CUBLAS_OP_N }
        };
        let [a_row, b_row] = [if a_transposed { m } else { k }, if b_transposed { k } else { n }];
        let (one, zero) = (T::ONE, T::ZERO);
        // SAFETY: addresses hold matrices of these sizes; the scalars are of the type of the sums.
        unsafe {
            blas::gemm_ex(
                *self.device.cublas_handle().handle(),
                operation(b_transposed),
                operation(a_transposed),
                n,
                m,
                k,
                (&raw const one).cast(),
                b as *const c_void,
                T::BLAS,
                b_row,
                a as *const c_void,
                T::BLAS,
                a_row,
                (&raw const zero).cast(),
                out as *mut c_void,
                T::BLAS,
                n,
                T::compute(),
                blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
            .w()
        }
    }
}
