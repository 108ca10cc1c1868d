//! The one source of chance of a run: SplitMix64, so that a seed is a run.

/// A pseudo-random sequence.
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of a remainder is of no account here.
        (self.next() >> 11) % bound
    }

    /// An index into something of length `len`, which is not zero.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True `of_1024` times out of 1024.
    pub fn chance(&mut self, of_1024: u32) -> bool {
        self.next() >> 54 < u64::from(of_1024)
    }

    pub fn coin(&mut self) -> bool {
        self.chance(512)
    }
}
