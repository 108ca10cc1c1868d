//! The digest tier: a page counts as written when its bytes are not those whose digest is kept.
//!
//! For devices behind an SMMU that keeps no dirty state. It knows contents, not events: a page that was changed and
//! changed back is not reported, and whoever wrote it, it counts as a device's.

use super::{DigestKey, DirtyLog, Ledger, LogError};
use crate::addr::{Ipa, IpaRange, PAGE_BYTES, PAGE_SHIFT, Pa};
use crate::address_space::{AddressSpace, DmaView};
use crate::frames::{FrameBlock, FrameReserve, Frames, OutOfFrames};
use crate::hw::{Barrier, DmaTlb, Memory, Platform, Word};
use crate::sabotage;
use crate::stage2::descriptor::Entry;
use strandline_abi::{DmaTier, LogSource};

/// 64-bit words of a page.
pub const PAGE_WORDS: usize = (PAGE_BYTES / 8) as usize;
/// Digests in one frame.
const PER_FRAME: u64 = PAGE_BYTES / DIGEST_BYTES;
/// Bytes of EL2's memory for the digest of a page.
pub const DIGEST_BYTES: u64 = 16;
/// The keyed hash of what a page holds; 0 for none, since 0 stands for *not known*.
struct Digest([u64; 2]);

impl Digest {
    fn of(key: DigestKey, words: &[u64; PAGE_WORDS]) -> Self {
        Self::of_hash(key.hash(words))
    }

    const fn of_hash([low, high]: [u64; 2]) -> Self {
        if low == 0 && high == 0 { Self([1, 0]) } else { Self([low, high]) }
    }
}

/// How long digests take on this machine: 0 where it was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestCost {
    /// Nanoseconds to read a page.
    pub page_read_ns: u64,
    /// Nanoseconds to read a page and make its digest.
    pub page_digest_ns: u64,
}

impl DigestCost {
    /// Measures both on the page at `pa`, which is the caller's, `rounds` times each (at least once). The clock tells
    /// microseconds: some hundred rounds make a figure.
    #[cfg(feature = "digest")]
    pub fn measure(platform: &impl Platform, pa: Pa, rounds: u64) -> Self {
        let (mut words, rounds, key) = ([0; PAGE_WORDS], rounds.max(1), DigestKey([1, 2]));
        let mut time = |digest: bool| {
            let began = platform.now_us();
            let mut sum = 0;
            for _ in 0..rounds {
                load_page(platform, pa, true, &mut words);
                sum ^= if digest { Digest::of(key, &words).0[0] } else { words[0] };
            }
            core::hint::black_box(sum);
            platform.now_us().saturating_sub(began).saturating_mul(1000) / rounds
        };
        // Once before it counts: what is touched for the first time takes longer.
        let _cold = (time(false), time(true));
        Self { page_read_ns: time(false), page_digest_ns: time(true) }
    }
}

/// Loads the page at `pa`, each word once; memory that devices write past the caches is fetched anew.
pub(super) fn load_page(platform: &impl Platform, pa: Pa, coherent: bool, words: &mut [u64; PAGE_WORDS]) {
    if !coherent {
        platform.invalidate_from_poc(pa, PAGE_BYTES);
        platform.barrier(Barrier::DsbSy);
    }
    for (value, word) in words.iter_mut().zip(platform.words(pa, PAGE_WORDS)) {
        *value = word.load();
    }
}

/// The digests kept of a log's pages, 16 bytes each, in frames of their own behind an index of them.
#[derive(Debug)]
pub(crate) struct Digests {
    key: DigestKey,
    /// The address of each frame, in order.
    index: FrameBlock,
    /// Frames that are linked.
    linked: u64,
    /// Frames that there are to be.
    frames: u64,
}

impl Digests {
    const fn index_order(pages: u64) -> u32 {
        let words = pages.div_ceil(PER_FRAME);
        words.div_ceil(PAGE_WORDS as u64).next_power_of_two().trailing_zeros()
    }

    /// Single frames for the digests of `pages` pages.
    pub const fn single_frames(pages: u64) -> usize {
        pages.div_ceil(PER_FRAME) as usize
    }

    /// All frames, those of the index included.
    pub const fn frames(pages: u64) -> usize {
        Self::single_frames(pages) + (1 << Self::index_order(pages))
    }

    /// The index, to which [`Digests::link`] adds frames; `None` where there is no memory for it.
    pub fn new(platform: &impl Frames, pages: u64, key: DigestKey) -> Option<Self> {
        let index = platform.alloc(Self::index_order(pages))?;
        Some(Self { key, index, linked: 0, frames: pages.div_ceil(PER_FRAME) })
    }

    /// Digests of `pages` pages, none of which is known.
    ///
    /// # Errors
    /// Too few frames; none is taken.
    pub fn unknown<P: Memory + Frames>(
        platform: &P,
        pages: u64,
        key: DigestKey,
    ) -> Result<Self, OutOfFrames> {
        let mut reserve = platform.reserve(Self::single_frames(pages))?;
        let Some(mut digests) = Self::new(platform, pages, key) else {
            let free = platform.free_frames();
            platform.unreserve(reserve);
            return Err(OutOfFrames { needed: 1 << Self::index_order(pages), free });
        };
        while digests.link(platform, &mut reserve) {}
        platform.unreserve(reserve);
        Ok(digests)
    }

    /// Adds one frame out of `reserve`, of pages whose digests are not known yet; `false` where all are there.
    pub fn link(&mut self, platform: &(impl Memory + Frames), reserve: &mut FrameReserve) -> bool {
        if self.linked == self.frames {
            return false;
        }
        let Some(frame) = platform.take(reserve) else { return false };
        platform.fill(frame.pa(), PAGE_WORDS, |_| 0);
        self.slot(platform, self.linked).store(frame.into_pa().0);
        self.linked += 1;
        true
    }

    /// Gives all memory back.
    pub fn free(self, platform: &(impl Memory + Frames)) {
        for frame in 0..self.linked {
            let pa = Pa(self.slot(platform, frame).load());
            platform.free(FrameBlock::from_pa(pa, 0));
        }
        platform.free(self.index);
    }

    fn slot<'m, M: Memory>(&self, memory: &'m M, frame: u64) -> &'m M::Word {
        &memory.words(self.index.pa().offset(frame * 8), 1)[0]
    }

    /// The two words of the digest of page `page` of the log.
    fn of<'m, M: Memory>(&self, memory: &'m M, page: u64) -> Option<&'m [M::Word]> {
        let frame = page / PER_FRAME;
        if frame >= self.linked {
            return None;
        }
        let pa = Pa(self.slot(memory, frame).load()).offset(page % PER_FRAME * DIGEST_BYTES);
        Some(memory.words(pa, 2))
    }

    /// Keeps the digest of `words` for page `page`.
    pub fn keep(&self, memory: &impl Memory, page: u64, words: &[u64; PAGE_WORDS]) {
        self.store(memory, page, &Digest::of(self.key, words));
    }

    /// The digest of page `page` is not known: it counts as written.
    pub fn forget(&self, memory: &impl Memory, page: u64) {
        self.store(memory, page, &Digest([0, 0]));
    }

    fn store(&self, memory: &impl Memory, page: u64, digest: &Digest) {
        for (word, value) in self.of(memory, page).into_iter().flatten().zip(digest.0) {
            word.store(value);
        }
    }

    /// Whether `words` are not what page `page` held; with `keep` their digest is kept then.
    fn differs(&self, memory: &impl Memory, page: u64, words: &[u64; PAGE_WORDS], keep: bool) -> bool {
        let Some(kept) = self.of(memory, page) else { return true };
        let digest = Digest::of(self.key, words);
        let differs = kept.iter().zip(digest.0).any(|(word, value)| word.load() != value);
        if differs && keep {
            self.store(memory, page, &digest);
        }
        differs
    }
}

/// The view whose pages are compared: all views of a VM's devices have the same.
fn digested<'s, 'd, D: DmaTlb>(space: &'s AddressSpace<'d, D>) -> Option<&'s DmaView<'d, D>> {
    space.dma_views().find(|dma| dma.tier == DmaTier::Digest)
}

/// Calls `visit` with each page of `range` that a digested view maps writable: its number in the log, and its bytes. A
/// window for interrupts after each.
fn each_page<P: Platform, D: DmaTlb>(
    platform: &P,
    space: &AddressSpace<'_, D>,
    ledger: &Ledger,
    range: IpaRange,
    mut visit: impl FnMut(Ipa, u64, &[u64; PAGE_WORDS]),
) {
    let Some(dma) = digested(space) else { return };
    let coherent = space.dma_is_coherent();
    if coherent {
        // No load below is satisfied by what was there before a device's write that the caller knows to have completed.
        platform.barrier(Barrier::DsbSy);
    }
    let mut words = [0; PAGE_WORDS];
    dma.view.tree.for_each(platform, range, |slot, entry, part| {
        let Entry::Leaf(leaf) = entry else { return };
        if !leaf.is_logged() {
            return;
        }
        for page in 0..part.pages() {
            let at = part.start().offset(page << PAGE_SHIFT);
            load_page(platform, leaf.pa().offset(at.0 - slot.base.0), coherent, &mut words);
            visit(at, ledger.page_of(at), &words);
            platform.relax();
        }
    });
}

/// Keeps the digests of what the pages of `range` hold now: what is written from now on differs.
pub(super) fn keep_first<P: Platform, D: DmaTlb>(platform: &P, space: &AddressSpace<'_, D>, range: IpaRange) {
    let Some(ledger) = &space.ledger else { return };
    let Some(digests) = &ledger.digests else { return };
    each_page(platform, space, ledger, range, |_, page, words| digests.keep(platform, page, words));
}

/// Records the pages of `range` that hold something else than when their digests were kept; with `keep` their digests
/// are kept anew.
pub(super) fn compare<P: Platform, D: DmaTlb>(
    platform: &P,
    space: &AddressSpace<'_, D>,
    ledger: &Ledger,
    range: IpaRange,
    keep: bool,
) {
    each_page(platform, space, ledger, range, |at, page, words| {
        if ledger.digests.as_ref().is_none_or(|digests| digests.differs(platform, page, words, keep)) {
            ledger.record_pages(platform, LogSource::Dma, at, 1);
        }
    });
}

impl DirtyLog {
    /// Reads the page at `page` of the VM's RAM, each word once. In a log with digests these bytes are the ones that the
    /// page is compared with from now on: it is reported until what was delivered equals what memory holds.
    ///
    /// # Errors
    /// [`LogError::OutsideRam`] where no vCPU may read and write there; [`LogError::Changing`] while a log is being
    /// started or stopped. Nothing has been read.
    pub fn read_page<P: Platform, D: DmaTlb>(
        &mut self,
        platform: &P,
        space: &AddressSpace<'_, D>,
        page: Ipa,
        words: &mut [u64; PAGE_WORDS],
    ) -> Result<(), LogError> {
        self.not_changing()?;
        let page = page.align_down(PAGE_BYTES);
        let pa = space.guest_ram(platform, page).ok_or(LogError::OutsideRam(page))?;
        load_page(platform, pa, space.dma_is_coherent(), words);
        if let Some(ledger) = &space.ledger
            && ledger.range().contains(page)
            && let Some(digests) = &ledger.digests
            && !sabotage::DIGEST_OF_THE_SYNC
        {
            digests.keep(platform, ledger.page_of(page), words);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn no_digest_is_the_one_that_stands_for_not_known() {
        let of = |hash| Digest::of_hash(hash).0;
        assert_eq!([of([0, 0]), of([0, 5]), of([5, 0]), of([6, 7])], [[1, 0], [0, 5], [5, 0], [6, 7]]);
    }

    #[test]
    fn an_index_that_finds_no_room_is_said_with_its_size_and_leaves_no_frame_taken() {
        // One page more than a frame of index is for: 513 frames of digests, and an index of two.
        let pages = PER_FRAME * PAGE_WORDS as u64 + 1;
        let fake = Fake::new(514);
        let lack = Digests::unknown(&fake, pages, DigestKey([1, 2])).unwrap_err();
        assert_eq!((lack, fake.free_frames()), (OutOfFrames { needed: 2, free: 1 }, 514));
    }

    #[test]
    fn memory_of_digests_is_16_bytes_a_page_and_an_index() {
        assert_eq!(Digests::frames(1), 1 + 1);
        assert_eq!(Digests::frames(256), 1 + 1);
        assert_eq!(Digests::frames(257), 2 + 1);
        // 64 GiB: 256 MiB of digests, 512 KiB of index.
        assert_eq!(Digests::frames(1 << 24), (1 << 16) + (1 << 7));
    }
}
