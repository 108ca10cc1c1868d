//! The digest tier: what is reported where only contents are known.

use strandline_abi::KeySource;

use super::*;
use crate::addr::PageSize;
use crate::dirty_log::{
    AttachError, DigestCost, DigestKey, LogError, PAGE_WORDS, STEP_PAGES_DIGEST, Weakening,
};
use crate::frames::FrameBlock;

const PAGES: u64 = 16;
const KEY: DigestKey = DigestKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);

/// A VM whose RAM is memory indeed, and where that is.
fn with_ram<'d>(
    fake: &Fake,
    tlb: &'d FakeTlb,
    tier: DmaTier,
    coherent: bool,
) -> (AddressSpace<'d, FakeTlb>, IpaRange, Pa) {
    with_pages(fake, tlb, PAGES, tier, coherent)
}

/// The same with `pages` pages of RAM, a power of two.
fn with_pages<'d>(
    fake: &Fake,
    tlb: &'d FakeTlb,
    pages: u64,
    tier: DmaTier,
    coherent: bool,
) -> (AddressSpace<'d, FakeTlb>, IpaRange, Pa) {
    let ram: FrameBlock = fake.alloc(pages.trailing_zeros()).unwrap();
    let pa = ram.into_pa();
    let mut space = AddressSpace::new(fake, Format::new(36).unwrap(), Vmid(1)).unwrap();
    space.add_dma_view(fake, DmaWalker { tlb, vmid: Vmid(2), coherent }, tier).unwrap();
    let all = range(RAM, pages * 4096);
    space.map(fake, Region { range: all, pa, reach: Reach::Ram }).unwrap();
    (space, all, pa)
}

fn digest_log(fake: &Fake, space: &mut AddressSpace<'_, FakeTlb>, range: IpaRange) -> DirtyLog {
    let mut log = DirtyLog::new(CpuTier::Hardware).with_key(KEY, KeySource::Cpu);
    start(&mut log, fake, space, range);
    take_trace();
    log
}

/// A device writes `value` into page `page`.
fn device_stores(fake: &Fake, ram: Pa, page: u64, value: u64) {
    fake.write_behind(ram.offset(page * 4096 + 2048), value);
}

#[test]
fn a_page_is_reported_where_its_bytes_have_changed_and_only_there() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    let mut log = digest_log(&fake, &mut space, all);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
    device_stores(&fake, ram, 3, 1);
    device_stores(&fake, ram, 15, 1);
    assert_eq!(sync(&mut log, &fake, &space, all, DMA), Ok(vec![3, 15]));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![3, 15]));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
    device_stores(&fake, ram, 3, 2);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![3]));
}

#[test]
fn pages_of_a_block_are_compared_one_by_one() {
    let (fake, tlb) = (Fake::new(600), FakeTlb::default());
    let (mut space, all, ram) = with_pages(&fake, &tlb, 512, DmaTier::Digest, true);
    let mut log = DirtyLog::new(CpuTier::Hardware).with_key(KEY, KeySource::Cpu);
    let by_blocks = Request { granule: PageSize::Size2M.into(), ..Request::from(all) };
    start(&mut log, &fake, &mut space, by_blocks);
    assert_eq!(space.dma_views().next().unwrap().view.tree.leaves().blocks_2m, 1);
    for page in [0, 300, 511] {
        device_stores(&fake, ram, page, 1);
    }
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![0, 300, 511]));
}

#[test]
fn the_cost_of_digests_is_told_in_nanoseconds_a_page() {
    let fake = Fake::new(1);
    fake.load_us.set(3);
    let cost = DigestCost::measure(&fake, Fake::BASE, 5);
    // Of this machine only loads take time.
    assert_eq!(cost, DigestCost { page_read_ns: 3 * 512 * 1000, page_digest_ns: 3 * 512 * 1000 });
    assert_eq!(DigestCost::measure(&fake, Fake::BASE, 0), cost, "at least once");
}

#[test]
fn what_was_changed_and_changed_back_is_reported_only_if_a_sync_saw_it() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    device_stores(&fake, ram, 5, 0xa);
    let mut log = digest_log(&fake, &mut space, all);
    device_stores(&fake, ram, 5, 0xb);
    device_stores(&fake, ram, 5, 0xa);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
    device_stores(&fake, ram, 5, 0xb);
    assert_eq!(sync(&mut log, &fake, &space, all, DMA), Ok(vec![5]));
    device_stores(&fake, ram, 5, 0xa);
    // What was found stays in the log until it has been delivered for good.
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![5]));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
}

#[test]
fn a_page_that_was_read_is_compared_with_what_was_delivered() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    device_stores(&fake, ram, 7, 0xa);
    let mut log = digest_log(&fake, &mut space, all);
    // Written to B; the sync reports it, and before the consumer reads the page the device writes A again.
    device_stores(&fake, ram, 7, 0xb);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![7]));
    device_stores(&fake, ram, 7, 0xa);
    let mut words = [0; PAGE_WORDS];
    log.read_page(&fake, &space, Ipa(RAM + 7 * 4096), &mut words).unwrap();
    assert_eq!(words[256], 0xa);
    // B once more: to a log that compared with what the sync saw nothing would have changed.
    device_stores(&fake, ram, 7, 0xb);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![7]));
}

#[test]
fn a_consumer_of_its_own_loads_is_fooled_by_a_write_there_and_back() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    let mut log = digest_log(&fake, &mut space, all);
    device_stores(&fake, ram, 7, 0xb);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![7]));
    device_stores(&fake, ram, 7, 0xa);
    let copied = fake.read(ram.offset(7 * 4096 + 2048));
    device_stores(&fake, ram, 7, 0xb);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
    assert_ne!(copied, fake.read(ram.offset(7 * 4096 + 2048)), "as the contract says");
}

#[test]
fn a_clear_keeps_the_digests_of_what_it_discards_and_of_nothing_else() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    let mut log = digest_log(&fake, &mut space, all);
    for page in [1, 2, 3] {
        device_stores(&fake, ram, page, 9);
    }
    let part = log.step_of(all, 0).unwrap();
    let mut discarded = 0;
    log.clear(&fake, &space, part, DMA, |_| 0b1010, |_, bits| discarded = bits).unwrap();
    assert_eq!(discarded, 0b1010);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![2]));
}

#[test]
fn a_delivery_that_fails_is_made_up_for_though_the_digest_was_kept() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    let mut log = digest_log(&fake, &mut space, all);
    device_stores(&fake, ram, 4, 1);
    let part = log.step_of(all, 0).unwrap();
    let failed = log.sync(&fake, &space, part, clearing(DMA), |_, _| Err(()));
    assert_eq!(failed, Err(LogError::NotDelivered(0)));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![4]));
}

#[test]
fn memory_that_devices_write_past_the_caches_is_fetched_anew_before_it_is_read() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Digest, false);
    let mut log = digest_log(&fake, &mut space, all);
    sync(&mut log, &fake, &space, all, DMA).unwrap();
    let fetched = |page| [Event::Invalidate(ram.offset(page * 4096), 4096), Event::Barrier(Barrier::DsbSy)];
    let expected: Vec<_> = (0..PAGES).flat_map(fetched).collect();
    assert_eq!(take_trace(), expected);
    log.read_page(&fake, &space, Ipa(RAM), &mut [0; PAGE_WORDS]).unwrap();
    assert_eq!(take_trace()[..2], fetched(0));
}

#[test]
fn memory_that_devices_write_coherently_is_read_after_one_barrier() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, _) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    let mut log = digest_log(&fake, &mut space, all);
    sync(&mut log, &fake, &space, all, DMA).unwrap();
    assert_eq!(take_trace(), [Event::Barrier(Barrier::DsbSy)]);
}

#[test]
fn memory_mapped_while_a_log_is_on_is_reported_once() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    let mut log = digest_log(&fake, &mut space, all);
    space.unmap(&fake, all).unwrap();
    let pages: Vec<u64> = (0..PAGES).collect();
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(pages.clone()));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
    space.map(&fake, Region { range: all, pa: ram, reach: Reach::Ram }).unwrap();
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(pages));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
}

#[test]
fn a_view_that_brings_digests_to_a_log_enters_it_whole_and_the_next_one_as_it_is() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Hardware, true);
    let before = fake.free_frames();
    let mut log = digest_log(&fake, &mut space, all);
    let walker = |vmid| DmaWalker { tlb: &tlb, vmid: Vmid(vmid), coherent: true };
    let refused = log.attach_view(&fake, &mut space, walker(3), DmaTier::Digest, Weakening::Refused);
    assert_eq!(refused, Err(AttachError::Weaker(DmaTier::Digest)));
    log.attach_view(&fake, &mut space, walker(3), DmaTier::Digest, Weakening::Accepted).unwrap();
    let pages: Vec<u64> = (0..PAGES).collect();
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(pages));
    log.attach_view(&fake, &mut space, walker(4), DmaTier::Digest, Weakening::Refused).unwrap();
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
    device_stores(&fake, ram, 6, 1);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![6]));
    for index in [1, 2] {
        log.detach_view(&fake, &mut space, index).unwrap();
    }
    stop(&mut log, &fake, &mut space);
    assert_eq!(fake.free_frames(), before);
}

#[test]
fn a_log_with_digests_needs_a_key_and_its_memory_is_its_formula() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, _) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    let free = fake.free_frames();
    let mut log = DirtyLog::new(CpuTier::Hardware);
    assert!(!log.has_key());
    assert_eq!(log.start(&fake, &mut space, all, 0), Err(LogError::NoKey));
    assert_eq!((log.state(), fake.free_frames()), (LogState::Off, free));
    let mut log = digest_log(&fake, &mut space, all);
    assert!(log.has_key());
    // Two bitmaps, two lists for the stop; 16 pages of 16 bytes, and their index.
    assert_eq!(free - fake.free_frames(), 2 + 2 + 1 + 1);
    stop(&mut log, &fake, &mut space);
    assert_eq!(fake.free_frames(), free);
}

#[test]
fn a_start_that_is_given_up_among_its_digests_gives_every_frame_back() {
    let (fake, tlb) = (Fake::new(2300), FakeTlb::default());
    let (mut space, all, _) = with_pages(&fake, &tlb, 1024, DmaTier::Digest, true);
    let free = fake.free_frames();
    // 1024 pages: four steps of digests.
    for steps in 1..6 {
        let mut log = DirtyLog::new(CpuTier::Hardware).with_key(KEY, KeySource::Cpu);
        let mut step = 0;
        for _ in 0..steps {
            match log.start(&fake, &mut space, all, step).unwrap() {
                Progress::More(next) => step = next,
                Progress::Done => panic!("too short"),
            }
        }
        if steps % 2 == 0 {
            stop(&mut log, &fake, &mut space);
        } else {
            space.end_log(&fake);
            log.dismantle(&fake);
            let mut merge = DirtyLog::new(CpuTier::Hardware).with_key(KEY, KeySource::Cpu);
            start(&mut merge, &fake, &mut space, all);
            stop(&mut merge, &fake, &mut space);
        }
        assert_eq!(fake.free_frames(), free, "{steps}");
    }
}

#[test]
fn a_step_of_a_log_with_digests_is_smaller() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, _) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    let log = digest_log(&fake, &mut space, all);
    assert_eq!(log.step_of(all, 1), Err(LogError::OutOfStep(0)));
    assert_eq!(log.step_of(all, 0), Ok(all));
    assert_eq!(log.step_for(all, 0, DMA), Ok(all));
    const { assert!(STEP_PAGES_DIGEST.is_multiple_of(64)) };
}

#[test]
fn a_page_is_read_without_a_log_but_not_while_one_changes_nor_where_no_ram_is() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let (mut space, all, ram) = with_ram(&fake, &tlb, DmaTier::Digest, true);
    device_stores(&fake, ram, 0, 0x77);
    let mut log = DirtyLog::new(CpuTier::Hardware).with_key(KEY, KeySource::Cpu);
    let mut words = [0; PAGE_WORDS];
    assert_eq!(log.read_page(&fake, &space, Ipa(RAM + 8), &mut words), Ok(()));
    assert_eq!(words[256], 0x77);
    let outside = Ipa(RAM + PAGES * 4096);
    assert_eq!(log.read_page(&fake, &space, outside, &mut words), Err(LogError::OutsideRam(outside)));
    log.start(&fake, &mut space, all, 0).unwrap();
    assert_eq!(log.read_page(&fake, &space, Ipa(RAM), &mut words), Err(LogError::Changing));
}
