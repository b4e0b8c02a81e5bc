//! Messages of protocol buffers, written field by field (https://protobuf.dev/programming-guides/encoding).

/// A message in wire format: its fields one after the other.
#[derive(Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    /// Adds a whole number; one below zero as its two's complement.
    pub fn int(mut self, field: u64, value: u64) -> Self {
        self.key(field, 0);
        self.varint(value);
        self
    }

    /// Adds a number of 8 bytes.
    pub fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Adds a number of 4 bytes.
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Adds bytes.
    pub fn raw(mut self, field: u64, value: &[u8]) -> Self {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    /// Adds a text.
    pub fn text(self, field: u64, value: &str) -> Self {
        self.raw(field, value.as_bytes())
    }

    /// Adds a message.
    pub fn message(self, field: u64, value: Self) -> Self {
        self.raw(field, &value.0)
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_encodings_description() {
        // Its examples: `a: 150` in field 1, `b: "testing"` in field 2, the first message as field 3.
        let a = Message::default().int(1, 150);
        assert_eq!(a.bytes(), b"\x08\x96\x01");
        assert_eq!(Message::default().text(2, "testing").bytes(), b"\x12\x07testing");
        assert_eq!(Message::default().message(3, a).bytes(), b"\x1a\x03\x08\x96\x01");
        assert_eq!(Message::default().int(1, -2i64 as u64).bytes(), b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }
}
