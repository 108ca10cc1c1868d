//! What EL2 says of the machine when it starts.

use super::console::say;
use super::cpu::CpuFeatures;
use super::layout;
use super::machine::{Conduit, Machine, ModuleKind};
use super::midr;

const MIB: u64 = 1 << 20;

/// Prints a few lines on what was found; `tables` map EL2 itself.
pub fn print(machine: &Machine, cpu: &CpuFeatures, tables: usize) {
    let image = layout::image();
    let kib = (image.end - image.start) >> 10;
    say!(
        "strandline: at EL2, image at {:#x}, {kib} KiB with stacks and heap, mapped by {tables} tables",
        image.start
    );
    let psci = match machine.psci {
        Some(Conduit::Smc) => "PSCI by SMC",
        Some(Conduit::Hvc) => "PSCI by HVC",
        None => "no PSCI",
    };
    say!("strandline: CPU: {cpu}; 1 of {} in use, {psci}", machine.cpus);
    if !machine.overrides.text.is_empty() {
        say!("strandline: the board overrides: {}", machine.overrides.text);
    }
    if midr::dirty_state_is_broken(cpu.midr) {
        say!("strandline: CPU: its hardware dirty state is not used, for an erratum of this core");
    }
    if midr::repeats_invalidation(cpu.midr) {
        say!("strandline: CPU: broadcast TLB invalidations are issued twice, for errata of this core");
    }
    if let Some(fault) = strandline::sabotage::NAME {
        say!("strandline: SABOTAGED for a test: {fault}");
    }
    say!("strandline: RAM: {} MiB, {} MiB of it free", machine.ram_bytes() / MIB, free_mib(machine));
    for smmu in &machine.smmus {
        let coherent = if smmu.coherent { "coherent" } else { "not coherent" };
        let (event, gerror) = (smmu.event.intid, smmu.gerror.intid);
        say!(
            "strandline: SMMUv3 at {}, {coherent}, INTID {event} (events), {gerror} (errors)",
            smmu.region.start()
        );
    }
    for host in &machine.pcie {
        say!("strandline: PCIe at {}, buses {}-{}", host.ecam.start(), host.first_bus, host.last_bus);
    }
    for module in &machine.modules {
        let kind = match module.kind {
            ModuleKind::Kernel => "kernel",
            ModuleKind::Ramdisk => "ramdisk",
            ModuleKind::Bundle => "bundle",
        };
        say!("strandline: module: {kind} at {}: {}", module.region, module.bootargs);
    }
}

fn free_mib(machine: &Machine) -> u64 {
    machine.free.iter().map(|r| r.bytes()).sum::<u64>() / MIB
}
