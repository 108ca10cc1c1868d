//! What the calls return beside a status: values in registers and records in the caller's memory.

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// Every value, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value as records and registers carry it.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $value,)*
                }
            }

            /// The meaning of a value; `None` for one this version does not know.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }
    };
}

coded! {
    /// How a vCPU's writes come to be known.
    CpuTier {
        /// They are not: the log can't be started.
        None = 0, "none";
        /// By hardware dirty state (FEAT_HAFDBS).
        Hardware = 1, "hardware";
        /// By write-protect faults.
        Faults = 2, "write-protect faults";
    }
}

coded! {
    /// How a device's writes come to be known.
    DmaTier {
        /// The VM owns no device.
        None = 0, "none";
        /// By the SMMU's dirty state: the pages a write was translated for.
        Hardware = 1, "hardware";
        /// By stalled faults, exactly.
        Stall = 2, "stall";
        /// By comparing digests of what the pages hold.
        Digest = 3, "digest";
        /// Not at all: every page a device may write is assumed written.
        Assume = 4, "assume";
    }
}

coded! {
    /// What a log is doing.
    LogState {
        /// No log.
        Off = 0, "off";
        /// A start has been begun and not yet ended.
        Starting = 1, "starting";
        /// Writes are logged.
        On = 2, "on";
        /// A stop has been begun and not yet ended.
        Stopping = 3, "stopping";
        /// Hardware stopped answering: stop the log and start it again.
        Untrusted = 4, "untrusted";
    }
}

coded! {
    /// Where the randomness of the key of a VM's digests comes from.
    KeySource {
        /// There is no key.
        None = 0, "none";
        /// The CPU's generator (FEAT_RNG).
        Cpu = 1, "the CPU's generator";
        /// A seed that firmware has left in the device tree.
        Firmware = 2, "the firmware's seed";
        /// A counter: who knows the machine well may guess it.
        Counter = 3, "a counter";
    }
}

/// The tiers of a log, in one register: bits 7:0 the CPU's, bits 15:8 the weakest of the VM's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiers {
    /// The CPU's.
    pub cpu: CpuTier,
    /// The weakest of the VM's devices.
    pub dma: DmaTier,
}

impl Tiers {
    /// The register.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.cpu.code() as u64 | (self.dma.code() as u64) << 8
    }

    /// The tiers in a register; `None` where this version does not know one.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match (CpuTier::from_code((bits & 0xff) as u8), DmaTier::from_code((bits >> 8 & 0xff) as u8)) {
            (Some(cpu), Some(dma)) => Some(Self { cpu, dma }),
            _ => None,
        }
    }
}

/// The answer of the features call, x1..x4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// x1: version of the interface, `major << 16 | minor`.
    pub version: u32,
    /// x2: bit n is set where call 0xC600_0000 + n exists.
    pub calls: u64,
    /// x3: granules a start takes: bit n for 2^n bytes.
    pub granules: u64,
    /// x4: the tiers a log would have now.
    pub tiers: Tiers,
}

macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: u64,)*
        }

        impl $name {
            /// Its 64-bit words.
            pub const WORDS: usize = size_of::<Self>() / 8;
            /// Its bytes.
            pub const BYTES: u64 = size_of::<Self>() as u64;
            /// Its fields: name, and offset in bytes; in order.
            pub const FIELDS: &'static [(&'static str, usize)] =
                &[$((stringify!($field), core::mem::offset_of!(Self, $field)),)*];

            /// The record as the words that stand in memory, in order.
            #[must_use]
            pub const fn to_words(&self) -> [u64; size_of::<Self>() / 8] {
                [$(self.$field,)*]
            }

            /// The record of words read from memory.
            #[must_use]
            pub const fn from_words(words: [u64; size_of::<Self>() / 8]) -> Self {
                let [$($field,)*] = words;
                Self { $($field,)* }
            }
        }
    };
}

record! {
    /// State and statistics of a VM's log; later versions add fields at the end.
    LogStatus {
        /// [`LogState`].
        state,
        /// [`Tiers`] in use (of a log that would be started, where none is on).
        tiers,
        /// First address of the logged range.
        start,
        /// Bytes of the logged range; 0 where no log is on.
        bytes,
        /// 1 GiB blocks of the CPU view.
        cpu_blocks_1g,
        /// 2 MiB blocks of the CPU view.
        cpu_blocks_2m,
        /// 4 KiB pages of the CPU view.
        cpu_pages_4k,
        /// Table frames of the CPU view, root included.
        cpu_tables,
        /// 1 GiB blocks of all DMA views.
        dma_blocks_1g,
        /// 2 MiB blocks of all DMA views.
        dma_blocks_2m,
        /// 4 KiB pages of all DMA views.
        dma_pages_4k,
        /// Table frames of all DMA views, roots included.
        dma_tables,
        /// Blocks split by starts so far, in all views.
        blocks_split,
        /// Blocks made by merging in stops so far, in all views.
        blocks_merged,
        /// Pages reported by syncs so far.
        pages_reported,
        /// Commands issued to the SMMUs in front of the VM's devices so far.
        smmu_commands,
        /// Of these: CMD_TLBI_S12_VMALL.
        smmu_tlbi_vmall,
        /// Of these: CMD_TLBI_S2_IPA.
        smmu_tlbi_ipa,
        /// Of these: CMD_SYNC.
        smmu_syncs,
        /// Frames that are free for tables.
        free_frames,
        /// Write-protect faults of the VM's vCPUs that were answered so far.
        write_faults,
        /// [`KeySource`] of the key of its digests.
        key_source,
        /// How often starts and stops held the vCPUs so far, to change the size of their translations.
        holds,
        /// EL2's memory for the digest of a page, in bytes.
        digest_bytes,
        /// How long reading a page takes, in nanoseconds: measured at boot; 0 where it was not.
        page_read_ns,
        /// The same of reading it and making its digest.
        page_digest_ns,
        /// Blocks split by syncs and clears of adaptive logs so far, in all views.
        splits_by_syncs,
        /// Blocks made by merging in syncs and clears of adaptive logs so far, in all views.
        merges_by_syncs,
        /// Blocks that were found dirty and stayed blocks so far, in all views: no frame was free, or a step had split as many
        /// as it may.
        splits_refused,
    }
}

record! {
    /// A device of the VM's, and how its writes come to be known.
    DeviceRecord {
        /// Its stream identifier (a PCI function's requester ID).
        stream,
        /// [`DmaTier`].
        tier,
    }
}

record! {
    /// One access of a device that the SMMU stopped.
    FaultRecord {
        /// The device's stream identifier (a PCI function's requester ID).
        stream,
        /// Kind of event, as IHI 0070 §7.3 numbers it: 0x10 translation, 0x13 permission, ...
        kind,
        /// The guest address it aimed at.
        ipa,
        /// Bit 0: it was a write (else a read). Bit 1: it was an instruction fetch.
        access,
    }
}

impl FaultRecord {
    /// [`FaultRecord::access`]: a write.
    pub const WRITE: u64 = 1 << 0;
    /// [`FaultRecord::access`]: an instruction fetch.
    pub const FETCH: u64 = 1 << 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_stand_in_their_bytes() {
        let tiers = Tiers { cpu: CpuTier::Hardware, dma: DmaTier::Assume };
        assert_eq!(tiers.to_bits(), 0x401);
        assert_eq!(Tiers::from_bits(0x401), Some(tiers));
        assert_eq!(Tiers::from_bits(0x4ff), None);
    }

    #[test]
    fn records_are_words_in_the_order_of_the_contract() {
        assert_eq!((LogStatus::BYTES, FaultRecord::BYTES), (232, 32));
        let fault = FaultRecord { stream: 8, kind: 0x10, ipa: 0x1000, access: FaultRecord::WRITE };
        assert_eq!(fault.to_words(), [8, 0x10, 0x1000, 1]);
        let words: [u64; LogStatus::WORDS] = core::array::from_fn(|i| i as u64);
        let status = LogStatus::from_words(words);
        assert_eq!((status.state, status.bytes, status.dma_tables, status.free_frames), (0, 3, 11, 19));
        assert_eq!(status.to_words(), words);
    }
}
