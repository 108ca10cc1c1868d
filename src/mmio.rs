//! The one unsafe step of an embedder who has an SMMU at an address: from there to [`Mmio`].
#![expect(unsafe_code, reason = "references to registers at an address that the caller vouches for")]

use core::fmt;

use crate::smmu::Mmio;

/// What each of the two register pages is aligned to, and how far the second one is from the first (IHI 0070 §6.1).
const PAGE_BYTES: usize = 0x1_0000;

/// Why no SMMU's registers can be at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadBase {
    /// It is zero.
    Null,
    /// It is not a multiple of 64 KiB; carries it.
    Unaligned(usize),
    /// The second register page would wrap around; carries the address.
    Wraps(usize),
}

impl fmt::Display for BadBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("no SMMU is at address 0"),
            Self::Unaligned(base) => {
                write!(f, "an SMMU's registers are at a multiple of 64 KiB, not at {base:#x}")
            }
            Self::Wraps(base) => {
                write!(f, "the SMMU's second register page would wrap around from {base:#x}")
            }
        }
    }
}

impl Mmio {
    /// The SMMU whose two register pages (128 KiB in all, IHI 0070 §6.1) are mapped at `base`.
    ///
    /// What is *at* the address is asked for later: [`Smmu::new`](crate::smmu::Smmu::new) refuses ID registers that are no
    /// SMMUv3's by name.
    ///
    /// # Errors
    /// No SMMU's registers can be at such an address.
    ///
    /// # Safety
    /// 1. From `base` on 128 KiB are mapped, as Device-nGnRE memory or stronger, for ever.
    /// 2. An SMMUv3's non-secure registers are there, or nothing that is changed by being read or written.
    /// 3. Nobody else accesses them.
    pub unsafe fn at(base: *mut u8) -> Result<Self, BadBase> {
        match base.addr() {
            0 => return Err(BadBase::Null),
            address if !address.is_multiple_of(PAGE_BYTES) => return Err(BadBase::Unaligned(address)),
            address if address.checked_add(2 * PAGE_BYTES - 1).is_none() => {
                return Err(BadBase::Wraps(address));
            }
            _ => {}
        }
        // SAFETY: 1. mapped, for ever; aligned and not null as checked. 2. The fields are cells: shared references are how
        // registers are accessed. 3. The driver, which takes the value, is the only one who does.
        let (page0, page1) = unsafe { (&*base.cast(), &*base.wrapping_add(PAGE_BYTES).cast()) };
        Ok(Self::new(page0, page1))
    }
}

#[cfg(test)]
mod tests {
    use core::cell::UnsafeCell;
    use core::ptr::without_provenance_mut;
    use std::boxed::Box;
    use std::string::ToString;

    use super::*;
    use crate::smmu::{Register32, Register64, Registers};

    /// Register pages that are memory, and how a test sees them.
    fn pages() -> (Mmio, *mut u8) {
        #[repr(C, align(65536))]
        struct Pages(UnsafeCell<[u8; 2 * PAGE_BYTES]>);
        let base = Box::leak(Box::new(Pages(UnsafeCell::new([0; 2 * PAGE_BYTES])))).0.get().cast();
        // SAFETY: 1. it is leaked, and as large as it is to be. 2. It is memory. 3. This thread is the only one.
        (unsafe { Mmio::at(base) }.unwrap(), base)
    }

    /// The offsets of IHI 0070 §6.2.
    const READ_WRITE: [(Register32, usize); 11] = [
        (Register32::Cr0, 0x20),
        (Register32::Cr1, 0x28),
        (Register32::Cr2, 0x2c),
        (Register32::Gbpa, 0x44),
        (Register32::IrqCtrl, 0x50),
        (Register32::Gerrorn, 0x64),
        (Register32::StrtabBaseCfg, 0x88),
        (Register32::CmdqProd, 0x98),
        (Register32::CmdqCons, 0x9c),
        (Register32::EventqProd, 0x1_00a8),
        (Register32::EventqCons, 0x1_00ac),
    ];
    const READ_ONLY: [(Register32, usize); 9] = [
        (Register32::Idr0, 0x0),
        (Register32::Idr1, 0x4),
        (Register32::Idr3, 0xc),
        (Register32::Idr5, 0x14),
        (Register32::Iidr, 0x18),
        (Register32::Aidr, 0x1c),
        (Register32::Cr0Ack, 0x24),
        (Register32::IrqCtrlAck, 0x54),
        (Register32::Gerror, 0x60),
    ];
    const WIDE: [(Register64, usize); 5] = [
        (Register64::GerrorIrqCfg0, 0x68),
        (Register64::StrtabBase, 0x80),
        (Register64::CmdqBase, 0x90),
        (Register64::EventqBase, 0xa0),
        (Register64::EventqIrqCfg0, 0xb0),
    ];

    #[test]
    fn each_register_is_read_and_written_where_the_specification_has_it() {
        for (value, (register, offset)) in (0x1234_5601..).zip(READ_WRITE.into_iter().chain(READ_ONLY)) {
            let (mmio, base) = pages();
            let word = base.wrapping_add(offset).cast::<u32>();
            // SAFETY: inside the pages, and aligned.
            unsafe { word.write_volatile(value) };
            assert_eq!(mmio.read32(register), value, "{register:?}");
            mmio.write32(register, !value);
            // SAFETY: as above.
            let left = unsafe { word.read_volatile() };
            let read_only = READ_ONLY.iter().any(|(of, _)| *of == register);
            assert_eq!(left, if read_only { value } else { !value }, "{register:?}");
        }
        for (register, offset) in WIDE {
            let (mmio, base) = pages();
            mmio.write64(register, 0x1234_5678_9abc_def0);
            // SAFETY: inside the pages, and aligned.
            let value = unsafe { base.wrapping_add(offset).cast::<u64>().read_volatile() };
            assert_eq!(value, 0x1234_5678_9abc_def0, "{register:?}");
        }
        let (mmio, base) = pages();
        assert_eq!(format!("{mmio:?}"), format!("an SMMU's registers at {base:p}"));
    }

    #[test]
    fn addresses_where_no_smmu_can_be_are_refused_by_name() {
        // SAFETY: each is refused before anything is accessed.
        let refused = |address| unsafe { Mmio::at(without_provenance_mut(address)) }.err();
        assert_eq!(refused(0), Some(BadBase::Null));
        assert_eq!(refused(0x905_1000), Some(BadBase::Unaligned(0x905_1000)));
        let last = usize::MAX & !0xffff;
        assert_eq!(refused(last), Some(BadBase::Wraps(last)));
        assert_eq!(
            BadBase::Unaligned(0x905_1000).to_string(),
            "an SMMU's registers are at a multiple of 64 KiB, not at 0x9051000"
        );
    }
}
