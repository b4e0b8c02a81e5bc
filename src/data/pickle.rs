//! Python's pickles as far as a batch of CIFAR-10 goes. Parsed, never executed: what a pickle would call is passed over. Values
//! lie side by side and name each other by place, so none is copied and no nesting is too deep.

use std::collections::HashMap;

/// Most values of a pickle: far more than two for each image of a batch.
const MOST: usize = 1 << 18;

/// A value.
pub(super) enum Value<'a> {
    /// Text or bytes.
    Bytes(&'a [u8]),
    Int(i64),
    /// A list or tuple.
    Items(Vec<usize>),
    Dict(Vec<[usize; 2]>),
    /// Anything else, with the state it was given.
    Object(Option<usize>),
}

/// A parsed pickle.
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: usize,
}

impl<'a> Pickle<'a> {
    /// Parses a pickle.
    ///
    /// # Errors
    /// When it is cut off, or not of the kind a batch is.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), pushed: 0 };
        let root = machine.run()?;
        Ok(Self { values: machine.values, root })
    }

    /// The value at a place.
    pub(super) fn get(&self, place: usize) -> &Value<'a> {
        &self.values[place]
    }

    /// The value under a key of the dictionary that the pickle is.
    pub(super) fn entry(&self, key: &str) -> Option<&Value<'a>> {
        let Value::Dict(entries) = self.get(self.root) else { return None };
        let is = |place: usize| matches!(self.get(place), Value::Bytes(name) if *name == key.as_bytes());
        entries.iter().find(|[name, _]| is(*name)).map(|[_, value]| self.get(*value))
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<usize>,
    /// Heights of the stack.
    marks: Vec<usize>,
    pushed: usize,
}

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let part = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end));
        self.at += n;
        part.ok_or_else(|| "it is cut off".to_owned())
    }

    /// A little-endian number.
    fn number(&mut self, width: usize) -> Result<usize, String> {
        Ok(self.take(width)?.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)))
    }

    fn line(&mut self) -> Result<(), String> {
        while self.take(1)? != b"\n" {}
        Ok(())
    }

    fn push_place(&mut self, place: usize) -> Result<(), String> {
        self.pushed += 1;
        if self.pushed > MOST {
            return Err(format!("it has more than {MOST} values"));
        }
        self.stack.push(place);
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        self.values.push(value);
        self.push_place(self.values.len() - 1)
    }

    /// The last `n` values on the stack, above the last mark.
    fn pop(&mut self, n: usize) -> Result<Vec<usize>, String> {
        let first = self.stack.len().checked_sub(n).filter(|first| self.marks.last().is_none_or(|mark| mark <= first));
        Ok(self.stack.split_off(first.ok_or("it takes more values than it gave")?))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().ok_or("it goes back to a mark that it did not set")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Value<'a>, String> {
        let place = *self.stack.last().ok_or("it changes a value that it did not give")?;
        Ok(&mut self.values[place])
    }

    /// Runs to the end; the place of the result.
    fn run(&mut self) -> Result<usize, String> {
        let mut memo = HashMap::new();
        loop {
            let code = self.take(1)?[0];
            match code {
                0x80 => drop(self.take(1)?),
                b'(' => self.marks.push(self.stack.len()),
                b'N' | 0x88 | 0x89 => self.push(Value::Object(None))?,
                b'K' | b'M' => {
                    let value = self.number(if code == b'K' { 1 } else { 2 })?;
                    self.push(Value::Int(value as i64))?;
                }
                b'J' => {
                    let value = self.number(4)? as u32 as i32;
                    self.push(Value::Int(value.into()))?;
                }
                b'U' | b'T' | b'X' => {
                    let length = self.number(if code == b'U' { 1 } else { 4 })?;
                    let bytes = self.take(length)?;
                    self.push(Value::Bytes(bytes))?;
                }
                b'c' => {
                    self.line()?;
                    self.line()?;
                    self.push(Value::Object(None))?;
                }
                b']' | b')' => self.push(Value::Items(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                0x85..=0x87 => {
                    let items = self.pop(usize::from(code - 0x84))?;
                    self.push(Value::Items(items))?;
                }
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Items(items))?;
                }
                b'a' | b'e' => {
                    let more = if code == b'a' { self.pop(1)? } else { self.pop_to_mark()? };
                    let Value::Items(items) = self.top()? else {
                        return Err("it appends to what is no list".to_owned());
                    };
                    items.extend(more);
                }
                b's' | b'u' => {
                    let more = if code == b's' { self.pop(2)? } else { self.pop_to_mark()? };
                    let Value::Dict(entries) = self.top()? else {
                        return Err("it sets what is no dictionary".to_owned());
                    };
                    entries.extend(more.chunks_exact(2).map(|pair| [pair[0], pair[1]]));
                }
                b'R' => {
                    self.pop(2)?;
                    self.push(Value::Object(None))?;
                }
                b'b' => {
                    let state = self.pop(1)?;
                    let Value::Object(of) = self.top()? else { return Err("it gives a state to no object".to_owned()) };
                    *of = state.first().copied();
                }
                b'q' | b'r' => {
                    let key = self.number(if code == b'q' { 1 } else { 4 })?;
                    memo.insert(key, *self.stack.last().ok_or("it keeps a value that it did not give")?);
                }
                b'h' | b'j' => {
                    let key = self.number(if code == b'h' { 1 } else { 4 })?;
                    self.push_place(*memo.get(&key).ok_or("it asks for a value that it did not keep")?)?;
                }
                b'.' => return self.stack.last().copied().ok_or_else(|| "it is empty".to_owned()),
                _ => return Err(format!("byte {} is {code:#04x}, an operation that no batch has", self.at - 1)),
            }
        }
    }
}
