//! Device trees: whatever their bytes are, the reader gives a machine whose parts fit together, or one line that says why
//! not.
#![expect(unsafe_code, reason = "a tree stays for ever in the image, and as long as it is read here")]

use std::mem::transmute;

use strandline::addr::StreamId;

use crate::machine::{Conduit, Machine, Overrides, Part, Region, Tree, TreeError, Uart, UartKind};

/// QEMU's own tree of its `virt` machine, with a boot module.
const VIRT: &[u8] = include_bytes!("../trees/virt.dtb");

/// An even byte and a tree; or an odd byte and changes of QEMU's: which word, of two bytes, and its value, of four.
pub fn device_tree(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let _machine_or_line = if kind % 2 == 0 { described(rest) } else { described(&changed(rest)) };
}

fn changed(changes: &[u8]) -> Vec<u8> {
    let mut tree = VIRT.to_vec();
    for [high, low, value @ ..] in changes.as_chunks::<6>().0 {
        let word = usize::from(u16::from_be_bytes([*high, *low])) % (tree.len() / 4);
        tree[4 * word..4 * word + 4].copy_from_slice(value);
    }
    tree
}

/// What the image makes of a tree, in lines: a machine, or the one line that says what is wrong.
///
/// # Errors
/// The line.
///
/// # Panics
/// What was read does not fit together.
pub fn described(blob: &[u8]) -> Result<Vec<String>, String> {
    // SAFETY: what is read is dropped before this function returns; what it returns is copied.
    let blob: &'static [u8] = unsafe { transmute::<&[u8], &'static [u8]>(blob) };
    match read(blob) {
        Ok(machine) => {
            check(&machine);
            Ok(lines(&machine))
        }
        Err(error) => {
            let line = error.to_string();
            assert!(line.starts_with("device tree: ") && !line.contains(char::is_control), "{line:?}");
            Err(line)
        }
    }
}

/// As the image does it, which lies 2 MiB into the first RAM, and the tree at its end.
fn read(blob: &'static [u8]) -> Result<Box<Machine>, TreeError> {
    let tree = Tree::new(blob)?;
    let (uart, psci, overrides) = (Uart::read(tree)?, Conduit::read(tree)?, Overrides::read(tree)?);
    let mut machine = Box::new(Machine::read_basics(tree, uart, psci, overrides)?);
    let mut probe = Box::new(Machine::read_basics(tree, uart, psci, overrides)?);
    let anywhere = Region::new(0x1000, 0x1000).expect("it does not wrap");
    // Where RAM is.
    let _not_there = probe.read_lists(tree, anywhere, anywhere);
    let ram = probe.ram.first().copied().unwrap_or(anywhere);
    let place = |at: u64, bytes| Region::new(ram.start().0.wrapping_add(at), bytes).unwrap_or(anywhere);
    let end = ram.bytes().saturating_sub(0x10_0000) & !0xfff;
    machine.read_lists(tree, place(end, 0x1_0000), place(0x20_0000, 0x10_0000))?;
    Ok(machine)
}

/// What EL2 relies on.
fn check(machine: &Machine) {
    let inside = |region: Region| machine.ram.iter().any(|ram| ram.covers(region));
    for pair in machine.ram.windows(2) {
        assert!(pair[0].end() < pair[1].start(), "RAM is sorted and merged: {:?}", machine.ram);
    }
    let modules = machine.modules.iter().map(|m| m.region);
    let taken: Vec<Region> = machine.reserved.iter().map(|r| r.region).chain(modules.clone()).collect();
    for free in &machine.free {
        assert!(inside(*free) && free.start().is_aligned(0x1000) && free.bytes() % 0x1000 == 0, "{free}");
        assert!(!taken.iter().any(|t| t.overlaps(*free)), "{free} is taken");
    }
    for pair in machine.free.windows(2) {
        assert!(pair[0].end() <= pair[1].start());
    }
    modules.for_each(|module| assert!(inside(module), "{module}"));
    let windows = machine.pcie.iter().flat_map(|host| &host.windows).map(|w| w.cpu);
    let devices: Vec<Region> = machine.devices().map(|(_, region)| region).chain(windows).collect();
    for (index, device) in devices.iter().enumerate() {
        let ram = machine.ram.iter().chain(&devices[..index]);
        assert!(!ram.clone().any(|other| other.overlaps(*device)), "{device} is something else, too");
    }
    // Whatever is asked for: it is there and nobody else's, or there is a reason.
    for path in ["/pl031@9010000", "/pl061@9030000", "/virtio_mmio@a000000", "/smmuv3@9050000", "/"] {
        let Ok(Some(device)) = machine.platform_device(path) else { continue };
        assert!(device.parts.iter().any(|part| matches!(part, Part::Stream(..))), "{path} is confined");
        for part in device.parts {
            match part {
                Part::Stream(smmu, _) => assert!(smmu < machine.smmus.len()),
                Part::Registers(region) => {
                    assert!(!devices.iter().any(|d| d.overlaps(region)) && !inside(region))
                }
                Part::Line(line) => assert!(machine.smmus.iter().all(|s| s.event.intid != line)),
                Part::Function(_) => panic!("{path} is no PCI function"),
            }
        }
    }
    for host in &machine.pcie {
        for requester in 0..=u16::MAX {
            let stream = host.stream_of(requester);
            assert!(stream.is_none_or(|(smmu, _)| smmu < machine.smmus.len()));
        }
    }
}

fn lines(machine: &Machine) -> Vec<String> {
    let mut lines = vec![];
    lines.extend(machine.ram.iter().map(|ram| format!("RAM {ram}")));
    lines.push(match machine.uart.kind {
        UartKind::Pl011 { baud, .. } => format!("PL011 at {}, {baud} baud", machine.uart.region.start()),
        UartKind::Ns16550 { shift, width } => {
            format!("16550 at {}, shift {shift}, width {width}", machine.uart.region.start())
        }
    });
    lines.push(format!("PSCI {:?}, overrides '{}'", machine.psci, machine.overrides.text));
    lines.push(format!("GIC at {}, timer {}", machine.gic.distributor.start(), machine.timer.intid));
    lines.extend(machine.gic.redistributors.iter().map(|r| format!("redistributors {r}")));
    for smmu in &machine.smmus {
        let coherent = if smmu.coherent { "coherent" } else { "not coherent" };
        let (events, errors) = (smmu.event.intid, smmu.gerror.intid);
        let how = format!("{:?}", smmu.event.trigger).to_lowercase();
        lines
            .push(format!("SMMU at {}, {coherent}, INTID {events} and {errors}, {how}", smmu.region.start()));
    }
    for host in &machine.pcie {
        let stream = match host.stream_of(8) {
            Some((smmu, StreamId(stream))) => format!("stream {stream:#x} of SMMU {smmu}"),
            None => "no stream".into(),
        };
        lines.push(format!("PCIe at {}, 00:01.0 is {stream}", host.ecam.start()));
    }
    lines.push(format!("{} CPUs, {} modules", machine.cpus, machine.modules.len()));
    lines
}
