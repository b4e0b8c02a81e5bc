//! The structures of a Parquet file's footer in Thrift's compact protocol. The library reads each field by its number and never looks
//! at its type: one of another type puts it out of step, and the next length that it believes is any number.

/// Deepest nesting of structures.
const DEEPEST: usize = 32;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Value {
    Bool,
    Byte,
    Int,
    Text,
    Structure(Fields),
    /// Of such values.
    List(&'static Value),
}

/// Fields by number, those that the library reads.
pub(super) type Fields = &'static [(i64, Value)];

const EMPTY: Value = Value::Structure(&[]);
const KEY_VALUE: Value = Value::Structure(&[(1, Value::Text), (2, Value::Text)]);
const SORTING: Value = Value::Structure(&[(1, Value::Int), (2, Value::Bool), (3, Value::Bool)]);
const ORDER: Value = Value::Structure(&[(1, EMPTY), (2, EMPTY)]);
const DECIMAL: Value = Value::Structure(&[(1, Value::Int), (2, Value::Int)]);
const UNIT: Value = Value::Structure(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]);
const TIME: Value = Value::Structure(&[(1, Value::Bool), (2, UNIT)]);
const INTEGER: Value = Value::Structure(&[(1, Value::Byte), (2, Value::Bool)]);
const LOGICAL: Value = Value::Structure(&[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, DECIMAL),
    (6, EMPTY),
    (7, TIME),
    (8, TIME),
    (10, INTEGER),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
]);
const ELEMENT: Value = Value::Structure(&[
    (1, Value::Int),
    (2, Value::Int),
    (3, Value::Int),
    (4, Value::Text),
    (5, Value::Int),
    (6, Value::Int),
    (7, Value::Int),
    (8, Value::Int),
    (9, Value::Int),
    (10, LOGICAL),
]);
const STATISTICS: Value = Value::Structure(&[
    (1, Value::Text),
    (2, Value::Text),
    (3, Value::Int),
    (4, Value::Int),
    (5, Value::Text),
    (6, Value::Text),
    (7, Value::Bool),
    (8, Value::Bool),
]);
const COLUMN: Value = Value::Structure(&[
    (1, Value::Int),
    (2, Value::List(&Value::Int)),
    (3, Value::List(&Value::Text)),
    (4, Value::Int),
    (5, Value::Int),
    (6, Value::Int),
    (7, Value::Int),
    (9, Value::Int),
    (10, Value::Int),
    (11, Value::Int),
    (12, STATISTICS),
    (14, Value::Int),
    (15, Value::Int),
]);
const CHUNK: Value = Value::Structure(&[
    (1, Value::Text),
    (2, Value::Int),
    (3, COLUMN),
    (4, Value::Int),
    (5, Value::Int),
    (6, Value::Int),
    (7, Value::Int),
]);
const GROUP: Value = Value::Structure(&[
    (1, Value::List(&CHUNK)),
    (2, Value::Int),
    (3, Value::Int),
    (4, Value::List(&SORTING)),
    (5, Value::Int),
    (6, Value::Int),
    (7, Value::Int),
]);
/// The footer.
pub(super) const FILE: Fields = &[
    (1, Value::Int),
    (2, Value::List(&ELEMENT)),
    (3, Value::Int),
    (4, Value::List(&GROUP)),
    (5, Value::List(&KEY_VALUE)),
    (6, Value::Text),
    (7, Value::List(&ORDER)),
];

/// Thrift's compact protocol, walked value by value.
pub(super) struct Thrift<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        self.varint().map(|n| (n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A whole number in a structure, under the ids of the fields that lead to it.
    pub(super) fn field(&mut self, path: &[i64]) -> Option<i64> {
        let (wanted, rest) = path.split_first()?;
        let mut id = 0;
        loop {
            let head = self.byte()?;
            match head >> 4 {
                _ if head == 0 => return None,
                0 => id = self.signed()?,
                more => id += i64::from(more),
            }
            match head & 15 {
                4..=6 if id == *wanted && rest.is_empty() => return self.signed(),
                STRUCT if id == *wanted => return self.field(rest),
                kind => self.skip(kind, 1)?,
            }
        }
    }

    /// Passes over a structure whose known fields are of their types.
    pub(super) fn structure(&mut self, known: Fields, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let mut id = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            match head >> 4 {
                0 => id = self.signed()?,
                more => id += i64::from(more),
            }
            let kind = head & 15;
            match (known.iter().find(|(of, _)| *of == id).map(|(_, value)| *value), kind) {
                (Some(Value::Structure(fields)), STRUCT) => self.structure(fields, depth + 1)?,
                (Some(Value::List(element)), LIST) => {
                    let (of, count) = self.list()?;
                    (0..count).try_for_each(|_| self.value(*element, of, depth + 1))?;
                }
                (Some(Value::Structure(_) | Value::List(_)), _) => return None,
                (Some(value), kind) => self.value(value, kind, depth + 1)?,
                (None, kind) => self.skip(kind, depth + 1)?,
            }
        }
    }

    /// Passes over a value that must be of a type.
    fn value(&mut self, value: Value, kind: u8, depth: usize) -> Option<()> {
        match (value, kind) {
            (Value::Structure(fields), STRUCT) => self.structure(fields, depth),
            (Value::Bool, 1 | 2) | (Value::Byte, 3) | (Value::Int, 4..=6) | (Value::Text, 8) => self.skip(kind, depth),
            _ => None,
        }
    }

    /// Type and number of a list's elements: no more than bytes are left.
    fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        (count <= (self.bytes.len() - self.at) as u64).then_some((head & 15, count))
    }

    fn advance(&mut self, n: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(n).ok()?).filter(|&at| at <= self.bytes.len())?;
        Some(())
    }

    /// Passes over a value of a type; a list has no more elements than bytes are left.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match kind {
            1 | 2 => Some(()),
            3 => self.advance(1),
            4..=6 => self.varint().map(drop),
            7 => self.advance(8),
            8 => {
                let length = self.varint()?;
                self.advance(length)
            }
            9 | 10 => {
                let (kind, count) = self.list()?;
                // A true or false in a list has a byte of its own.
                let kind = if kind <= 2 { 3 } else { kind };
                (0..count).try_for_each(|_| self.skip(kind, depth + 1))
            }
            STRUCT => loop {
                let head = self.byte()?;
                if head == 0 {
                    return Some(());
                }
                if head >> 4 == 0 {
                    self.varint()?;
                }
                self.skip(head & 15, depth + 1)?;
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_another_type_is_refused() {
        let walk = |bytes: &[u8]| Thrift { bytes, at: 0 }.structure(FILE, 0);
        // Version 1, no schema, no rows, no groups; an unknown field of any type.
        assert!(walk(&[0x15, 2, 0x19, 0x0c, 0x16, 0, 0x19, 0x0c, 0x98, 1, b'x', 0]).is_some());
        // The schema as a text: the library would take the text's bytes for a list and its length.
        assert!(walk(&[0x15, 2, 0x18, 3, 0xf8, 0xff, 0x7f, 0x16, 0, 0x19, 0x0c, 0]).is_none());
        // A list of numbers in place of structures, and one longer than the file.
        assert!(walk(&[0x15, 2, 0x19, 0x15, 2, 0]).is_none());
        assert!(walk(&[0x15, 2, 0x19, 0xfc, 0xff, 0x7f, 0]).is_none());
    }
}
