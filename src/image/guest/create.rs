//! Making a VM: views, devices, kernel, device tree, vCPU.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use strandline::addr::{Ipa, IpaRange, Vmid};
use strandline::address_space::{AddressSpace, Reach, Region as Mapped};
use strandline::dirty_log::{DigestCost, DirtyLog};
use strandline::frames::Frames;
use strandline::smmu::{Httu, Stage2Config};
use strandline::stage2::{DmaWalker, Format, VtcrOptions, Walker};
use strandline::vm::Vm;
use strandline_abi::{CpuTier, DmaTier};

use super::plan::VmPlan;
use super::{Guest, Host, at};
use crate::args::{CpuChoice, DmaChoice, VmConfig};
use crate::console::say;
use crate::cpu::CpuFeatures;
use crate::guest_dt::{self, GuestDescription, GuestNode};
use crate::guest_map;
use crate::loader::{self, LoadPlan, Placement};
use crate::machine::{Part, Region};
use crate::midr;
use crate::platform::Platform;
use crate::smmus::{RealSmmu, Stream};
use crate::vcpu::Vcpu;
use crate::vpci::{self, AssignedFunction, BarMapping, VirtualPci, Window};
use crate::vuart::Vuart;

type Space<'a> = AddressSpace<'a, RealSmmu>;

/// Makes VM number `index`.
pub(super) fn create<'a>(
    host: &mut Host<'_>,
    smmus: &'a [RealSmmu],
    plan: &'a VmPlan,
    ram: Region,
    index: usize,
) -> Result<Guest<'a>, String> {
    let config = &plan.config;
    let range = IpaRange::new(guest_map::RAM, ram.bytes()).map_err(|_| "memory: not a range of pages")?;
    let cpu_tier = cpu_tier(host.cpu, config.cpu)?;
    let (format, vtcr) = shape(host, config, cpu_tier)?;
    let kernel = loader::plan(plan.kernel, range).map_err(text)?;
    let placement = loader::place(&kernel, range, plan.ramdisk.map(|r| r.len() as u64)).map_err(text)?;

    let vmid = Vmid(index as u16 + 1);
    let mut space = Space::new(host.platform, format, vmid).map_err(text)?;
    let direct = midr::never_conflicts(host.cpu.midr, host.cpu.bbm) && !config.hold;
    if direct {
        space = space.with_direct_swap();
    }
    if midr::repeats_invalidation(host.cpu.midr) {
        space = space.with_repeated_invalidation();
    }
    forget(host.platform, &space)?;
    let mut streams: Vec<Stream> = Vec::new();
    each_stream(host, plan, &mut |_, stream| {
        // What is one stream to the SMMU is attached once.
        if !streams.contains(&stream) {
            streams.push(stream);
        }
    })?;
    let functions = assign(host, config)?;
    let views = add_dma_views(host, smmus, &mut space, &streams, config.dma, ram)?;
    let nodes = place_nodes(plan)?;
    map(host, &mut space, &functions, &nodes, range, ram)?;
    let description = GuestDescription {
        memory: range,
        command_line: &config.command_line,
        ramdisk: placement.ramdisk,
        has_devices: !functions.is_empty(),
        nodes: &nodes,
    };
    load(host, plan, &kernel, &placement, ram, &description)?;
    let free = host.platform.free_frames();
    attach(smmus, &space, &streams, &views)?;
    let stream_tables = free.saturating_sub(host.platform.free_frames());

    let pci = host.pci.as_ref().map(|p| VirtualPci::new(&p.ecam, functions)).unwrap_or_default();
    let (key, source) = host.entropy.key(index);
    let cost = DigestCost::measure(host.platform, ram.start(), 256);
    let log = DirtyLog::new(cpu_tier).with_key(key, source).with_digest_cost(cost);
    announce(host, plan, ram, &space, &log)?;
    if direct {
        say!(
            "strandline: VM {}: its vCPUs run on while blocks are split: this core never raises conflict aborts",
            config.name
        );
    }
    let mut vm = Vm::with_log(space, log);
    for (smmu, stream) in &streams {
        let view = views.iter().find(|(known, _)| known == smmu).map_or(0, |(_, view)| *view);
        let tier = vm.space.get_mut().dma_views().nth(view).map_or(DmaTier::None, |dma| dma.tier);
        if !vm.devices.add(*stream, tier) {
            return Err(format!("stream {stream}: a VM has at most {}", strandline::vm::MAX_DEVICES));
        }
    }
    Ok(Guest {
        name: &config.name,
        vm,
        vcpu: Vcpu::new(kernel.entry.0, placement.dtb.start.0),
        uart: Vuart::default(),
        pci,
        streams,
        stream_tables,
        vtcr,
        told: 0,
        told_exceptions: 0,
    })
}

/// An error as a line's end.
fn text(error: impl ToString) -> String {
    error.to_string()
}

/// How writes of the VM's vCPUs come to be known.
fn cpu_tier(cpu: &CpuFeatures, choice: CpuChoice) -> Result<CpuTier, String> {
    let hardware = cpu.hafdbs >= 2;
    match choice {
        CpuChoice::Auto if hardware => Ok(CpuTier::Hardware),
        CpuChoice::Auto => Ok(CpuTier::Faults),
        CpuChoice::Tier(CpuTier::Hardware) if !hardware => Err(format!(
            "cpu=hardware: this CPU (MIDR_EL1 {:#x}) has no hardware dirty state (ID_AA64MMFR1_EL1.HAFDBS is {}); \
             cpu=faults is possible",
            cpu.midr, cpu.hafdbs
        )),
        CpuChoice::Tier(tier) => Ok(tier),
    }
}

/// The shape of the VM's views, and VTCR_EL2; refuses a CPU that can't have them.
fn shape(host: &Host<'_>, config: &VmConfig, tier: CpuTier) -> Result<(Format, u64), String> {
    let cpu = host.cpu;
    if !cpu.tgran4_2 {
        return Err("this CPU has no 4 KiB granule at stage 2 (ID_AA64MMFR0_EL1.TGran4_2)".into());
    }
    let bits = guest_map::ipa_bits_for(config.memory).ok_or("memory: no address size holds it")?;
    if bits > cpu.pa_bits() {
        return Err(format!("memory: needs {bits} address bits, this CPU has {}", cpu.pa_bits()));
    }
    let format = Format::new(bits as u8).ok_or("memory: no tree format holds it")?;
    let hardware_dirty = tier == CpuTier::Hardware;
    let options = VtcrOptions { pa_range: cpu.pa_range, vmid16: cpu.vmid16, hardware_dirty };
    Ok((format, format.vtcr(options)))
}

/// Has all CPUs forget the VM's VMID: before its first use, since what TLBs hold at reset is anybody's guess, and after
/// its last.
pub(super) fn forget(platform: &Platform, space: &Space<'_>) -> Result<(), String> {
    let view = space.cpu_view();
    view.walker.invalidate(platform, &view.tree).map_err(text)
}

/// Takes the VM's functions.
fn assign(host: &mut Host<'_>, config: &VmConfig) -> Result<Vec<AssignedFunction>, String> {
    let mut window = Window::new(guest_map::PCI_WINDOW.0, guest_map::PCI_WINDOW_BYTES);
    let mut functions = Vec::new();
    for bdf in &config.devices {
        let root = host.pci.as_mut().ok_or("this machine has no PCIe host")?;
        functions.push(vpci::assign(&root.ecam, &mut root.windows, *bdf, &mut window).map_err(text)?);
    }
    Ok(functions)
}

/// Calls `visit` with the name of each of the VM's devices, and each of its streams.
fn each_stream(
    host: &Host<'_>,
    plan: &VmPlan,
    visit: &mut dyn FnMut(&dyn fmt::Display, Stream),
) -> Result<(), String> {
    for bdf in &plan.config.devices {
        let root = host.pci.as_ref().ok_or_else(|| format!("device {bdf}: this machine has no PCIe host"))?;
        visit(bdf, root.stream_of(*bdf)?);
    }
    for (path, device) in plan.config.nodes.iter().zip(&plan.nodes) {
        for part in &device.parts {
            if let Part::Stream(smmu, stream) = part {
                visit(path, (*smmu, *stream));
            }
        }
    }
    Ok(())
}

/// Finds places in the guest's address space for the registers of the VM's devices that are no PCI functions.
fn place_nodes(plan: &VmPlan) -> Result<Vec<GuestNode>, String> {
    let mut window = Window::new(guest_map::PLATFORM_WINDOW.0, guest_map::PLATFORM_WINDOW_BYTES);
    let mut nodes = Vec::new();
    for device in &plan.nodes {
        let mut registers = Vec::new();
        for part in &device.parts {
            let Part::Registers(region) = part else { continue };
            let bytes = region.bytes();
            let place = bytes.checked_next_power_of_two().and_then(|bytes| window.take(bytes));
            let ipa = place.ok_or_else(|| format!("{}: no room for its registers", device.name))?;
            registers.push(BarMapping { ipa: Ipa(ipa), pa: region.start(), bytes });
        }
        let name = device.name.split('@').next().unwrap_or_default();
        nodes.push(GuestNode { name, compatible: device.compatible, coherent: device.coherent, registers });
    }
    Ok(nodes)
}

/// A DMA view for each SMMU in front of the VM's devices: indices of SMMU and view.
fn add_dma_views<'a>(
    host: &Host<'_>,
    smmus: &'a [RealSmmu],
    space: &mut Space<'a>,
    streams: &[Stream],
    choice: DmaChoice,
    ram: Region,
) -> Result<Vec<(usize, usize)>, String> {
    let mut views: Vec<(usize, usize)> = Vec::new();
    for (smmu, stream) in streams {
        if views.iter().any(|(known, _)| known == smmu) {
            continue;
        }
        let driver = smmus.get(*smmu).ok_or_else(|| format!("stream {stream}: there is no SMMU {smmu}"))?;
        let bits = driver.features().output_bits;
        if (ram.end().0 - 1) >> bits != 0 {
            return Err(format!("its RAM at {ram} lies beyond the {bits} address bits of SMMU {smmu}"));
        }
        let tier = tier(driver, choice)?;
        let walker = DmaWalker {
            tlb: driver,
            vmid: driver.alloc_vmid().map_err(text)?,
            coherent: driver.features().coherent,
        };
        let view = space.add_dma_view(host.platform, walker, tier).map_err(text)?;
        if driver.features().httu == Httu::TableAccessFlag {
            space.use_table_flags(host.platform, view);
        }
        views.push((*smmu, view));
    }
    Ok(views)
}

/// How writes through this SMMU come to be known.
fn tier(smmu: &RealSmmu, choice: DmaChoice) -> Result<DmaTier, String> {
    let hardware = matches!(smmu.features().httu, Httu::Dirty | Httu::TableAccessFlag);
    match choice {
        DmaChoice::Auto if hardware => Ok(DmaTier::Hardware),
        DmaChoice::Auto | DmaChoice::Tier(DmaTier::Digest) => Ok(DmaTier::Digest),
        DmaChoice::Tier(DmaTier::Assume) => Ok(DmaTier::Assume),
        DmaChoice::Tier(DmaTier::Hardware) if hardware => Ok(DmaTier::Hardware),
        DmaChoice::Tier(DmaTier::Hardware) => Err(format!(
            "dma=hardware: the SMMU keeps no dirty state that can be used (hardware update {}, {}); dma=digest and \
             dma=assume are possible",
            smmu.features().httu,
            if smmu.features().coherent { "coherent" } else { "not coherent" }
        )),
        DmaChoice::Tier(other) => {
            Err(format!("dma={other}: not supported yet; dma=digest and dma=assume are possible"))
        }
    }
}

/// Maps the VM's RAM, for vCPUs and devices, and its devices' registers, for vCPUs.
fn map(
    host: &Host<'_>,
    space: &mut Space<'_>,
    functions: &[AssignedFunction],
    nodes: &[GuestNode],
    range: IpaRange,
    ram: Region,
) -> Result<(), String> {
    space.map(host.platform, Mapped { range, pa: ram.start(), reach: Reach::Ram }).map_err(text)?;
    let bars = functions.iter().flat_map(AssignedFunction::mappings);
    let registers = nodes.iter().flat_map(|node| node.registers.iter().copied());
    for BarMapping { ipa, pa, bytes } in bars.chain(registers) {
        let range = IpaRange::new(ipa, bytes).map_err(|_| "registers: not a range of pages")?;
        space.map(host.platform, Mapped { range, pa, reach: Reach::CpuDevice }).map_err(text)?;
    }
    Ok(())
}

/// Copies kernel and ramdisk into the VM's RAM, and writes its device tree.
fn load(
    host: &Host<'_>,
    plan: &VmPlan,
    kernel: &LoadPlan,
    placement: &Placement,
    ram: Region,
    description: &GuestDescription<'_>,
) -> Result<(), String> {
    let place = |ipa: Ipa| at(ram, ipa.0 - description.memory.start().0);
    for segment in &kernel.segments {
        let bytes = plan.kernel.get(segment.from.clone()).ok_or("the kernel ends early")?;
        host.platform.write_bytes(place(segment.to), bytes);
        host.platform.write_zeros(place(segment.to.offset(bytes.len() as u64)), segment.zeros);
    }
    if let (Some(placed), Some(ramdisk)) = (placement.ramdisk, plan.ramdisk) {
        host.platform.write_bytes(place(placed.start), ramdisk);
    }
    let tree = guest_dt::build(description).map_err(text)?;
    host.platform.write_bytes(place(placement.dtb.start), &tree);
    Ok(())
}

/// Sends the VM's streams through its DMA views.
fn attach(
    smmus: &[RealSmmu],
    space: &Space<'_>,
    streams: &[Stream],
    views: &[(usize, usize)],
) -> Result<(), String> {
    for (smmu, stream) in streams {
        let driver = smmus.get(*smmu).ok_or("no such SMMU")?;
        let index = views.iter().find(|(known, _)| known == smmu).map_or(0, |(_, view)| *view);
        let dma = space.dma_views().nth(index).ok_or("no such DMA view")?;
        let ste = driver.view(&Stage2Config::of(dma)).map_err(text)?;
        driver.attach(*stream, &ste).map_err(text)?;
    }
    Ok(())
}

fn announce(
    host: &Host<'_>,
    plan: &VmPlan,
    ram: Region,
    space: &Space<'_>,
    log: &DirtyLog,
) -> Result<(), String> {
    let (name, leaves) = (&plan.config.name, space.cpu_view().tree.leaves());
    say!(
        "strandline: VM {name}: {} MiB of RAM at guest address {} (physical {}), mapped by {} blocks of 1 GiB and {} of \
         2 MiB",
        ram.bytes() >> 20,
        guest_map::RAM,
        ram.start(),
        leaves.blocks_1g,
        leaves.blocks_2m
    );
    each_stream(host, plan, &mut |device, (smmu, stream)| {
        say!("strandline: VM {name}: device {device} is stream {stream} of SMMU {smmu}");
    })?;
    say!(
        "strandline: VM {name}: writes of its CPU are known by {}; {}",
        of_cpu(log.tiers(space).cpu),
        of_devices(space.dma_tier())
    );
    if space.dma_tier() == DmaTier::Digest {
        say!("strandline: VM {name}: the key of its digests comes from {}", log.key_source());
    }
    Ok(())
}

/// The same of its vCPUs.
const fn of_cpu(tier: CpuTier) -> &'static str {
    match tier {
        CpuTier::Hardware => "the CPU's dirty state",
        CpuTier::Faults => "write-protect faults (once for each page and round)",
        CpuTier::None => "nothing",
    }
}

/// What is known of the writes of a VM's devices, for a reader who has never heard of tiers.
const fn of_devices(tier: DmaTier) -> &'static str {
    match tier {
        DmaTier::None => "it has no device",
        DmaTier::Hardware => "those of its devices by the SMMU's dirty state",
        DmaTier::Assume => "its devices' are not: every page they may write is assumed written",
        DmaTier::Stall => "those of its devices by stalled faults",
        DmaTier::Digest => {
            "those of its devices by digests of what the pages hold (the SMMU keeps no dirty state)"
        }
    }
}
