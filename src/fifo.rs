//! A queue of bounded length, oldest first, in an array.

/// At most `N` of `T`, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Fifo<T, const N: usize> {
    slots: [Option<T>; N],
    first: usize,
    len: usize,
}

impl<T, const N: usize> Fifo<T, N> {
    /// An empty one.
    pub const fn new() -> Self {
        Self { slots: [const { None }; N], first: 0, len: 0 }
    }

    /// How many are there.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// How many more fit.
    pub const fn room(&self) -> usize {
        N - self.len
    }

    /// Adds one behind the others; where there is no room nothing is done.
    pub fn push(&mut self, new: T) {
        if self.len < N {
            self.slots[(self.first + self.len) % N] = Some(new);
            self.len += 1;
        }
    }

    /// The oldest one.
    pub fn front(&self) -> Option<&T> {
        self.slots.get(self.first)?.as_ref()
    }

    /// Takes the oldest one.
    pub fn pop(&mut self) -> Option<T> {
        let oldest = self.slots.get_mut(self.first)?.take()?;
        self.first = (self.first + 1) % N;
        self.len -= 1;
        Some(oldest)
    }

    /// Drops those that `stays` does not name; the others keep their order.
    pub fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        for _ in 0..self.len {
            if let Some(one) = self.pop()
                && stays(&one)
            {
                self.push(one);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn drained(mut fifo: Fifo<u32, 3>) -> Vec<u32> {
        core::iter::from_fn(|| fifo.pop()).collect()
    }

    #[test]
    fn what_went_in_comes_out_in_the_same_order_round_the_end_of_the_array() {
        let mut fifo = Fifo::<u32, 3>::new();
        for i in 0..7 {
            fifo.push(i);
            fifo.push(i + 10);
            assert_eq!((fifo.len(), fifo.room(), fifo.front()), (2, 1, Some(&i)));
            assert_eq!((fifo.pop(), fifo.pop(), fifo.pop()), (Some(i), Some(i + 10), None));
        }
    }

    #[test]
    fn there_is_no_room_for_more_than_it_holds() {
        let mut fifo = Fifo::<u32, 3>::new();
        (0..5).for_each(|i| fifo.push(i));
        assert_eq!(fifo.room(), 0);
        assert_eq!(drained(fifo), [0, 1, 2]);
    }

    #[test]
    fn what_stays_keeps_its_order() {
        let mut fifo = Fifo::<u32, 3>::new();
        (0..2).for_each(|i| fifo.push(i));
        fifo.pop();
        (2..4).for_each(|i| fifo.push(i));
        fifo.retain(|i| *i != 2);
        assert_eq!(fifo.room(), 1);
        assert_eq!(drained(fifo), [1, 3]);
    }
}
