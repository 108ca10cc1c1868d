//! Reading a log: syncs, clears, write faults, and the orders in which they ask hardware.

use strandline_abi::Tiers;

use super::*;
use crate::addr::PageSize;
use crate::dirty_log::STEP_PAGES;
use crate::dirty_log::fault::permit_write;
use crate::frames::OutOfFrames;
use crate::hw::Cpu;
use crate::stage2::descriptor::{AF, DBM, Entry};

#[test]
fn sync_reports_exactly_what_vcpus_wrote_and_once() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    for page in [0, 63, 64, 511, 512, 2047] {
        cpu_writes(&fake, &space, RAM + page * 4096);
    }
    let expected = vec![0, 63, 64, 511, 512, 2047];
    assert_eq!(sync(&mut log, &fake, &space, all, CPU).unwrap(), expected, "kept");
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(CPU)).unwrap(), expected);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(CPU)).unwrap(), []);
    assert_eq!(log.statistics().pages_reported, 12);
}

#[test]
fn what_was_written_before_the_start_is_not_reported() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    assert_eq!(sync(&mut log, &fake, &space, all, Flags::BOTH).unwrap(), []);
}

#[test]
fn a_sync_of_part_of_the_log_leaves_the_rest_in_it() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    [1, 2, 3].iter().for_each(|page| cpu_writes(&fake, &space, RAM + page * 4096));
    let part = range(RAM + 2 * 4096, 4096);
    assert_eq!(sync(&mut log, &fake, &space, part, clearing(CPU)).unwrap(), [0]);
    assert_eq!(sync(&mut log, &fake, &space, range(RAM, 8 * M), CPU).unwrap(), [1, 3]);
}

/// What was recorded, without EL2's bitmap, which is ordinary memory: what hardware sees of the page whose leaf is at
/// `leaf`, and the delivery.
fn trace_beside_bitmaps(leaf: Pa) -> Vec<Event> {
    let in_bitmap = |e: &Event| match e {
        Event::Or(..) => true,
        Event::And(pa, _) => *pa != leaf,
        _ => false,
    };
    take_trace().into_iter().filter(|e| !in_bitmap(e)).collect()
}

#[test]
fn a_clearing_sync_of_cpu_writes_orders_barrier_walk_invalidation_delivery() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    cpu_writes(&fake, &space, RAM + 0x3000);
    let leaf = space.cpu.tree.walk(&fake, Ipa(RAM + 0x3000)).0.pa;
    let vttbr = Vttbr { vmid: Vmid(1), root: space.cpu.tree.root() };
    take_trace();
    log.sync(&fake, &space, all, clearing(CPU), |_, bits| {
        if bits != 0 {
            crate::fake::record(Event::Mark("delivered"));
        }
    })
    .unwrap();
    assert_eq!(
        trace_beside_bitmaps(leaf),
        [
            Event::Barrier(Barrier::DsbIsh),
            Event::And(leaf, !S2AP_WRITE),
            Event::Barrier(Barrier::DsbIshst),
            Event::Tlbi(vttbr, Tlbi::VmallS12E1Is),
            Event::Barrier(Barrier::DsbIsh),
            Event::Mark("delivered"),
        ]
    );
}

#[test]
fn a_clearing_sync_of_dma_writes_orders_cmd_sync_barrier_walk_invalidation_delivery() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    device_writes(&fake, &space, RAM + 0x3000);
    let leaf = space.dma_views().next().unwrap().view.tree.walk(&fake, Ipa(RAM + 0x3000)).0.pa;
    take_trace();
    log.sync(&fake, &space, all, clearing(DMA), |word, bits| {
        if bits != 0 {
            assert_eq!((word, bits), (0, 0b1000));
            crate::fake::record(Event::Mark("delivered"));
        }
    })
    .unwrap();
    assert_eq!(
        trace_beside_bitmaps(leaf),
        [
            Event::Mark("CMD_SYNC"),
            Event::Barrier(Barrier::DsbSy),
            Event::And(leaf, !S2AP_WRITE),
            Event::Mark("S2_IPA + CMD_SYNC"),
            Event::Mark("delivered"),
        ]
    );
}

#[test]
#[cfg_attr(miri, ignore = "1 GiB takes Miri too long")]
fn a_log_of_blocks_splits_nothing_and_reports_a_write_as_the_block_it_is_in_once() {
    let (fake, tlb) = (Fake::new(1200), FakeTlb::default());
    let mut space = space(&fake, &tlb, G, DmaTier::Hardware);
    let (all, free) = (range(RAM, G), fake.free_frames());
    let mut log = DirtyLog::new(CpuTier::Hardware);
    let request = Request { granule: PageSize::Size1G.into(), ..Request::from(all) };
    start(&mut log, &fake, &mut space, request);
    assert_eq!((log.blocks_split_by_start(), space.dma_totals().0.blocks_1g), (0, 1));
    // Two bitmaps of 8 frames, and two lists for the stop.
    assert_eq!(free - fake.free_frames(), 2 * 8 + 2);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
    device_writes(&fake, &space, RAM + 300 * M);
    // A sync of its first page alone: the rest stays in the log until it is asked for.
    assert_eq!(sync(&mut log, &fake, &space, range(RAM, 4096), clearing(DMA)), Ok(vec![0]));
    let rest = sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap();
    assert_eq!((rest.len(), rest[0]), ((1 << 18) - 1, 1));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)), Ok(vec![]));
    stop(&mut log, &fake, &mut space);
    assert_eq!(fake.free_frames(), free);
}

#[test]
fn a_log_of_2_mib_blocks_splits_what_is_larger_and_the_ends_by_pages() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, G, DmaTier::Hardware);
    let part = range(RAM + M, 5 * M);
    let mut log = DirtyLog::new(CpuTier::Hardware);
    let request = Request { granule: PageSize::Size2M.into(), ..Request::from(part) };
    start(&mut log, &fake, &mut space, request);
    let leaves = space.cpu_view().tree.leaves();
    assert_eq!((leaves.blocks_1g, leaves.blocks_2m, leaves.pages_4k), (0, 511, 512));
    device_writes(&fake, &space, RAM + 3 * M);
    device_writes(&fake, &space, RAM + M + 0x5000);
    let mut expected = vec![5];
    expected.extend(256..768);
    assert_eq!(sync(&mut log, &fake, &space, part, clearing(DMA)), Ok(expected));
}

#[test]
fn a_start_that_would_be_weaker_than_demanded_is_refused_by_what_it_would_be() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let all = range(RAM, 8 * M);
    let mut log = DirtyLog::new(CpuTier::Faults);
    let tiers = |cpu, dma| Tiers { cpu, dma };
    let mut demand = |weakest| log.start(&fake, &mut space, Request { weakest, ..Request::from(all) }, 0);
    let weaker = Err(LogError::Weaker(tiers(CpuTier::Faults, DmaTier::Assume)));
    assert_eq!(demand(tiers(CpuTier::None, DmaTier::Hardware)), weaker);
    assert_eq!(demand(tiers(CpuTier::None, DmaTier::Digest)), weaker);
    assert_eq!(demand(tiers(CpuTier::Hardware, DmaTier::None)), weaker);
    assert!(demand(tiers(CpuTier::Faults, DmaTier::Assume)).is_ok());
}

#[test]
fn a_sync_takes_one_cmd_sync_for_each_smmu_before_any_view_is_read() {
    let (fake, tlb, other) = (Fake::new(256), FakeTlb::default(), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    for (vmid, tlb) in [(3, &tlb), (4, &other)] {
        let walker = DmaWalker { tlb, vmid: Vmid(vmid), coherent: true };
        space.add_dma_view(&fake, walker, DmaTier::Hardware).unwrap();
    }
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    assert_eq!(sync(&mut log, &fake, &space, all, DMA), Ok(vec![]));
    let synced = [Event::Mark("CMD_SYNC"), Event::Barrier(Barrier::DsbSy)];
    assert_eq!(take_trace(), [synced, synced].concat());
}

#[test]
fn a_sync_that_cleans_nothing_invalidates_nothing() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    sync(&mut log, &fake, &space, all, clearing(Flags::BOTH)).unwrap();
    let trace = take_trace();
    assert!(!trace.iter().any(|e| *e == INVALIDATED || matches!(e, Event::Tlbi(..))), "{trace:?}");
}

#[test]
fn in_the_assume_tier_every_page_a_device_may_write_is_reported_every_time() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Assume);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    let every: Vec<_> = (0..2048).collect();
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap(), every);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap(), every);
    assert_eq!(sync(&mut log, &fake, &space, all, CPU).unwrap(), [], "it says nothing of vCPUs");
}

#[test]
fn what_el2_writes_is_in_the_log() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let mut log = started(&fake, &mut space, range(RAM, 4 * M));
    space.mark_written(&fake, range(RAM + 4 * M - 0x1000, 0x2000));
    space.mark_written(&fake, range(0x1000, 0x1000));
    assert_eq!(sync(&mut log, &fake, &space, range(RAM, 4 * M), clearing(CPU)).unwrap(), [1023]);
    assert_eq!(sync(&mut log, &fake, &space, range(RAM, 4 * M), CPU).unwrap(), []);
}

#[test]
fn clear_discards_what_the_mask_names_and_says_what_that_was() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    [0, 1, 2, 70].iter().for_each(|page| cpu_writes(&fake, &space, RAM + page * 4096));
    device_writes(&fake, &space, RAM + 0x1000);
    let mask = |word| if word < 2 { 0b0110 | 1 << 6 } else { 0 };
    let mut given = vec![];
    let cleared = log.clear(&fake, &space, all, CPU, mask, |word, bits| given.push((word, bits))).unwrap();
    assert_eq!((cleared.discarded, &given[..2]), (3, &[(0, 0b0110), (1, 1 << 6)][..]));
    assert!(given[2..].iter().all(|(_, bits)| *bits == 0) && given.len() == 32);
    assert_eq!(sync(&mut log, &fake, &space, all, CPU).unwrap(), [0]);
    assert_eq!(sync(&mut log, &fake, &space, all, DMA).unwrap(), [1], "the device's write is still there");
}

#[test]
fn sync_after_clear_reports_nothing() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    cpu_writes(&fake, &space, RAM);
    device_writes(&fake, &space, RAM + 8 * M - 4096);
    log.clear(&fake, &space, all, Flags::BOTH, |_| u64::MAX, |_, _| {}).unwrap();
    assert_eq!(sync(&mut log, &fake, &space, all, Flags::BOTH).unwrap(), []);
}

#[test]
fn when_hardware_stops_answering_the_log_is_untrusted_until_it_is_restarted() {
    let (fake, tlb) = (Fake::new(128), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    tlb.failures.borrow_mut().push(DmaTlbError::Timeout);
    assert_eq!(sync(&mut log, &fake, &space, all, DMA), Err(LogError::Untrusted));
    assert_eq!(log.state(), LogState::Untrusted);
    assert_eq!(sync(&mut log, &fake, &space, all, CPU), Err(LogError::Untrusted));
    stop(&mut log, &fake, &mut space);
    start(&mut log, &fake, &mut space, all);
    assert_eq!(sync(&mut log, &fake, &space, all, DMA).unwrap(), []);
}

#[test]
fn what_a_stop_leaves_to_an_smmu_that_does_not_answer_is_counted() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let free = fake.free_frames();
    let mut log = started(&fake, &mut space, range(RAM, 8 * M));
    // Its tables go, and the invalidation behind them does not complete.
    tlb.silent_at.set(Some(tlb.commands().syncs + 1));
    let ended = (0..9).find_map(|step| log.stop(&fake, &mut space, step).err());
    assert_eq!((ended, log.state()), (Some(LogError::Untrusted), LogState::Off));
    // Four tables of pages, and the list that they are on.
    assert_eq!((space.quarantined_frames(), free - fake.free_frames()), (5, 5));
}

#[test]
fn a_write_fault_records_the_page_then_opens_it_then_invalidates_locally() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = DirtyLog::new(CpuTier::Faults);
    start(&mut log, &fake, &mut space, all);
    let leaf = space.cpu.tree.walk(&fake, Ipa(RAM + 0x3000)).0.pa;
    let clean = fake.read(leaf);
    let vttbr = Vttbr { vmid: Vmid(1), root: space.cpu.tree.root() };
    take_trace();
    assert_eq!(space.write_fault(&fake, Ipa(RAM + 0x3abc)), WriteFault::Recorded);
    let trace = take_trace();
    assert!(matches!(trace[0], Event::Or(..)), "the record comes first: {trace:?}");
    assert_eq!(
        trace[1..],
        [
            Event::Swap(leaf, clean, clean | S2AP_WRITE),
            Event::Barrier(Barrier::DsbIshst),
            Event::Tlbi(vttbr, Tlbi::IpaS2E1(Ipa(RAM + 0x3000))),
            Event::Barrier(Barrier::DsbNsh),
            Event::Tlbi(vttbr, Tlbi::VmallE1),
            Event::Barrier(Barrier::DsbNsh),
            Event::Barrier(Barrier::Isb),
        ]
    );
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(CPU)).unwrap(), [3]);
    // A second vCPU that faulted on the same page finds it open, and its write is in the log as well.
    fake.or_behind(leaf, S2AP_WRITE);
    assert_eq!(space.write_fault(&fake, Ipa(RAM + 0x3000)), WriteFault::Recorded);
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(CPU)).unwrap(), [3]);
}

#[test]
fn a_descriptor_that_changed_since_it_was_read_is_opened_only_while_it_may_be_written() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let _log = started(&fake, &mut space, range(RAM, 8 * M));
    let (slot, entry) = space.cpu.tree.walk(&fake, Ipa(RAM + 0x3000));
    let Entry::Leaf(leaf) = entry else { panic!("{entry:?}") };
    let clean = leaf.word;
    // What somebody else has made of it meanwhile, whether it may be written, and what it is in the end.
    let open = clean | S2AP_WRITE;
    for (found, permitted, left) in [
        (clean, true, open),
        // A walk has set or lost the access flag.
        (clean & !AF, true, open & !AF),
        (open, true, open),
        (clean & !DBM, false, clean & !DBM),
        (0, false, 0),
    ] {
        fake.write_behind(slot.pa, found);
        assert_eq!(permit_write(&fake, slot, leaf), permitted, "{found:#x}");
        assert_eq!(fake.read(slot.pa), left, "{found:#x}");
    }
}

#[test]
fn a_write_fault_where_the_vm_may_not_write_is_the_guests() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let registers = Region { range: range(0x1000_0000, M), pa: Pa(0x1000_0000), reach: Reach::CpuDevice };
    space.map(&fake, registers).unwrap();
    take_trace();
    for ipa in [0x1000_0000, 0x2000_0000, RAM + 8 * M, 1 << 40, u64::MAX] {
        assert_eq!(space.write_fault(&fake, Ipa(ipa)), WriteFault::Denied, "{ipa:#x}");
    }
    assert_eq!(take_trace(), []);
}

#[test]
fn a_word_that_could_not_be_delivered_stays_in_the_log_with_all_behind_it() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    [3, 70, 200].iter().for_each(|page| cpu_writes(&fake, &space, RAM + page * 4096));
    device_writes(&fake, &space, RAM + 71 * 4096);
    let both = clearing(Flags::BOTH);
    let failed = log.sync(&fake, &space, all, both, |word, _| if word == 1 { Err(()) } else { Ok(()) });
    assert_eq!((failed, log.state()), (Err(LogError::NotDelivered(1)), LogState::On));
    assert_eq!(sync(&mut log, &fake, &space, all, CPU).unwrap(), [70, 200]);
    assert_eq!(sync(&mut log, &fake, &space, all, DMA).unwrap(), [71]);
    let failed = log.clear(
        &fake,
        &space,
        all,
        Flags::CPU,
        |_| u64::MAX,
        |_, bits| {
            if bits == 0 { Ok(()) } else { Err("full") }
        },
    );
    assert_eq!(failed, Err(LogError::NotDelivered(1)));
    assert_eq!(sync(&mut log, &fake, &space, all, both).unwrap(), [70, 71, 200]);
    assert_eq!(sync(&mut log, &fake, &space, all, both).unwrap(), []);
}

#[test]
fn what_was_cleaned_is_invalidated_from_the_first_page_to_the_last() {
    for (pages, hull) in [([0, 511], 512), ([100, 101], 2), ([3, 2047], 2045)] {
        let (fake, tlb) = (Fake::new(64), FakeTlb::default());
        let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
        let all = range(RAM, 8 * M);
        let mut log = started(&fake, &mut space, all);
        pages.iter().for_each(|page| device_writes(&fake, &space, RAM + page * 4096));
        assert_eq!(sync(&mut log, &fake, &space, all, clearing(DMA)).unwrap(), pages);
        let trace = take_trace();
        let marks: Vec<_> = trace.iter().filter(|e| matches!(e, Event::Mark(_))).collect();
        assert_eq!(marks, [&Event::Mark("CMD_SYNC"), &Event::Mark("S2_IPA + CMD_SYNC")], "{pages:?}");
        assert_eq!(tlb.last_range.get(), Some(range(RAM + pages[0] * 4096, hull * 4096)));
    }
}

#[test]
fn a_part_outside_the_log_is_refused() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let mut log = started(&fake, &mut space, range(RAM + 2 * M, 4 * M));
    for part in [range(RAM, 2 * M), range(RAM + M, 2 * M), range(RAM + 5 * M, 2 * M)] {
        let refused = Err(LogError::OutsideLog(part.start()));
        assert_eq!(log.sync(&fake, &space, part, CPU, |_, _| {}).map(|_| ()), refused);
        assert_eq!(log.clear(&fake, &space, part, CPU, |_| 1, |_, _| {}).map(|_| ()), refused);
    }
}

#[test]
fn a_page_that_both_a_vcpu_and_a_device_wrote_is_reported() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 2 * M, DmaTier::Hardware);
    let all = range(RAM, 2 * M);
    let mut log = started(&fake, &mut space, all);
    cpu_writes(&fake, &space, RAM + 0x5000);
    device_writes(&fake, &space, RAM + 0x5000);
    device_writes(&fake, &space, RAM + 0x6000);
    assert_eq!(sync(&mut log, &fake, &space, all, Flags::BOTH), Ok(vec![5, 6]));
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(Flags::BOTH)), Ok(vec![5, 6]));
}

#[test]
fn a_clear_reads_the_pages_it_names_and_none_behind_them() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    // Behind what is named, near and far.
    let behind = [RAM + 128 * 0x1000, RAM + 7 * M];
    behind.iter().for_each(|ipa| cpu_writes(&fake, &space, *ipa));
    log.clear(&fake, &space, all, CPU, |word| if word < 2 { u64::MAX } else { 0 }, |_, _| ()).unwrap();
    let is_dirty = |ipa: &u64| fake.read(space.cpu.tree.walk(&fake, Ipa(*ipa)).0.pa) & S2AP_WRITE != 0;
    assert!(behind.iter().all(is_dirty));
}

#[test]
fn interrupts_are_heard_after_each_table_and_before_every_eighth_word() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 8 * M, DmaTier::Hardware);
    let all = range(RAM, 8 * M);
    let mut log = started(&fake, &mut space, all);
    for ipa in (RAM..RAM + 8 * M).step_by(64 * 4096) {
        cpu_writes(&fake, &space, ipa);
    }
    let before = fake.now_us();
    assert_eq!(sync(&mut log, &fake, &space, all, clearing(CPU)).unwrap().len(), 32);
    // Four tables of pages, and 32 words.
    assert_eq!(fake.now_us() - before, 4 + 3);
}

#[test]
#[cfg_attr(miri, ignore = "128 MiB take Miri too long")]
fn the_last_step_of_a_range_ends_with_it() {
    let (fake, tlb) = (Fake::new(200), FakeTlb::default());
    let mut space = space(&fake, &tlb, 130 * M, DmaTier::Assume);
    let all = range(RAM, 130 * M);
    let log = started(&fake, &mut space, all);
    assert_eq!(log.step_of(all, 0), Ok(range(RAM, 128 * M)));
    assert_eq!(log.step_of(all, STEP_PAGES), Ok(range(RAM + 128 * M, 2 * M)));
    assert_eq!(log.step_of(all, 2 * STEP_PAGES), Err(LogError::OutOfStep(0)));
}

#[test]
fn every_error_says_what_is_the_matter_and_what_to_do() {
    let told = |error: LogError| error.to_string();
    assert_eq!(told(LogError::NotOn), "no log is on: start one first");
    assert_eq!(told(LogError::AlreadyOn), "a log is on already: stop it first");
    assert_eq!(told(LogError::OutOfStep(3)), "step out of turn: 3 is next");
    assert_eq!(told(LogError::OutsideRam(Ipa(0x4000))), "0x4000 is not RAM of the VM");
    let lack = OutOfFrames { needed: 7, free: 3 };
    assert_eq!(told(LogError::OutOfFrames(lack)), lack.to_string());
    let undone = ViewError::HoldTimeout;
    assert_eq!(told(LogError::Abandoned(undone)), format!("the start was undone: {undone}"));
    let weaker = Tiers { cpu: CpuTier::Faults, dma: DmaTier::Digest };
    assert_eq!(
        told(LogError::Weaker(weaker)),
        "the log would be weaker than demanded: CPU write-protect faults, devices digest"
    );
}

#[test]
fn a_report_ends_with_its_part_in_the_middle_of_a_word() {
    let (fake, tlb) = (Fake::new(64), FakeTlb::default());
    let mut space = space(&fake, &tlb, 2 * M, DmaTier::Hardware);
    let mut log = started(&fake, &mut space, range(RAM, 2 * M));
    for page in [69, 70, 75] {
        cpu_writes(&fake, &space, RAM + page * 0x1000);
    }
    // All three are in the log of EL2.
    assert_eq!(sync(&mut log, &fake, &space, range(RAM, 2 * M), CPU), Ok(vec![69, 70, 75]));
    let part = range(RAM, 70 * 0x1000);
    assert_eq!(sync(&mut log, &fake, &space, part, clearing(CPU)), Ok(vec![69]));
    let left = range(RAM + 70 * 0x1000, 10 * 0x1000);
    assert_eq!(sync(&mut log, &fake, &space, left, clearing(CPU)), Ok(vec![0, 5]));
}
