//! From a stage-2 tree to the STE that selects it (IHI 0070 §5.2), computed once for a view and copied into the STE of
//! each of its streams.

use crate::addr::{PAGE_SHIFT, Pa, Vmid};
use crate::address_space::DmaView;
use crate::hw::DmaRoot;

use super::error::Stage2Error;
use super::features::{Features, Httu, StallModel};
use super::spec::ste::{STE_WORDS, STE0, STE1, STE2, STE3};

/// The least IPA bits a VMSAv8-64 walk takes without small translation tables (S2T0SZ at most 39).
const LEAST_IPA_BITS: u32 = 25;
/// The most without LPA2, of an IPA and of an output address.
const MOST_BITS: u32 = 48;
/// Bits one level of 4 KiB tables resolves.
const BITS_PER_LEVEL: u32 = 9;
/// Concatenating up to 16 tables at the start level resolves so many bits more.
const CONCATENATION_BITS: u32 = 4;

/// A stage-2 view as an SMMU is told of it: 4 KiB granule, VMSAv8-64, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2Config {
    /// Tags the view's TLB entries. All STEs with one VMID must agree in everything here (§5.2.1).
    pub vmid: Vmid,
    /// The first root table, aligned to the size of all of them.
    pub root: Pa,
    /// Bits of an IPA: 25 to 48, and no more than [`Features::input_bits`].
    pub ipa_bits: u32,
    /// The level at which walks begin: 0, 1 or 2.
    pub start_level: u8,
    /// Bits of an output address: 32, 36, 40, 42, 44 or 48. More than [`Features::output_bits`] is as good as that.
    pub output_bits: u32,
    /// What hardware updates in the tree: what its view says
    /// ([`DmaView::hardware_update`](crate::address_space::DmaView::hardware_update)).
    pub hardware_update: Httu,
}

impl Stage2Config {
    /// `dma`, as its tree and its tier have it.
    #[must_use]
    pub fn of<D>(dma: &DmaView<'_, D>) -> Self {
        let tree = &dma.view.tree;
        Self {
            vmid: dma.view.walker.vmid,
            root: tree.root(),
            ipa_bits: tree.format().ipa_bits().into(),
            start_level: tree.format().start_level(),
            output_bits: MOST_BITS,
            hardware_update: dma.hardware_update(),
        }
    }
}

/// The STE of every stream of one view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ViewSte {
    words: [u64; STE_WORDS],
}

impl ViewSte {
    /// The STE that sends a stream through `config` on an SMMU that can do `features`: stage 2 alone, faults
    /// terminated and recorded, ATS off.
    ///
    /// # Errors
    /// What the specification makes ILLEGAL, and a root the SMMU would silently align down.
    pub fn new(config: &Stage2Config, features: &Features) -> Result<Self, Stage2Error> {
        config.check(features)?;
        let mut words = [0; STE_WORDS];
        words[0] = (STE0::V::SET + STE0::CONFIG::Stage2).value;
        words[1] = word1(features);
        words[2] = word2(config, features);
        words[3] = STE3::S2TTB.val(config.root.0 >> STE3::S2TTB.shift).value;
        Ok(Self { words })
    }

    /// The same for a stream that may stall (S2S; not among what STEs of one VMID must agree in, §5.2.1).
    ///
    /// # Errors
    /// The SMMU never stalls: the STE would be ILLEGAL (§5.5).
    pub fn stalling(mut self, features: &Features) -> Result<Self, Stage2Error> {
        if features.stall_model != StallModel::Both {
            return Err(Stage2Error::Stall);
        }
        self.words[2] |= STE2::S2S::SET.value;
        Ok(self)
    }

    /// The VMID of its view.
    #[must_use]
    pub const fn vmid(&self) -> Vmid {
        Vmid(self.words[2] as u16)
    }

    /// The words, word 0 with V=1.
    #[must_use]
    pub const fn words(&self) -> &[u64; STE_WORDS] {
        &self.words
    }
}

/// Words 2 and 3 of an STE, which are `words`, with the VMID and the tree of `to`; the rest of them stays: the two trees
/// differ in nothing else that an STE says.
pub(super) fn with_tree([word2, word3]: [u64; 2], to: DmaRoot) -> [u64; 2] {
    let (vmid, root) =
        (STE2::S2VMID.val(u64::from(to.vmid.0)), STE3::S2TTB.val(to.root.0 >> STE3::S2TTB.shift));
    [vmid.modify(word2), root.modify(word3)]
}

fn word1(features: &Features) -> u64 {
    let shareability = if features.attribute_override { STE1::SHCFG::Incoming.value } else { 0 };
    STE1::EATS::Off.value | shareability
}

fn word2(config: &Stage2Config, features: &Features) -> u64 {
    let mut word = STE2::S2VMID.val(u64::from(config.vmid.0))
        + STE2::S2T0SZ.val(u64::from(64 - config.ipa_bits))
        + STE2::S2SL0.val(u64::from(2 - config.start_level))
        + STE2::S2TG::Granule4K
        + STE2::S2PS.val(encode_output_bits(config.output_bits.min(features.output_bits)))
        + STE2::S2AA64::SET
        // Ignored while stage 2 translates alone. Set, so that a stage-1 walk or context descriptor in Device memory
        // would fault and not read a device's registers.
        + STE2::S2PTW::SET
        + STE2::S2R::SET;
    word += if features.coherent {
        STE2::S2IR0::WriteBack + STE2::S2OR0::WriteBack + STE2::S2SH0::Inner
    } else {
        STE2::S2IR0::NonCacheable + STE2::S2OR0::NonCacheable + STE2::S2SH0::Outer
    };
    word += match config.hardware_update {
        // AF is 1 in every leaf of this library; a descriptor without it is no reason to fault.
        Httu::None => STE2::S2AFFD::SET,
        Httu::AccessFlag => STE2::S2HA::SET,
        Httu::Dirty => STE2::S2HA::SET + STE2::S2HD::SET,
        Httu::TableAccessFlag => STE2::S2HA::SET + STE2::S2HD::SET + STE2::S2HAFT::SET,
    };
    word.value
}

/// The encoding of IDR5.OAS; `bits` is one of its sizes.
const fn encode_output_bits(bits: u32) -> u64 {
    match bits {
        32 => 0,
        36 => 1,
        40 => 2,
        42 => 3,
        44 => 4,
        _ => 5,
    }
}

impl Stage2Config {
    fn check(&self, features: &Features) -> Result<(), Stage2Error> {
        if !features.vmid16 && self.vmid.0 > 0xff {
            return Err(Stage2Error::Vmid(self.vmid));
        }
        if self.hardware_update > features.httu {
            return Err(Stage2Error::HardwareUpdate {
                asked: self.hardware_update,
                available: features.httu,
            });
        }
        if !matches!(self.output_bits, 32 | 36 | 40 | 42 | 44 | 48) {
            return Err(Stage2Error::OutputBits(self.output_bits));
        }
        self.check_walk(features)
    }

    /// The walk is one the tables can have (Arm ARM D8.2, as §5.2 asks of S2T0SZ, S2SL0 and S2TTB).
    fn check_walk(&self, features: &Features) -> Result<(), Stage2Error> {
        let Self { ipa_bits, start_level, root, .. } = *self;
        let most = features.input_bits().min(MOST_BITS);
        if !(LEAST_IPA_BITS..=most).contains(&ipa_bits) {
            return Err(Stage2Error::IpaBits { asked: ipa_bits, most });
        }
        // A walk of 4 KiB tables begins at level 0 only where addresses have 44 bits or more.
        let highest = if features.output_bits < 44 { 1 } else { 0 };
        if !(highest..=2).contains(&start_level) {
            return Err(Stage2Error::StartLevel { level: start_level, ipa_bits });
        }
        // Below the start level each level resolves nine bits; the start level resolves at least one, and with
        // concatenated tables at most thirteen.
        let below = PAGE_SHIFT + BITS_PER_LEVEL * (3 - u32::from(start_level));
        if !(below + 1..=below + BITS_PER_LEVEL + CONCATENATION_BITS).contains(&ipa_bits) {
            return Err(Stage2Error::StartLevel { level: start_level, ipa_bits });
        }
        let bytes = (8u64 << (ipa_bits - below)).max(64);
        if !root.is_aligned(bytes) {
            return Err(Stage2Error::RootUnaligned { root, bytes });
        }
        if root.0 >> self.output_bits.min(features.output_bits) != 0 {
            return Err(Stage2Error::RootOutOfRange(root));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::smmu::testing::{FULL_FEATURES, QEMU_FEATURES};

    /// VMID 5, 39 IPA bits from level 1, one root table.
    const CONFIG: Stage2Config = Stage2Config {
        vmid: Vmid(5),
        root: Pa(0x4123_4000),
        ipa_bits: 39,
        start_level: 1,
        output_bits: 44,
        hardware_update: Httu::None,
    };

    fn words(config: Stage2Config, features: &Features) -> [u64; STE_WORDS] {
        *ViewSte::new(&config, features).unwrap().words()
    }

    fn refusal(config: Stage2Config) -> Stage2Error {
        ViewSte::new(&config, &QEMU_FEATURES).unwrap_err()
    }

    #[test]
    fn ste_of_a_coherent_view_is_the_word_worked_out_by_hand() {
        // Word 2: VMID 0x5; T0SZ 64-39=25=0x19; SL0 2-1=1 at bit 38; IR0=OR0=0b01 at 40 and 42; SH0=0b11 at 44;
        // PS=0b100 at 48; AA64 51; AFFD 53; PTW 54; R 58.
        assert_eq!(
            words(CONFIG, &QEMU_FEATURES),
            [0xd, 0, 0x046c_3559_0000_0005, 0x0000_0000_4123_4000, 0, 0, 0, 0]
        );
    }

    #[test]
    fn incoming_shareability_is_asked_for_only_where_it_can_be_overridden() {
        assert_eq!(words(CONFIG, &FULL_FEATURES)[1], 0x0000_1000_0000_0000);
        assert_eq!(words(CONFIG, &QEMU_FEATURES)[1], 0);
    }

    #[test]
    fn hardware_update_replaces_the_access_flag_fault_control() {
        let with = |hardware_update| words(Stage2Config { hardware_update, ..CONFIG }, &FULL_FEATURES)[2];
        assert_eq!(with(Httu::None), 0x046c_3559_0000_0005);
        assert_eq!(with(Httu::AccessFlag), 0x054c_3559_0000_0005);
        assert_eq!(with(Httu::Dirty), 0x05cc_3559_0000_0005);
        // S2HAFT is bit 187 of the entry: 59 of word 2.
        assert_eq!(with(Httu::TableAccessFlag), 0x0dcc_3559_0000_0005);
    }

    #[test]
    fn stream_that_may_stall_has_one_bit_more_and_none_where_nothing_stalls() {
        // S2S is bit 185 of the entry: 57 of word 2.
        let stalls = Features { stall_model: StallModel::Both, ..QEMU_FEATURES };
        let ste = ViewSte::new(&CONFIG, &stalls).unwrap();
        let stalling = ste.stalling(&stalls).unwrap();
        assert_eq!(stalling.words()[2], 0x066c_3559_0000_0005);
        assert_eq!(ste.stalling(&QEMU_FEATURES), Err(Stage2Error::Stall));
    }

    #[test]
    fn walks_of_an_smmu_that_is_not_coherent_are_not_cacheable() {
        let features = Features { coherent: false, httu: Httu::None, ..QEMU_FEATURES };
        // IR0=OR0=0, SH0=0b10.
        assert_eq!(words(CONFIG, &features)[2], 0x046c_2059_0000_0005);
    }

    #[test]
    fn start_level_is_encoded_as_two_less_the_level() {
        let level2 = Stage2Config { ipa_bits: 30, start_level: 2, ..CONFIG };
        assert_eq!(words(level2, &QEMU_FEATURES)[2], 0x046c_3522_0000_0005);
        let level0 = Stage2Config { ipa_bits: 44, start_level: 0, ..CONFIG };
        assert_eq!(words(level0, &QEMU_FEATURES)[2], 0x046c_3594_0000_0005);
    }

    #[test]
    fn output_size_is_the_smaller_of_what_is_asked_and_what_there_is() {
        let output_bits =
            |output_bits| words(Stage2Config { output_bits, ..CONFIG }, &QEMU_FEATURES)[2] >> 48 & 7;
        assert_eq!([32, 36, 40, 42, 44, 48].map(output_bits), [0, 1, 2, 3, 4, 4]);
    }

    #[test]
    fn sixteen_bit_vmid_is_taken_only_where_the_smmu_has_them() {
        let config = Stage2Config { vmid: Vmid(0x1234), ..CONFIG };
        assert_eq!(words(config, &QEMU_FEATURES)[2] & 0xffff, 0x1234);
        let features = Features { vmid16: false, ..QEMU_FEATURES };
        assert_eq!(ViewSte::new(&config, &features), Err(Stage2Error::Vmid(Vmid(0x1234))));
        assert!(ViewSte::new(&Stage2Config { vmid: Vmid(0xff), ..CONFIG }, &features).is_ok());
    }

    #[test]
    fn more_hardware_update_than_there_is_is_refused() {
        assert_eq!(
            refusal(Stage2Config { hardware_update: Httu::Dirty, ..CONFIG }),
            Stage2Error::HardwareUpdate { asked: Httu::Dirty, available: Httu::None }
        );
    }

    #[test]
    fn ipa_sizes_outside_what_the_smmu_takes_are_refused() {
        for asked in [0, 24, 45, 64, u32::MAX] {
            let config = Stage2Config { ipa_bits: asked, ..CONFIG };
            assert_eq!(refusal(config), Stage2Error::IpaBits { asked, most: 44 });
        }
    }

    #[test]
    fn start_levels_take_the_sizes_of_the_architecture() {
        let legal = |start_level, ipa_bits| {
            let root = Pa(0x4000_0000);
            ViewSte::new(&Stage2Config { start_level, ipa_bits, root, ..CONFIG }, &FULL_FEATURES).is_ok()
        };
        assert!(legal(2, 25) && legal(2, 34) && !legal(2, 35));
        assert!(!legal(1, 30) && legal(1, 31) && legal(1, 43) && !legal(1, 44));
        assert!(!legal(0, 39) && legal(0, 40) && legal(0, 48));
        assert!(!legal(3, 25) && !legal(0xff, 25));
    }

    #[test]
    fn walk_starts_at_level_0_only_where_addresses_have_44_bits() {
        let features = Features { output_bits: 42, ..QEMU_FEATURES };
        let level0 = Stage2Config { ipa_bits: 42, start_level: 0, ..CONFIG };
        assert_eq!(ViewSte::new(&level0, &features), Err(Stage2Error::StartLevel { level: 0, ipa_bits: 42 }));
        let level1 = Stage2Config { start_level: 1, root: Pa(0x4000_0000), ..level0 };
        assert!(ViewSte::new(&level1, &features).is_ok());
    }

    #[test]
    fn root_is_aligned_to_all_concatenated_tables() {
        // 41 bits from level 1: four root tables, 16 KiB.
        let config = Stage2Config { ipa_bits: 41, root: Pa(0x4000_2000), ..CONFIG };
        assert_eq!(refusal(config), Stage2Error::RootUnaligned { root: Pa(0x4000_2000), bytes: 0x4000 });
        assert!(ViewSte::new(&Stage2Config { root: Pa(0x4000_4000), ..config }, &QEMU_FEATURES).is_ok());
    }

    #[test]
    fn root_beyond_the_output_size_is_refused() {
        let root = Pa(1 << 44);
        assert_eq!(refusal(Stage2Config { root, ..CONFIG }), Stage2Error::RootOutOfRange(root));
        let small = Stage2Config { root: Pa(1 << 32), output_bits: 32, ..CONFIG };
        assert_eq!(refusal(small), Stage2Error::RootOutOfRange(Pa(1 << 32)));
    }

    #[test]
    fn refusals_carry_the_value_that_was_asked_for() {
        for (error, text) in [
            (Stage2Error::IpaBits { asked: 50, most: 44 }, "50 IPA bits asked for, 25 to 44 are possible"),
            (
                Stage2Error::StartLevel { level: 0, ipa_bits: 42 },
                "a walk of 42 IPA bits cannot start at level 0",
            ),
            (Stage2Error::OutputBits(41), "no address size has 41 bits: 32, 36, 40, 42, 44 or 48"),
            (Stage2Error::Vmid(Vmid(0x123)), "VMID 0x123 has more than 8 bits, the SMMU has 8"),
            (Stage2Error::Stall, "the SMMU cannot stall transactions"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
