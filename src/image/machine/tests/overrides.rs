//! What a board says beside its tree, and machines without PSCI.

use strandline::smmu::{Bbml, Httu, Limits};

use super::*;

fn with_words(words: &str) -> TestTree {
    virt().set("/chosen", "strandline,overrides", words)
}

#[test]
fn machine_without_psci_is_one_whose_firmware_is_never_called() {
    assert_eq!(virt().remove("psci").read().unwrap().psci, None);
    assert_eq!(virt().set("/psci", "status", "disabled").read().unwrap().psci, None);
    let old = virt().set("/psci", "compatible", "arm,psci");
    assert_eq!(old.read().unwrap().psci, None);
}

#[test]
fn board_without_words_overrides_nothing() {
    assert_eq!(virt().read().unwrap().overrides, Overrides::default());
}

#[test]
fn every_word_takes_something_away() {
    let smmu = |words| with_words(words).read().unwrap().overrides.smmu;
    let none = Limits::default();
    assert_eq!(smmu("smmu-httu=none"), Limits { httu: Some(Httu::None), ..none });
    assert_eq!(smmu("smmu-httu=access"), Limits { httu: Some(Httu::AccessFlag), ..none });
    assert_eq!(smmu("smmu-httu=dirty"), Limits { httu: Some(Httu::Dirty), ..none });
    for (words, level) in
        [("smmu-bbml=0", Bbml::Level0), ("smmu-bbml=1", Bbml::Level1), ("smmu-bbml=2", Bbml::Level2)]
    {
        assert_eq!(smmu(words), Limits { bbml: Some(level), ..none });
    }
    let both = Limits { coherent: Some(false), range_invalidation: Some(false), ..none };
    assert_eq!(smmu(" smmu-coherent=no  smmu-range=no"), both);
    let rest = with_words("cpu-dirty=no end=semihosting").read().unwrap().overrides;
    assert_eq!((rest.smmu, rest.no_cpu_dirty, rest.semihosting), (none, true, true));
    assert_eq!(rest.text, "cpu-dirty=no end=semihosting");
}

#[test]
fn word_that_is_unknown_or_would_raise_something_is_refused() {
    for words in ["smmu-coherent=yes", "smmu-bbml=3", "cpu-dirty=yes", "end=psci", "quiet"] {
        assert_eq!(
            with_words(words).error(),
            "device tree: chosen: strandline,overrides: has a word that is none of those in docs/porting.md"
        );
    }
    let number = virt().set("/chosen", "strandline,overrides", 7_u32);
    assert_eq!(number.error(), "device tree: chosen: strandline,overrides: is not a string");
}
