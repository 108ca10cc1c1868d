//! Real devices' DMA, logged by the SMMU itself: the emulator with HTTU. And by what there is where it isn't.

use std::path::PathBuf;

use qemu_tests::emulator::patched;
use qemu_tests::{Boot, Outcome, ScratchFile};

/// Break-before-make levels of the SMMU, and whether its dirty state is as late as it may be.
const EVERY: [(u8, bool); 6] = [(2, false), (2, true), (1, false), (1, true), (0, false), (0, true)];
const LEVEL_2: [(u8, bool); 2] = [(2, false), (2, true)];

/// Bytes of a drive.
const DRIVE_BYTES: usize = 4 << 20;
/// So few transfers a second that each drive's are on their way when a sync comes.
const SLOW: &str = ",throttling.iops-total=10";

/// A kind of device. Its place in the list gives it its slot; edu is the one `scripts/run` adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Edu,
    /// Without a drive: Identify alone.
    NvmeAlone,
    Nvme,
    VirtioRng,
    VirtioBlk,
}

const ALL: [Device; 4] = [Device::Edu, Device::Nvme, Device::VirtioRng, Device::VirtioBlk];

/// A machine to boot a case on, with the files of its drives.
struct Machine {
    boot: Boot,
    drives: Vec<ScratchFile>,
}

impl Machine {
    /// A case with these devices; `throttling` are more options of their drives.
    fn new(case: &str, arguments: &str, devices: &[Device], throttling: &str) -> Self {
        let boot = Boot::case(case, &format!("{arguments} devices={}", devices.len()));
        let boot = boot.option("--memory", "128M");
        let boot = if devices.contains(&Device::Edu) { boot } else { boot.flag("--no-device") };
        let mut machine = Self { boot, drives: vec![] };
        let mut words = String::new();
        for (slot, device) in (2..).zip(devices.iter().filter(|device| **device != Device::Edu)) {
            machine = machine.with(*device, slot, throttling);
            words += &format!(" device=00:{slot:02x}.0");
        }
        if !words.is_empty() {
            machine.boot = machine.boot.option("--config", words.trim_start());
        }
        machine
    }

    fn with(mut self, device: Device, slot: u8, throttling: &str) -> Self {
        const BEHIND: &str = "disable-legacy=on,iommu_platform=on";
        let kind = match device {
            Device::Edu => return self,
            Device::NvmeAlone => "nvme,serial=strandline".into(),
            Device::Nvme => format!("nvme,serial=strandline,drive={}", self.drive(slot, throttling)),
            Device::VirtioRng => format!("virtio-rng-pci,{BEHIND}"),
            Device::VirtioBlk => format!("virtio-blk-pci,{BEHIND},drive={}", self.drive(slot, throttling)),
        };
        self.boot = self.boot.qemu(&["-device", &format!("{kind},addr={slot:02x}.0")]);
        self
    }

    /// Adds a drive with bytes that repeat nowhere; gives back its name.
    fn drive(&mut self, slot: u8, throttling: &str) -> String {
        let words = (0..DRIVE_BYTES as u64 / 8).map(|word| (word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let file = ScratchFile::with("drive", &bytes);
        let option = format!("if=none,id=drive{slot},format=raw,file={}{throttling}", file.name());
        self.boot = std::mem::replace(&mut self.boot, Boot::probe()).qemu(&["-drive", &option]);
        self.drives.push(file);
        format!("drive{slot}")
    }

    /// On the emulator with HTTU.
    fn on(mut self, emulator: PathBuf, bbml: u8, late: bool) -> Self {
        let late = format!("arm-smmuv3.httu-late={}", if late { "on" } else { "off" });
        let bbml = format!("arm-smmuv3.bbml={bbml}");
        let globals = ["-global", "arm-smmuv3.httu=2", "-global", &bbml, "-global", &late];
        self.boot = self.boot.emulator(&emulator).qemu(&globals);
        self
    }

    /// On an image with a fault built in.
    fn sabotaged(mut self, fault: &str) -> Self {
        self.boot = self.boot.image(&format!("sabotage/{fault}.img"));
        self
    }

    fn passes(self, case: &str) -> Outcome {
        let outcome = self.boot.run().success();
        assert!(outcome.says(&format!("vm0| case {case}: ok")), "{}", outcome.show());
        assert!(!outcome.says("a device was stopped"), "{}", outcome.show());
        outcome
    }
}

/// The case passes, by hardware, on SMMUs of these kinds.
fn passes_by_hardware(
    kinds: &[(u8, bool)],
    case: &str,
    arguments: &str,
    devices: &[Device],
    throttling: &str,
) {
    let Some(emulator) = patched() else { return };
    for (bbml, late) in kinds {
        let machine = Machine::new(case, arguments, devices, throttling);
        let outcome = machine.on(emulator.clone(), *bbml, *late).passes(case);
        let logged = format!("{} device(s) by hardware", devices.len());
        assert!(case != "dma" || outcome.says(&logged), "{}", outcome.show());
    }
}

#[test]
fn what_one_device_writes_is_reported_exactly() {
    for device in [Device::Edu, Device::NvmeAlone, Device::Nvme, Device::VirtioRng, Device::VirtioBlk] {
        passes_by_hardware(&LEVEL_2, "dma", "rounds=12", &[device], "");
    }
}

#[test]
fn what_all_devices_write_at_once_is_reported_exactly() {
    passes_by_hardware(&EVERY, "dma", "rounds=24", &ALL, "");
}

#[test]
fn what_is_on_its_way_across_syncs_is_reported_in_the_end() {
    passes_by_hardware(&EVERY, "dma", "rounds=24 seed=3 inflight=20", &ALL, SLOW);
}

#[test]
fn a_copy_of_memory_that_devices_write_is_equal_in_the_end() {
    passes_by_hardware(&EVERY, "shadow-dma", "rounds=200", &ALL, "");
    passes_by_hardware(
        &LEVEL_2,
        "shadow-dma",
        "rounds=200 seed=2",
        &[Device::NvmeAlone, Device::VirtioRng],
        "",
    );
}

#[test]
fn a_copy_is_equal_in_the_end_with_transfers_on_their_way_across_syncs() {
    passes_by_hardware(&EVERY, "shadow-dma", "rounds=200 inflight=100", &ALL, SLOW);
}

#[test]
fn a_copy_by_an_adaptive_log_is_equal_in_the_end() {
    // Below level 2 the devices' view is logged by pages, and the CPU's alone adapts.
    passes_by_hardware(&EVERY, "shadow-dma", "rounds=200 seed=5 granule=1", &ALL, "");
    passes_by_hardware(&LEVEL_2, "shadow-dma", "rounds=200 seed=6 inflight=100 granule=1", &ALL, SLOW);
}

/// Both cases fail, at their comparison, on the image with this fault.
fn found(fault: &str, late: bool) {
    let Some(emulator) = patched() else { return };
    for (case, symptom) in [("dma", "pages not reported"), ("shadow-dma", "of the copy are not the memory's")]
    {
        let machine = Machine::new(case, "rounds=60", &ALL, "").on(emulator.clone(), 2, late);
        let outcome = machine.sabotaged(fault).boot.run().failure("SYSTEM_RESET");
        assert!(outcome.says("SABOTAGED"), "this is not the image with the fault{}", outcome.show());
        let failed = format!("vm0| case {case}: FAILED");
        let line = outcome.lines.iter().find(|line| line.starts_with(&failed));
        assert!(line.is_some_and(|line| line.contains(symptom)), "{}", outcome.show());
    }
}

#[test]
fn no_invalidation_after_a_clean_is_found() {
    found("no_dma_invalidation", false);
}

#[test]
fn no_invalidation_after_a_split_is_found() {
    found("no_split_invalidation", false);
}

#[test]
fn no_sync_before_the_walk_is_found_where_dirty_state_is_late() {
    found("no_sync_before_walk", true);
}

#[test]
fn without_dirty_state_digests_tell_what_changed() {
    let outcome = Machine::new("dma", "rounds=8", &ALL, "").passes("dma");
    assert!(outcome.says("4 device(s) by digest"), "{}", outcome.show());
}

#[test]
fn without_dirty_state_every_page_may_be_assumed() {
    let mut machine = Machine::new("dma", "rounds=8", &[Device::Edu], "");
    machine.boot = machine.boot.option("--config", "dma=assume");
    assert!(machine.passes("dma").says("1 device(s) by assume"));
}

#[test]
fn a_guest_sees_a_virtio_device_that_is_behind_the_smmu() {
    // What it needs of the capability list, the driver finds.
    let outcome = Machine::new("dma", "rounds=8", &[Device::VirtioRng], "").passes("dma");
    assert!(outcome.says("virtio-rng: "), "{}", outcome.show());
}
