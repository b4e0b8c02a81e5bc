//! Networks as graphs of operators in the Open Neural Network Exchange format (https://github.com/onnx/onnx, `onnx/onnx.proto`, whose
//! numbers of fields and of types stand below).

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::protobuf::Message;

/// Version of the file format.
pub const IR_VERSION: u64 = 8;
/// Version of the set of operators.
pub const OPSET: u64 = 17;

/// What the elements of a tensor are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element {
    /// 32-bit floating point.
    Float = 1,
    /// 64-bit integers.
    Int = 7,
}

/// The extent of an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Of the batch, which is known when the graph is run.
    Batch,
    /// A fixed one.
    Of(usize),
}

/// An attribute of an operator.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Attribute<'a> {
    /// A whole number.
    Int(i64),
    /// Several.
    Ints(&'a [i64]),
    /// A number.
    Float(f32),
    /// A word.
    Text(&'a str),
}

impl Attribute<'_> {
    fn message(self, name: &str) -> Message {
        let named = Message::default().text(1, name);
        match self {
            Self::Float(value) => named.float(2, value).int(20, 1),
            Self::Int(value) => named.int(3, value as u64).int(20, 2),
            Self::Text(value) => named.text(4, value).int(20, 3),
            Self::Ints(values) => values.iter().fold(named, |m, &value| m.int(8, value as u64)).int(20, 7),
        }
    }
}

/// A graph that is being built, operator after operator. Values go by their names.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<Message>,
    constants: BTreeMap<String, Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
}

fn value(name: &str, element: Element, shape: &[Extent]) -> Message {
    let extents = shape.iter().fold(Message::default(), |m, extent| {
        m.message(
            1,
            match extent {
                Extent::Of(n) => Message::default().int(1, *n as u64),
                Extent::Batch => Message::default().text(2, "N"),
            },
        )
    });
    let tensor = Message::default().int(1, element as u64).message(2, extents);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

impl Graph {
    /// Declares an input.
    pub fn input(&mut self, name: &str, element: Element, shape: &[Extent]) {
        self.inputs.push(value(name, element, shape));
    }

    /// Adds an operator; its one output has the name that is returned.
    pub fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let name = format!("{operator}_{}", self.nodes.len());
        self.push(operator, inputs, &name, attributes);
        name
    }

    fn push(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) {
        let node = inputs.iter().fold(Message::default(), |m, input| m.text(1, input));
        let node = node.text(2, output).text(3, output).text(4, operator);
        self.nodes.push(attributes.iter().fold(node, |m, (name, value)| m.message(5, value.message(name))));
    }

    /// Declares what has the name `from` as an output.
    pub fn output(&mut self, from: &str, name: &str, element: Element, shape: &[Extent]) {
        self.push("Identity", &[from], name, &[]);
        self.outputs.push(value(name, element, shape));
    }

    /// Adds a tensor of 32-bit floating point or 64-bit integers, once for each name, which is returned.
    ///
    /// # Errors
    /// When it has another type, or cannot be read.
    pub fn constant(&mut self, name: &str, tensor: &Tensor) -> Result<String> {
        if !self.constants.contains_key(name) {
            let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
            let (element, bytes) = match tensor.dtype() {
                DType::F32 => (Element::Float, flat.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect()),
                DType::I64 => (Element::Int, flat.to_vec1::<i64>()?.into_iter().flat_map(i64::to_le_bytes).collect()),
                other => bail!("a graph has no constants of {other:?}"),
            };
            let bytes: Vec<u8> = bytes;
            let message = tensor.dims().iter().fold(Message::default(), |m, &extent| m.int(1, extent as u64));
            self.constants.insert(name.to_owned(), message.int(2, element as u64).text(8, name).raw(9, &bytes));
        }
        Ok(name.to_owned())
    }

    /// The bytes of a file: the graph by name, with a description and notes by their keys.
    pub fn model(self, name: &str, description: &str, notes: &[(&str, String)]) -> Vec<u8> {
        let mut graph = self.nodes.into_iter().fold(Message::default(), |m, node| m.message(1, node)).text(2, name);
        graph = self.constants.into_values().fold(graph, |m, constant| m.message(5, constant));
        graph = self.inputs.into_iter().fold(graph, |m, input| m.message(11, input));
        graph = self.outputs.into_iter().fold(graph, |m, output| m.message(12, output));
        let model = Message::default().int(1, IR_VERSION).text(2, "pgn-bench").text(3, env!("CARGO_PKG_VERSION"));
        let model = model.text(6, description).message(7, graph);
        let model = model.message(8, Message::default().text(1, "").int(2, OPSET));
        let note =
            |m: Message, (key, value): &(&str, String)| m.message(14, Message::default().text(1, key).text(2, value));
        notes.iter().fold(model, note).bytes().to_vec()
    }
}
