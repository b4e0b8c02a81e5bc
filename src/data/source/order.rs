//! In which order the images of a collection count, where a measure takes some of them or cuts them into splits.

use crate::rng::Stream;

/// An order, which is part of a measure's protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// A fixed permutation for each number of images: collections lie class by class more often than not, and the first of them
    /// are then of one class.
    Spread,
    /// As they lie, as the official tools read them.
    File,
}

impl Order {
    /// All of them by name.
    pub const ALL: [(&str, Self); 2] = [("spread", Self::Spread), ("file", Self::File)];

    /// Name in protocols.
    pub fn id(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::File => "file",
        }
    }

    /// The place of each of `len` images.
    pub fn ranks(self, len: usize) -> Vec<u32> {
        match self {
            Self::Spread => Stream::new(0, "collection/spread", len as u64).permutation(len),
            Self::File => (0..len as u32).collect(),
        }
    }

    /// Which of `len` images are the first `n` of this order, ascending.
    pub fn first(self, n: usize, len: usize) -> Vec<usize> {
        self.ranks(len).iter().enumerate().filter(|(_, rank)| (**rank as usize) < n).map(|(i, _)| i).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_spread_over_all_and_always_the_same() {
        let some = Order::Spread.first(100, 1000);
        assert_eq!((some.len(), some.is_sorted()), (100, true));
        // By tenths of the collection: 10 each expected, with a deviation of 2.8.
        assert!((0..10).all(|k| (2..=18).contains(&some.iter().filter(|&&i| i / 100 == k).count())));
        assert_eq!(some, Order::Spread.first(100, 1000));
        assert_eq!(Order::File.first(3, 5), [0, 1, 2]);
        let mut ranks = Order::Spread.ranks(50);
        ranks.sort_unstable();
        assert_eq!(ranks, Order::File.ranks(50));
    }
}
