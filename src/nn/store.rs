//! Named tensors of one network in one flat buffer, so that the optimiser, the moving average and a checkpoint treat a
//! network as a single vector, whatever its layers are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::init::Init;
use super::kernel::Kernel;
use super::op::{InPlace, update};
use super::order::Order;
use crate::machine::cpu::real::Real;
use crate::machine::current::is_machine;
use crate::rng::Stream;
use crate::weights::missing;

/// A tensor of a [`Store`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Id(usize);

#[derive(Debug)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    offset: usize,
    init: Init,
    order: Order,
}

impl Entry {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Names, shapes and initial distributions, before a buffer exists.
#[derive(Default, Debug)]
pub struct Builder {
    entries: Vec<Entry>,
    len: usize,
}

impl Builder {
    /// Declares a tensor.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], init: Init) -> Id {
        self.add_ordered(name, shape, init, Order::plain(shape.iter().product()))
    }

    /// Declares a tensor that a device keeps in another order than the files.
    pub fn add_ordered(&mut self, name: impl Into<String>, shape: &[usize], init: Init, order: Order) -> Id {
        let offset = self.len;
        self.len += shape.iter().product::<usize>();
        self.entries.push(Entry { name: name.into(), shape: shape.to_vec(), offset, init, order });
        Id(self.entries.len() - 1)
    }

    /// Elements of all tensors together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Draws every tensor's initial values, in the order of declaration.
    ///
    /// # Errors
    /// When the device refuses the buffer.
    pub fn build(self, stream: &mut Stream, dtype: DType, device: &Device) -> Result<Store> {
        let values: Vec<f64> = self.entries.iter().flat_map(|e| e.init.draw(&e.shape, stream)).collect();
        // A GPU has no memory of no bytes.
        let device = if self.len == 0 { &Device::Cpu } else { device };
        let flat = Tensor::from_vec(values, self.len, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
        let store = Store { entries: Arc::new(self.entries), flat };
        let flat = store.from_file(&store.flat)?;
        Ok(Store { flat, ..store })
    }
}

/// Named tensors, each a view into one flat buffer; on a device some of them in the order that it takes them in ([`Order`]).
#[derive(Clone, Debug)]
pub struct Store {
    entries: Arc<Vec<Entry>>,
    flat: Tensor,
}

struct Copy;

impl InPlace<1> for Copy {
    const NAME: &'static str = "copy";
    fn element<T: Real>(&self, _: T, [x]: [T; 1]) -> T {
        x
    }
}

/// Overwrites every element of `target` with those of `value`.
///
/// # Errors
/// When sizes or dtypes differ.
pub fn overwrite(target: &Tensor, value: &Tensor) -> Result<()> {
    update(&Copy, target, [value])
}

impl Store {
    /// The whole buffer, `[elements]`.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Elements of all tensors together.
    pub fn len(&self) -> usize {
        self.entries.iter().map(Entry::len).sum()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A store of the same names and shapes, all zero, with memory of its own.
    ///
    /// # Errors
    /// When the device refuses the buffer.
    pub fn zeros_like(&self) -> Result<Self> {
        Ok(Self { entries: self.entries.clone(), flat: self.flat.zeros_like()? })
    }

    /// A copy with memory of its own.
    ///
    /// # Errors
    /// When the device refuses the buffer.
    pub fn deep_clone(&self) -> Result<Self> {
        Ok(Self { entries: self.entries.clone(), flat: self.flat.copy()? })
    }

    /// A vector of this layout in the files' order.
    ///
    /// # Errors
    /// When it has another length, or the device fails.
    pub fn to_file(&self, flat: &Tensor) -> Result<Tensor> {
        self.ordered(flat, Order::to_file)
    }

    /// A vector of this layout from the files' order.
    ///
    /// # Errors
    /// As for [`Store::to_file`].
    #[allow(clippy::wrong_self_convention)]
    pub fn from_file(&self, flat: &Tensor) -> Result<Tensor> {
        self.ordered(flat, Order::to_device)
    }

    fn ordered(&self, flat: &Tensor, order: impl Fn(Order, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        if self.is_empty() || !is_machine(flat.device())? {
            return Ok(flat.clone());
        }
        let parts = self.entries.iter().map(|e| order(e.order, &flat.narrow(0, e.offset, e.len())?));
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
    }

    /// A view of one tensor: it sees later changes. Its elements are in the order that they are kept in.
    ///
    /// # Errors
    /// Never for an id of this layout.
    pub fn get(&self, id: Id) -> Result<Tensor> {
        let e = &self.entries[id.0];
        self.flat.narrow(0, e.offset, e.len())?.reshape(e.shape.as_slice())
    }

    /// A view of one tensor as a convolution's weight.
    ///
    /// # Errors
    /// When it has not as many elements.
    pub fn kernel(&self, id: Id, shape: [usize; 4]) -> Result<Kernel> {
        Kernel::of(&self.get(id)?, shape)
    }

    /// Name of a tensor.
    pub fn name(&self, id: Id) -> &str {
        &self.entries[id.0].name
    }

    /// Where a tensor begins in the buffer.
    pub fn offset(&self, id: Id) -> usize {
        self.entries[id.0].offset
    }

    /// Overwrites one tensor.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn set(&self, id: Id, value: &Tensor) -> Result<()> {
        overwrite(&self.get(id)?, &value.contiguous()?)
    }

    /// Names and shapes, in order of declaration.
    pub fn layout(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.entries.iter().map(|e| (e.name.as_str(), e.shape.as_slice()))
    }

    /// Every tensor by name, in the files' order.
    ///
    /// # Errors
    /// Never for a consistent store.
    pub fn named(&self) -> Result<BTreeMap<String, Tensor>> {
        let flat = self.to_file(&self.flat)?;
        let part = |e: &Entry| flat.narrow(0, e.offset, e.len())?.reshape(e.shape.as_slice());
        self.entries.iter().map(|e| Ok((e.name.clone(), part(e)?))).collect()
    }

    /// Takes every tensor of this store out of `from` (keys `prefix` + name), converting the dtype.
    ///
    /// # Errors
    /// When one is missing or has another shape; nothing is checked about tensors that are left over.
    pub fn take_from(&self, from: &mut BTreeMap<String, Tensor>, prefix: &str) -> Result<()> {
        for (i, e) in self.entries.iter().enumerate() {
            let key = format!("{prefix}{}", e.name);
            let Some(value) = from.remove(&key) else {
                let wanted: BTreeSet<&str> = self.entries.iter().map(|e| e.name.as_str()).collect();
                let idle = |name: &&str| name.strip_prefix(prefix).is_none_or(|name| !wanted.contains(name));
                bail!("{}", missing(&key, from.keys().map(String::as_str).filter(idle)))
            };
            if value.dims() != e.shape {
                bail!("tensor `{key}` has shape {:?}, expected {:?}", value.dims(), e.shape)
            }
            let value = value.to_dtype(self.flat.dtype())?.to_device(self.flat.device())?;
            let ordered =
                if is_machine(self.flat.device())? { e.order.to_device(&value.contiguous()?)? } else { value };
            self.set(Id(i), &ordered)?;
        }
        Ok(())
    }
}
