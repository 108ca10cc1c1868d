//! The configuration space a VM sees: an ECAM of one bus with its own functions.
//!
//! A function keeps its device number; within a device, the VM's functions are numbered from 0 in the order of their
//! numbers in the machine. A guest that looks at function 0 first, and at the others where the header says
//! 'multi-function', so finds all of them.
//!
//! Shown are identity and class, the BARs, and of the command register two bits. BARs can be sized but not moved:
//! what is mapped is what they read. Memory decode is the guest's bit in its own view only: the function itself goes
//! on decoding while its BARs are mapped, since an access that nobody answers may end in an SError. Everything else
//! reads as zero and ignores writes: no interrupt pin, no expansion ROM, no capabilities but those by which a virtio
//! function says where its structures are.

use alloc::vec::Vec;

use super::assign::{AssignedBar, AssignedFunction};
use super::bdf::Bdf;
use super::config::{
    BAR0, BARS, CLASS, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_MEMORY, COMMAND_STATUS, ConfigSpace,
    HEADER, HEADER_MULTI_FUNCTION, IDS, STATUS, STATUS_CAPABILITIES, STATUS_INTX, SUBSYSTEM,
};
use super::virtio::{is_virtio, shown_capabilities};
use crate::guest_map::ECAM_BYTES;
use crate::mmio::Width;

/// The configuration space of one VM.
#[derive(Debug, Default)]
pub struct VirtualPci {
    functions: Vec<VirtualFunction>,
}

impl VirtualPci {
    /// A configuration space with `functions`, whose identity is read from the machine.
    #[must_use]
    pub fn new(host: &impl ConfigSpace, mut functions: Vec<AssignedFunction>) -> Self {
        crate::sort::by_key(&mut functions, AssignedFunction::bdf);
        let mut shown: Vec<VirtualFunction> = Vec::new();
        for function in functions {
            let mut number = 0;
            for sibling in shown.iter_mut().filter(|f| f.guest.part() == function.bdf().part()) {
                sibling.multi_function = true;
                number += 1;
            }
            shown.push(VirtualFunction::new(host, function, number));
        }
        Self { functions: shown }
    }

    /// Takes the functions back: the VM has ended.
    pub fn into_functions(self) -> impl Iterator<Item = AssignedFunction> {
        self.functions.into_iter().map(|f| f.assigned)
    }

    /// The value of a load of `width` at `offset` in the ECAM, aligned or not. All ones where no function is, and
    /// beyond the ECAM.
    #[must_use]
    pub fn read(&self, host: &impl ConfigSpace, offset: u64, width: Width) -> u64 {
        let lanes = Lanes::of(offset, width);
        let words = lanes.words().enumerate();
        let value = words.fold(0, |v, (i, word)| v | u128::from(self.read_word(host, word)) << (32 * i));
        (value >> lanes.shift) as u64 & width.mask()
    }

    /// A store of `value` of `width` at `offset` in the ECAM, aligned or not.
    pub fn write(&mut self, host: &impl ConfigSpace, offset: u64, width: Width, value: u64) {
        let lanes = Lanes::of(offset, width);
        let value = u128::from(value & width.mask()) << lanes.shift;
        let mask = u128::from(width.mask()) << lanes.shift;
        for (i, word) in lanes.words().enumerate() {
            if let Some((function, register)) = self.find(word) {
                let function = &mut self.functions[function];
                function.write(host, register, (value >> (32 * i)) as u32, (mask >> (32 * i)) as u32);
            }
        }
    }

    fn read_word(&self, host: &impl ConfigSpace, word: u64) -> u32 {
        match self.find(word) {
            Some((function, register)) => self.functions[function].read(host, register),
            None => u32::MAX,
        }
    }

    /// The function a word belongs to, as an index, and the register it is. An ECAM offset is the requester ID in bits
    /// 27:12 and the register in bits 11:0.
    fn find(&self, word: u64) -> Option<(usize, u16)> {
        if word >= ECAM_BYTES {
            return None;
        }
        let bdf = Bdf::from_requester_id((word >> 12) as u16);
        let function = self.functions.iter().position(|f| f.guest == bdf)?;
        Some((function, (word & 0xfff) as u16))
    }
}

/// The words an access touches.
struct Lanes {
    /// The first, a multiple of 4.
    first: u64,
    /// How many, 1 to 3.
    count: u64,
    /// Where the access begins in them, in bits.
    shift: u32,
}

impl Lanes {
    const fn of(offset: u64, width: Width) -> Self {
        let lead = offset & 3;
        Self { first: offset - lead, count: (lead + width.bytes()).div_ceil(4), shift: lead as u32 * 8 }
    }

    fn words(&self) -> impl Iterator<Item = u64> + use<> {
        // An offset that wraps is far beyond any function, as the largest one is.
        let first = self.first;
        (0..self.count).map(move |i| first.saturating_add(4 * i))
    }
}

/// A function as its VM sees it.
#[derive(Debug)]
struct VirtualFunction {
    assigned: AssignedFunction,
    /// What the guest calls it.
    guest: Bdf,
    /// The VM has other functions of the device.
    multi_function: bool,
    ids: u32,
    class: u32,
    subsystem: u32,
    /// The guest's own command register.
    command: u32,
    bars: [BarWord; BARS],
    /// Registers of its capability list, the pointer to the first among them, and what they show.
    capabilities: Vec<(u16, u32)>,
}

/// What one BAR register shows.
#[derive(Clone, Copy, Debug, Default)]
struct BarWord {
    address: u32,
    size: u32,
    /// The bits that say what kind of BAR it is, and can't be written.
    fixed: u32,
    /// What the guest wrote last, byte by byte.
    written: u32,
}

impl BarWord {
    /// The size if the guest has written ones to all bits that can be written, else the address: there is no other
    /// place where the BAR could be.
    const fn shown(self) -> u32 {
        if (self.written | self.fixed) & self.size == self.size { self.size } else { self.address }
    }
}

/// The command bits a guest can set.
const COMMAND_GUEST: u32 = COMMAND_MEMORY | COMMAND_BUS_MASTER;

impl VirtualFunction {
    fn new(host: &impl ConfigSpace, assigned: AssignedFunction, number: u8) -> Self {
        let bdf = assigned.bdf();
        let ids = host.read32(bdf, IDS);
        Self {
            guest: bdf.sibling(number),
            multi_function: number != 0,
            ids,
            class: host.read32(bdf, CLASS),
            subsystem: host.read32(bdf, SUBSYSTEM),
            command: 0,
            bars: bar_words(assigned.bars()),
            capabilities: if is_virtio(ids) { shown_capabilities(host, bdf) } else { Vec::new() },
            assigned,
        }
    }

    fn read(&self, host: &impl ConfigSpace, register: u16) -> u32 {
        match register {
            IDS => self.ids,
            COMMAND_STATUS => {
                let status = host.read32(self.assigned.bdf(), COMMAND_STATUS) & STATUS;
                let listed = if self.capabilities.is_empty() { 0 } else { STATUS_CAPABILITIES };
                status & !(STATUS_CAPABILITIES | STATUS_INTX) | listed | self.command
            }
            CLASS => self.class,
            HEADER if self.multi_function => HEADER_MULTI_FUNCTION,
            SUBSYSTEM => self.subsystem,
            _ => match bar_index(register).and_then(|i| self.bars.get(i)) {
                Some(bar) => bar.shown(),
                None => self.capabilities.iter().find(|word| word.0 == register).map_or(0, |word| word.1),
            },
        }
    }

    /// Writes the bits `mask` of a register.
    fn write(&mut self, host: &impl ConfigSpace, register: u16, value: u32, mask: u32) {
        if register == COMMAND_STATUS {
            self.command = (self.command & !mask | value & mask) & COMMAND_GUEST;
            let master = self.command & COMMAND_BUS_MASTER;
            host.write32(self.assigned.bdf(), COMMAND_STATUS, master | COMMAND_MEMORY | COMMAND_INTX_DISABLE);
        } else if let Some(bar) = bar_index(register).and_then(|i| self.bars.get_mut(i)) {
            bar.written = bar.written & !mask | value & mask;
        }
    }
}

fn bar_index(register: u16) -> Option<usize> {
    register.checked_sub(BAR0).map(|offset| usize::from(offset / 4))
}

/// The registers of the BARs at their guest addresses; of an unused register, zeros.
fn bar_words(bars: &[AssignedBar]) -> [BarWord; BARS] {
    let mut words = [BarWord::default(); BARS];
    for AssignedBar { bar, mapping, .. } in bars {
        let (address, size) = (bar.words(mapping.ipa.0), bar.size_words());
        words[bar.index] = BarWord { address: address.0, size: size.0, fixed: bar.attributes, written: 0 };
        if bar.is_64() {
            words[bar.index + 1] = BarWord { address: address.1, size: size.1, fixed: 0, written: 0 };
        }
    }
    words
}

#[cfg(test)]
mod tests;
