//! Who gets which RAM: first the VMs, in pieces that their largest blocks fit, then the frame pool.

use core::cmp::Reverse;
use core::fmt;

use arrayvec::ArrayVec;

use super::machine::Region;

/// The most pieces free RAM can fall into.
const MAX_PIECES: usize = 128;

/// RAM that is nobody's yet.
pub struct FreeRam {
    pieces: ArrayVec<Region, MAX_PIECES>,
}

/// There is no piece of RAM as large as was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittleRam {
    /// Bytes that were asked for.
    pub needed: u64,
    /// Alignment that was asked for.
    pub align: u64,
    /// Bytes of the largest piece there is, wherever it begins.
    pub largest: u64,
}

impl fmt::Display for TooLittleRam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "too little memory: its {} MiB of RAM have to lie in one piece at a multiple of {} MiB, the largest free \
             piece has {} MiB: ask for less (memory=), or give the machine more",
            self.needed >> 20,
            self.align >> 20,
            self.largest >> 20
        )
    }
}

impl FreeRam {
    /// All of `free`, which is sorted and disjoint.
    pub fn new(free: &[Region]) -> Self {
        Self { pieces: free.iter().copied().take(MAX_PIECES).collect() }
    }

    /// Takes `bytes` at a multiple of `align` (a power of two), from the highest piece that has them.
    ///
    /// # Errors
    /// There is none; nothing is taken.
    pub fn take(&mut self, bytes: u64, align: u64) -> Result<Region, TooLittleRam> {
        let found = (0..self.pieces.len()).rev().find_map(|i| Some((i, fit(self.pieces[i], bytes, align)?)));
        let largest = self.pieces.iter().map(|p| p.bytes()).max().unwrap_or(0);
        let lack = TooLittleRam { needed: bytes, align, largest };
        let (index, taken) = found.ok_or(lack)?;
        let piece = self.pieces[index];
        let rest = [
            Region::between(piece.start().0, taken.start().0),
            Region::between(taken.end().0, piece.end().0),
        ];
        if self.pieces.remaining_capacity() == 0 {
            return Err(lack);
        }
        self.pieces.remove(index);
        for (i, part) in rest.into_iter().flatten().enumerate() {
            self.pieces.insert(index + i, part);
        }
        Ok(taken)
    }

    /// What is left, the largest piece first.
    pub fn rest(mut self) -> impl Iterator<Item = Region> {
        crate::sort::by_key(&mut self.pieces, |piece| Reverse(piece.bytes()));
        self.pieces.into_iter()
    }
}

/// The highest place in `piece` for `bytes` at a multiple of `align`.
fn fit(piece: Region, bytes: u64, align: u64) -> Option<Region> {
    let start = piece.end().0.checked_sub(bytes)? & !(align - 1);
    (start >= piece.start().0).then(|| Region::new(start, bytes))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn region(start: u64, bytes: u64) -> Region {
        Region::new(start, bytes).unwrap()
    }

    #[test]
    fn a_vm_gets_aligned_ram_and_the_rest_stays() {
        let mut free = FreeRam::new(&[region(M, 7 * M), region(16 * M, 20 * M)]);
        assert_eq!(free.take(8 * M, 8 * M), Ok(region(24 * M, 8 * M)));
        assert_eq!(free.take(8 * M, 8 * M), Ok(region(16 * M, 8 * M)));
        let rest: Vec<_> = free.rest().collect();
        assert_eq!(rest, [region(M, 7 * M), region(32 * M, 4 * M)]);
    }

    #[test]
    fn the_rest_comes_largest_piece_first() {
        let free = FreeRam::new(&[region(M, 2 * M), region(16 * M, 20 * M), region(64 * M, 3 * M)]);
        let rest: Vec<_> = free.rest().map(|piece| piece.bytes() / M).collect();
        assert_eq!(rest, [20, 3, 2]);
    }

    #[test]
    fn what_is_not_there_is_refused_with_how_much_there_is() {
        let mut free = FreeRam::new(&[region(M, 17 * M)]);
        let lack = free.take(16 * M, 8 * M).unwrap_err();
        assert_eq!(lack, TooLittleRam { needed: 16 * M, align: 8 * M, largest: 17 * M });
        assert_eq!(free.rest().count(), 1);
    }
}
