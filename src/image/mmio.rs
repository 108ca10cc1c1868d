//! Decodes the abort of a guest's load or store to an address that is emulated, and gives the load its value.
//!
//! The syndrome describes loads and stores of one general-purpose register without write-back (Arm ARM, ESR_EL2, ISS
//! encoding for an exception from a Data Abort). Whatever it does not describe is not emulated, and [`NotMmio`] says
//! which case it was.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use strandline::addr::Ipa;

/// How many bytes a load or store moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Double,
}

impl Width {
    /// The width as a number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.bits() as u64 / 8
    }

    /// The width as a number of bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Byte => 8,
            Self::Half => 16,
            Self::Word => 32,
            Self::Double => 64,
        }
    }

    /// A value with the width's bits set.
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }
}

/// One load or store of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioAccess {
    /// The guest address; nothing says that it is a multiple of the width.
    pub ipa: Ipa,
    /// How much is loaded or stored.
    pub width: Width,
    /// A store, else a load.
    pub write: bool,
    /// The register stored or loaded: 0 to 30 for x0 to x30, 31 for the zero register.
    pub register: u8,
    /// The value loaded is sign-extended, else zero-extended.
    pub sign_extend: bool,
    /// The register is an X register, else a W register.
    pub sixty_four: bool,
}

/// Why an abort is no access that can be emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMmio {
    /// No data abort of a lower exception level; carries ESR_EL2.EC.
    OtherException(u8),
    /// The guest's page tables lie in memory that isn't there (S1PTW).
    StageOneWalk,
    /// A cache maintenance or address translation instruction (CM).
    CacheMaintenance,
    /// The address is mapped, but not for this kind of access.
    Permission,
    /// The address is mapped, with an access flag of zero.
    AccessFlag,
    /// Some other fault; carries ESR_EL2.ISS.DFSC.
    OtherFault(u8),
    /// An instruction that the syndrome doesn't describe (ISV is 0): a pair, an exclusive, an atomic, a vector, a
    /// form with write-back.
    NoSyndrome,
    /// A 64-byte load or store (LST).
    SixtyFourBytes,
    /// FAR_EL2 doesn't hold the address (FnV).
    NoAddress,
}

impl fmt::Display for NotMmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherException(ec) => write!(f, "exception class {ec:#04x} is no data abort of a guest"),
            Self::StageOneWalk => f.write_str("the guest's page tables lie outside its memory"),
            Self::CacheMaintenance => f.write_str("cache maintenance or address translation of a device address"),
            Self::Permission => f.write_str("access not permitted"),
            Self::AccessFlag => f.write_str("access flag not set"),
            Self::OtherFault(dfsc) => write!(f, "data fault status {dfsc:#04x}"),
            Self::NoSyndrome => f.write_str(
                "device register accessed by an instruction that can't be emulated (a pair, an exclusive, an atomic, a \
                 vector or one with write-back)",
            ),
            Self::SixtyFourBytes => f.write_str("device register accessed by a 64-byte load or store"),
            Self::NoAddress => f.write_str("the faulting address is not known"),
        }
    }
}

/// ESR_EL2.EC of a data abort from a lower exception level.
const EC_DATA_ABORT_LOWER: u64 = 0x24;
/// ISS.ISV: the syndrome describes the instruction.
const ISV: u64 = 1 << 24;
/// ISS.SSE: sign-extend.
const SSE: u64 = 1 << 21;
/// ISS.SF: an X register.
const SF: u64 = 1 << 15;
/// ISS.LST: which 64-byte instruction it was, 0 for none.
const LST: u64 = 0b11 << 11;
/// ISS.FnV: FAR is not valid.
const FNV: u64 = 1 << 10;
/// ISS.CM: cache maintenance.
const CM: u64 = 1 << 8;
/// ISS.S1PTW: fault on a stage-1 walk.
const S1PTW: u64 = 1 << 7;
/// ISS.WNR: a write.
const WNR: u64 = 1 << 6;

/// Decodes the abort that ESR_EL2, FAR_EL2 and HPFAR_EL2 describe.
///
/// Only a translation fault is an access to be emulated: an emulated address is never mapped, and HPFAR_EL2 is UNKNOWN
/// after a permission fault.
///
/// # Errors
/// The reason why the access can't be emulated.
pub fn decode(esr: u64, far: u64, hpfar: u64) -> Result<MmioAccess, NotMmio> {
    let class = esr >> 26 & 0x3f;
    if class != EC_DATA_ABORT_LOWER {
        return Err(NotMmio::OtherException(class as u8));
    }
    if is_walk(esr) {
        return Err(NotMmio::StageOneWalk);
    }
    match esr & 0x3f {
        0b00_0100..=0b00_0111 => {}
        0b00_1000..=0b00_1011 => return Err(NotMmio::AccessFlag),
        0b00_1100..=0b00_1111 => return Err(NotMmio::Permission),
        other => return Err(NotMmio::OtherFault(other as u8)),
    }
    if esr & FNV != 0 {
        return Err(NotMmio::NoAddress);
    }
    if esr & CM != 0 {
        return Err(NotMmio::CacheMaintenance);
    }
    if esr & LST != 0 {
        return Err(NotMmio::SixtyFourBytes);
    }
    if esr & ISV == 0 {
        return Err(NotMmio::NoSyndrome);
    }
    Ok(MmioAccess {
        ipa: faulting_ipa(far, hpfar),
        width: [Width::Byte, Width::Half, Width::Word, Width::Double][(esr >> 22 & 0b11) as usize],
        write: esr & WNR != 0,
        register: (esr >> 16 & 0x1f) as u8,
        sign_extend: esr & SSE != 0,
        sixty_four: esr & SF != 0,
    })
}

/// Whether it was the guest's own page tables that an abort found no memory for. Data and instruction aborts tell it in
/// the same place.
#[must_use]
pub const fn is_walk(esr: u64) -> bool {
    esr & S1PTW != 0
}

/// The faulting guest address: its page from HPFAR_EL2.FIPA (bits 47:4), the offset in the page from FAR_EL2.
#[must_use]
pub const fn faulting_ipa(far: u64, hpfar: u64) -> Ipa {
    let page = hpfar >> 4 & ((1 << 44) - 1);
    Ipa(page << 12 | far & 0xfff)
}

/// Where a guest's abort happened, for messages: the guest address, or after a permission fault, for which HPFAR_EL2 is
/// UNKNOWN, the guest's virtual one. Data and instruction aborts have their fault status in the same place.
#[must_use]
pub fn place_of_fault(esr: u64, far: u64, hpfar: u64) -> String {
    const STATUS: u64 = 0b11_1100;
    const PERMISSION: u64 = 0b00_1100;
    if esr & STATUS == PERMISSION {
        format!("virtual address {far:#x}")
    } else {
        faulting_ipa(far, hpfar).to_string()
    }
}

impl MmioAccess {
    /// Where in the `bytes` from `start` the access is; `None` where any of its bytes lies outside.
    #[must_use]
    pub fn offset_in(&self, start: Ipa, bytes: u64) -> Option<u64> {
        let offset = self.ipa.0.checked_sub(start.0)?;
        let end = offset.checked_add(self.width.bytes())?;
        (end <= bytes).then_some(offset)
    }

    /// The value a store stores: the access's bytes of the register, above them zero.
    #[must_use]
    pub fn stored(&self, registers: &[u64; 31]) -> u64 {
        registers.get(usize::from(self.register)).copied().unwrap_or(0) & self.width.mask()
    }

    /// Gives the load's register the value the device answered; of `value`, only the access's bytes count.
    pub fn load(&self, registers: &mut [u64; 31], value: u64) {
        if let Some(register) = registers.get_mut(usize::from(self.register)) {
            *register = self.extended(value);
        }
    }

    /// What the register holds after a load of `value`: sign-extended where the instruction says so, to 32 bits where
    /// it names a W register (whose write clears the upper half).
    fn extended(&self, value: u64) -> u64 {
        let unused = 64 - self.width.bits();
        let value = if self.sign_extend {
            ((value << unused).cast_signed() >> unused).cast_unsigned()
        } else {
            value & self.width.mask()
        };
        if self.sixty_four { value } else { value & Width::Word.mask() }
    }
}

#[cfg(test)]
mod tests;
