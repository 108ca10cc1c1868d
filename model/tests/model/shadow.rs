//! A shadow copy of a VM's memory, made through its log while devices write what was there before again and again: at the
//! end every byte is the same, or the consumer has done what the contract says it must not.

use crate::broken::{Broken, Fault};
use crate::vm::{Plan, RAM, STREAMS, Vm, bring_up, quiet};
use strandline::addr::{Ipa, Pa};
use strandline::dirty_log::PAGE_WORDS;
use strandline::hw::{Barrier, Platform, Word};
use strandline::smmu::{Registers, Smmu};
use strandline_abi::{DmaTier, Flags};
use strandline_model::{Machine, Parameters};

/// Pages that are logged: all have contents.
const PAGES: u64 = 24;
/// Rounds in which everything runs.
const ROUNDS: u64 = 4;
/// Seeds within which a wrong consumer must be caught.
const SEEDS: u64 = 32;

/// How a page that was reported is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    /// By what the log reads: the digest kept is that of the bytes delivered.
    ReadPage,
    /// By loads of the consumer's own: the digest kept is that of the sync before.
    OwnLoads,
    /// By its own loads, and then the log reads the page as well: the digest kept is that of a second load.
    OwnLoadsBeforeReadPage,
    /// By its own loads, and then comes one more sync: the digest kept is that of the sync after.
    OwnLoadsBeforeSync,
}

/// The VM, and what its consumer has of its memory.
struct Copy<'a, P, R> {
    vm: Vm<'a, P, R, Smmu<'a, P, R>>,
    copies: Copies,
    shadow: Vec<[u64; PAGE_WORDS]>,
}

impl<P: Platform, R: Registers> Copy<'_, P, R> {
    const fn pa(page: u64) -> Pa {
        Pa(0x8000_0000 + page * 4096)
    }

    fn copy(&mut self, page: u64) -> Result<(), String> {
        let ipa = Ipa(RAM.0 + page * 4096);
        let mut words = [0; PAGE_WORDS];
        let vm = &mut self.vm;
        if self.copies == Copies::ReadPage {
            vm.log.read_page(vm.platform, &vm.space, ipa, &mut words).map_err(|e| e.to_string())?;
            self.shadow[page as usize] = words;
            return Ok(());
        }
        vm.platform.barrier(Barrier::DsbSy);
        for (copy, word) in
            self.shadow[page as usize].iter_mut().zip(vm.platform.words(Self::pa(page), PAGE_WORDS))
        {
            *copy = word.load();
        }
        if self.copies == Copies::OwnLoadsBeforeReadPage {
            vm.log.read_page(vm.platform, &vm.space, ipa, &mut words).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// The pages that a clearing sync of the sources in `flags` reports.
    fn reported(&mut self, flags: Flags) -> Result<Vec<u64>, String> {
        let vm = &mut self.vm;
        let part = vm.log.step_of(vm.range(), 0).map_err(|e| e.to_string())?;
        let mut pages = vec![];
        let deliver = |word, bits| {
            pages.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| word * 64 + bit));
        };
        vm.log
            .sync(vm.platform, &vm.space, part, flags.with(Flags::CLEAR), deliver)
            .map_err(|e| e.to_string())?;
        Ok(pages)
    }

    /// A sync, of all sources at once or of devices first, and copies of what it reports; how many pages.
    fn round(&mut self, at_once: bool) -> Result<usize, String> {
        let asked = if at_once { vec![Flags::CPU.with(Flags::DMA)] } else { vec![Flags::DMA, Flags::CPU] };
        let mut copied = 0;
        for flags in asked {
            let pages = self.reported(flags)?;
            copied += pages.len();
            pages.into_iter().try_for_each(|page| self.copy(page))?;
            if self.copies == Copies::OwnLoadsBeforeSync {
                self.reported(flags)?;
            }
        }
        Ok(copied)
    }

    /// Everything stops: one more round, and nothing is left to be reported.
    fn finish(&mut self, at_once: bool) -> Result<(), String> {
        STREAMS.iter().for_each(|stream| self.vm.machine.quiesce(*stream));
        (0..2).for_each(|pe| self.vm.machine.stop_vcpu(pe));
        self.round(at_once)?;
        self.compare()?;
        match self.round(!at_once)? {
            0 => Ok(()),
            left => Err(format!("{left} pages are reported though nobody writes")),
        }
    }

    fn compare(&self) -> Result<(), String> {
        for (page, copy) in (0..).zip(&self.shadow) {
            let now = |word: usize| self.vm.machine.peek(Self::pa(page).offset(word as u64 * 8));
            if let Some(word) = (0..PAGE_WORDS).find(|word| copy[*word] != now(*word)) {
                return Err(format!("differs: word {word} of page {page}: {} for {}", copy[word], now(word)));
            }
        }
        Ok(())
    }
}

/// A whole copy, from start to stop, of a VM whose vCPUs write as well, or whose devices alone do.
fn shadow(parameters: Parameters, copies: Copies, vcpus: bool, fault: Fault) -> Result<usize, String> {
    let machine = Machine::new(parameters);
    let platform = Broken::new(&machine, fault);
    let smmu = bring_up(&platform, machine.smmu());
    let plan = Plan { bytes: 2 << 20, pages: PAGES, pause: 100, ..Plan::new(DmaTier::Digest) };
    let mut vm = Vm::new(&machine, &platform, &smmu, &smmu, plan);
    if !vcpus {
        (0..2).for_each(|pe| machine.stop_vcpu(pe));
    }
    vm.start()?;
    let mut copy = Copy { vm, copies, shadow: vec![[0; PAGE_WORDS]; PAGES as usize] };
    (0..PAGES).try_for_each(|page| copy.copy(page))?;
    let mut copied = 0;
    for round in 0..ROUNDS {
        copied += copy.round(round % 2 == 0)?;
        machine.run(20 + parameters.seed % 7 * 20);
    }
    copy.finish(parameters.seed % 4 < 2)?;
    copy.vm.stop()?;
    copy.vm.end()?;
    quiet(&machine)?;
    Ok(copied)
}

/// A machine without hardware dirty state, of each break-before-make level, coherent or not. EL2 is fast: a device writes
/// a page now and then while it is read.
fn machine(seed: u64) -> Parameters {
    let mut parameters = Parameters::new(seed);
    (parameters.smmu.httu, parameters.smmu.coherent) = (0, !seed.is_multiple_of(3));
    parameters.smmu.bbml = (seed % 3) as u8;
    parameters.contents = PAGES;
    parameters.pace = 8;
    parameters
}

#[test]
fn shadow_copy_through_read_page_is_equal_at_the_end() {
    let (mut copied, mut whole) = (0, 0);
    for seed in 0..60 {
        match shadow(machine(seed), Copies::ReadPage, seed.is_multiple_of(2), Fault::None) {
            Ok(pages) => (copied, whole) = (copied + pages, whole + ROUNDS * PAGES),
            Err(account) => panic!("seed {seed}: {account}"),
        }
    }
    // Some pages are written in each round, and some are not.
    println!("{copied} of {whole}");
    assert!(copied > 1_000 && (copied as u64) < whole - 1_000, "{copied} of {whole}");
}

/// The account of the first seed with which `copies`, or `fault`, is caught.
fn caught(copies: Copies, fault: Fault) -> String {
    let account = (0..SEEDS).find_map(|seed| shadow(machine(seed), copies, false, fault).err());
    let Some(account) = account else { panic!("{copies:?}, {fault:?} is not caught within {SEEDS} seeds") };
    println!("{copies:?}, {fault:?}: {account}");
    account
}

#[test]
fn consumer_that_copies_by_its_own_loads_is_fooled_by_what_changes_and_changes_back() {
    assert!(caught(Copies::OwnLoads, Fault::None).contains("differs"));
}

#[test]
fn digest_of_another_load_than_the_delivered_one_misses_a_write_between_them() {
    assert!(caught(Copies::OwnLoadsBeforeReadPage, Fault::None).contains("differs"));
}

#[test]
fn digest_of_a_sync_after_the_delivery_misses_a_write_between_them() {
    assert!(caught(Copies::OwnLoadsBeforeSync, Fault::None).contains("differs"));
}

#[test]
fn page_read_through_caches_that_devices_write_past_is_stale() {
    assert!(caught(Copies::ReadPage, Fault::NoCacheInvalidation).contains("differs"));
}
