//! What invalidations of a view cost its devices: commands, and descriptors that walks must read again.
//!
//! A device has touched every page of 8 MiB, mapped by pages, and the TLB holds all of them. Then some pages are
//! invalidated, and the device touches every page once more.

use strandline::addr::{Ipa, IpaRange, Pa, Vmid};
use strandline::address_space::{AddressSpace, Reach, Region};
use strandline::dirty_log::{DirtyLog, Progress};
use strandline::hw::{DmaTlb, Scope};
use strandline::smmu::{Httu, Smmu, Stage2Config};
use strandline::stage2::{DmaWalker, Format};
use strandline_abi::{CpuTier, DmaTier};
use strandline_model::{Dma, Machine, Parameters, SmmuPort};

use crate::vm::{CPU_VMID, RAM, STREAMS, bring_up, quiet};

/// Pages of the working set.
const PAGES: u64 = 2048;
/// Descriptors that fill an empty TLB: a leaf for each page, four tables of them, and the table of these.
const COLD_READS: u64 = PAGES + 4 + 1;

/// What an invalidation took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// Commands, CMD_SYNC apart.
    commands: u64,
    /// Of these, CMD_TLBI_S12_VMALL.
    vmall: u64,
    /// Descriptors read until the TLB holds the working set again.
    reads: u64,
}

fn pages(count: u64) -> IpaRange {
    IpaRange::new(RAM, count << 12).expect("a range")
}

/// The STE of the one DMA view, of `vmid`.
fn config<D: DmaTlb>(space: &AddressSpace<'_, D>, vmid: Vmid) -> Stage2Config {
    let tree = &space.dma_views().next().expect("a view").view.tree;
    Stage2Config {
        vmid,
        root: tree.root(),
        ipa_bits: u32::from(tree.format().ipa_bits()),
        start_level: tree.format().start_level(),
        output_bits: 48,
        hardware_update: Httu::Dirty,
    }
}

/// A device reads every page.
fn touch_all(machine: &Machine) -> u64 {
    let before = machine.tally().smmu_reads;
    for page in 0..PAGES {
        let ipa = Ipa(RAM.0 + (page << 12));
        assert!(matches!(machine.dma(STREAMS[0], ipa, false), Dma::Done(_)));
    }
    machine.tally().smmu_reads - before
}

fn measure(machine: &Machine, smmu: &Smmu<'_, Machine, SmmuPort>, vmid: Vmid, scope: Scope) -> Cost {
    assert_eq!(touch_all(machine), 0, "the TLB holds everything");
    let before = smmu.commands();
    smmu.invalidate(vmid, scope).expect("the SMMU answers");
    let after = smmu.commands();
    let commands = after.all - before.all - (after.syncs - before.syncs);
    Cost { commands, vmall: after.tlbi_vmall - before.tlbi_vmall, reads: touch_all(machine) }
}

/// What invalidating everything costs, and then the first pages of the view, as many as `hulls` say.
fn costs(by_range: bool, hulls: &[u64]) -> (Cost, Vec<Cost>) {
    let mut parameters = Parameters::new(1);
    (parameters.whims, parameters.smmu.tlb_entries) = (false, 2 * PAGES as usize);
    parameters.smmu.range_invalidation = by_range;
    let machine = Machine::new(parameters);
    let smmu = bring_up(&machine, machine.smmu());
    let mut space = AddressSpace::new(&machine, Format::new(36).expect("36 bits"), CPU_VMID).expect("frames");
    let vmid = smmu.alloc_vmid().expect("a VMID");
    let walker = DmaWalker { tlb: &smmu, vmid, coherent: true };
    space.add_dma_view(&machine, walker, DmaTier::Hardware).expect("frames");
    let region = Region { range: pages(PAGES), pa: Pa(0x8000_0000), reach: Reach::Ram };
    space.map(&machine, region).expect("frames");
    let ste = smmu.view(&config(&space, vmid)).expect("an STE");
    smmu.attach(STREAMS[0], &ste).expect("attached");

    let (mut log, mut step) = (DirtyLog::new(CpuTier::Hardware), 0);
    while let Progress::More(next) = log.start(&machine, &mut space, pages(PAGES), step).expect("a log") {
        step = next;
    }
    assert_eq!(touch_all(&machine), COLD_READS);
    let all = measure(&machine, &smmu, vmid, Scope::All);
    let some = hulls.iter().map(|hull| {
        let scope = Scope::Range { range: pages(*hull), leaf_only: true };
        measure(&machine, &smmu, vmid, scope)
    });
    let some = some.collect();
    assert_eq!(quiet(&machine), Ok(()));
    (all, some)
}

#[test]
fn invalidation_by_range_reads_again_what_it_names_and_one_of_everything_the_whole_working_set() {
    let hulls = [1, 8, 64, 512, 2048];
    for by_range in [true, false] {
        let (all, some) = costs(by_range, &hulls);
        println!("by range: {by_range}; everything: {all:?}");
        assert_eq!(all, Cost { commands: 1, vmall: 1, reads: COLD_READS });
        for (hull, cost) in hulls.into_iter().zip(some) {
            println!("{hull:5} pages: {cost:?}");
            // A command for each page, where that is what it comes to, is the dearer way from about half the working set
            // on: a command is fetched by a read as well.
            let by_pages = Cost { commands: if by_range { 1 } else { hull }, vmall: 0, reads: hull };
            let cheaper = by_pages.commands + by_pages.reads < all.commands + all.reads;
            assert_eq!(cost, if cheaper { by_pages } else { all });
        }
    }
}
