//! The console: which UART the tree names, and how its registers are laid out.

use super::tree::{Cells, Place, Tree};
use super::{Region, TreeError};

/// The UART that is the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// The name of its node.
    pub name: &'static str,
    /// Its registers.
    pub region: Region,
    /// Which kind of UART it is.
    pub kind: UartKind,
}

/// The kinds of UART there are drivers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// Arm's PL011, which EL2 sets up.
    Pl011 {
        /// The frequency of the clock its baud rate is made from, in Hz.
        clock_hz: u32,
        /// The baud rate.
        baud: u32,
    },
    /// A 16550, `DesignWare`'s among them, used as the boot loader has left it.
    Ns16550 {
        /// Register n lies at byte n << shift.
        shift: u8,
        /// Bytes of an access.
        width: u8,
    },
}

const PL011: &[&str] = &["arm,pl011"];
const NS16550: &[&str] = &["snps,dw-apb-uart", "ns16550a", "ns16550"];
/// What the PL011 of Arm's own boards, and of those made after them, is clocked with.
const DEFAULT_CLOCK_HZ: u32 = 24_000_000;
const DEFAULT_BAUD: u32 = 115_200;
/// The last register of a 16550 that is used: line status.
const NS16550_LAST: u64 = 5;
/// Registers lie no further apart than 16 bytes.
const MAX_SHIFT: u32 = 4;

impl Uart {
    /// The UART that `/chosen/stdout-path` names or, failing that, the first one.
    ///
    /// # Errors
    /// There is none that EL2 can drive, or its node is wrong.
    pub fn read(tree: Tree) -> Result<Self, TreeError> {
        let is_known = |p: &Place| p.compatible_with(PL011).or(p.compatible_with(NS16550)).is_some();
        let (path, options) = stdout(tree)?.unwrap_or_default();
        let place = match tree.by_path(path)?.filter(is_known) {
            Some(place) => place,
            None => tree.find(&mut |place| Ok(is_known(place)))?.ok_or(TreeError::Missing(
                "console (compatible = \"arm,pl011\", \"snps,dw-apb-uart\" or \"ns16550a\")",
            ))?,
        };
        let region = place.reg(0)?;
        let kind = if place.compatible_with(PL011).is_some() {
            pl011(tree, &place, options)?
        } else {
            ns16550(&place, region)?
        };
        Ok(Self { name: place.name(), region, kind })
    }
}

/// `options` are the baud rate, then parity, bits and flow control: the PL011 is always set to 8 bits without parity.
fn pl011(tree: Tree, place: &Place, options: &str) -> Result<UartKind, TreeError> {
    let baud = options.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    Ok(UartKind::Pl011 {
        clock_hz: clock_hz(tree, place)?.unwrap_or(DEFAULT_CLOCK_HZ),
        baud: baud.filter(|b| *b != 0).unwrap_or(DEFAULT_BAUD),
    })
}

fn ns16550(place: &Place, region: Region) -> Result<UartKind, TreeError> {
    let shift = place.cell("reg-shift")?.unwrap_or(0);
    if shift > MAX_SHIFT {
        return Err(place.wrong("reg-shift", "is more than 4"));
    }
    let width = match place.cell("reg-io-width")?.unwrap_or(1) {
        width @ (1 | 2 | 4) => u64::from(width),
        _ => return Err(place.wrong("reg-io-width", "is none of 1, 2 and 4")),
    };
    let bytes = (NS16550_LAST << shift) + width;
    if region.bytes() < bytes || !region.start().is_aligned(width) || width > 1 << shift {
        return Err(place
            .wrong("reg", "does not hold a 16550's registers, as reg-shift and reg-io-width lay them out"));
    }
    Ok(UartKind::Ns16550 { shift: shift as u8, width: width as u8 })
}

/// The path that `/chosen/stdout-path` gives, by an alias or itself, and the options behind its colon.
fn stdout(tree: Tree) -> Result<Option<(&'static str, &'static str)>, TreeError> {
    let chosen = tree.by_path("/chosen")?;
    let Some(value) = chosen.and_then(|c| c.string("stdout-path")) else { return Ok(None) };
    let (name, options) = value.split_once(':').unwrap_or((value, ""));
    if name.starts_with('/') {
        return Ok(Some((name, options)));
    }
    let aliases = tree.by_path("/aliases")?;
    Ok(aliases.and_then(|aliases| aliases.string(name)).map(|path| (path, options)))
}

/// The frequency of the first of a device's clocks, where that is a fixed one.
fn clock_hz(tree: Tree, place: &Place) -> Result<Option<u32>, TreeError> {
    let Some(phandle) = place.property("clocks").and_then(|clocks| Cells(clocks).cell()) else {
        return Ok(None);
    };
    match tree.by_phandle(phandle)? {
        Some(clock) => Ok(clock.cell("clock-frequency")?.filter(|hz| *hz != 0)),
        None => Ok(None),
    }
}
