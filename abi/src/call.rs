//! Function numbers and argument flags.

/// The four words of the interface's UID, as the UID call returns them in w0..w3
/// (SMCCC, DEN 0028 §6.2): 53747261-6e64-4c69-8e65-4c6f67456c32.
pub const UID_WORDS: [u32; 4] = [0x6172_7453, 0x694c_646e, 0x6f4c_658e, 0x326c_4567];

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        /// A call: its SMCCC function identifier in w0 (DEN 0028 §2.5).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Call {
            $($(#[$doc])* $name = $value,)*
        }

        impl Call {
            /// Every call.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The function identifier.
            #[must_use]
            pub const fn id(self) -> u32 {
                match self {
                    $(Self::$name => $value,)*
                }
            }

            /// The call with this function identifier.
            #[must_use]
            pub const fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

calls! {
    /// Standard UID call of the vendor-specific hypervisor range: w0..w3 = [`UID_WORDS`].
    Uid = 0x8600_ff01;
    /// Standard revision call: w0 = major, w1 = minor.
    Revision = 0x8600_ff03;
    /// x1..x4 = [`Features`](crate::Features).
    Features = 0xc600_0000;
    /// Starts a log of x1 (address), x2 (bytes), x3 (granule in bytes), x4 (weakest [`Tiers`](crate::Tiers)), x5 (step).
    Start = 0xc600_0001;
    /// Reads the log: x1 (address), x2 (bytes), x3 (bitmap), x4 ([`Flags`]), x5 (step).
    Sync = 0xc600_0002;
    /// Discards what a mask names: x1 (address), x2 (bytes), x3 (mask, in and out), x4 ([`Flags`]), x5 (step).
    Clear = 0xc600_0003;
    /// Ends the log: x5 (step).
    Stop = 0xc600_0004;
    /// Writes a [`LogStatus`](crate::LogStatus) to x1, at most x2 bytes of it.
    Status = 0xc600_0005;
    /// Writes [`FaultRecord`](crate::FaultRecord)s of the caller's own devices to x1, at most x2 records.
    Faults = 0xc600_0006;
    /// Reads pages of the caller's RAM: x1 (address), x2 (bytes), x3 (buffer), x5 (step).
    Read = 0xc600_0007;
}

/// Whose writes a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// vCPUs, and EL2 on their behalf.
    Cpu,
    /// Devices, by DMA.
    Dma,
}

/// The flags of [`Call::Sync`] and [`Call::Clear`] in x4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u64);

impl Flags {
    /// Bit 0: writes of vCPUs.
    pub const CPU: Self = Self(1 << 0);
    /// Bit 1: writes of devices.
    pub const DMA: Self = Self(1 << 1);
    /// Bit 2, sync only: what is delivered leaves the log (otherwise it is kept and reported again).
    pub const CLEAR: Self = Self(1 << 2);

    /// Both kinds of writes.
    pub const BOTH: Self = Self(Self::CPU.0 | Self::DMA.0);

    /// The flags of `self` and of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits, as they go into x4.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The flags of `bits` where each is one of `allowed`, and at least one source is named.
    #[must_use]
    pub const fn checked(bits: u64, allowed: Self) -> Option<Self> {
        if bits & !allowed.0 != 0 || bits & Self::BOTH.0 == 0 {
            return None;
        }
        Some(Self(bits))
    }

    /// Whether writes of `source` are meant.
    #[must_use]
    pub const fn names(self, source: LogSource) -> bool {
        self.has(match source {
            LogSource::Cpu => Self::CPU,
            LogSource::Dma => Self::DMA,
        })
    }

    /// Whether all of `flag` is set.
    #[must_use]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_fast_64_bit_calls_of_the_vendor_hypervisor_range() {
        // DEN 0028 §2.5: bit 31 fast, bit 30 64-bit, bits 29:24 owner 6, bits 23:16 zero.
        for call in Call::ALL.iter().filter(|c| !matches!(c, Call::Uid | Call::Revision)) {
            assert_eq!(call.id() & 0xffff_0000, 0xc600_0000, "{call:?}");
            assert_eq!(Call::from_id(call.id()), Some(*call));
        }
    }

    #[test]
    fn uid_words_are_the_uid_in_the_order_of_smccc() {
        // Bytes of the UID in the order written, four to a register, the first in the lowest bits.
        let uid = [0x5374_7261_u32, 0x6e64_4c69, 0x8e65_4c6f, 0x6745_6c32];
        assert_eq!(UID_WORDS, uid.map(u32::swap_bytes));
    }

    #[test]
    fn flags_refuse_unknown_bits_and_no_source() {
        let sync = Flags::BOTH.with(Flags::CLEAR);
        assert_eq!(Flags::checked(0, sync), None);
        assert_eq!(Flags::checked(0b100, sync), None);
        assert_eq!(Flags::checked(0b1001, sync), None);
        assert_eq!(Flags::checked(0b101, Flags::BOTH), None);
        assert_eq!(Flags::checked(0b101, sync), Some(Flags::CPU.with(Flags::CLEAR)));
    }
}
