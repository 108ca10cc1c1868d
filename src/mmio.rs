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
    use core::ptr::without_provenance_mut;
    use std::string::ToString;

    use super::*;

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
