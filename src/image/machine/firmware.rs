//! How the machine is switched off, and what a board says that no other part of the tree does.
//!
//! A board's own words stand in `/chosen/strandline,overrides`, a string. They may take an ability away, never give one:
//!
//! | word | meaning |
//! |---|---|
//! | `smmu-httu=none`, `=access`, `=dirty` | no SMMU is relied on for more hardware update than this |
//! | `smmu-bbml=0`, `=1`, `=2` | nor for a higher break-before-make level |
//! | `smmu-coherent=no` | no SMMU is coherent, whatever its node says |
//! | `smmu-range=no` | SMMUs are not told of ranges by one command |
//! | `cpu-dirty=no` | CPUs' hardware dirty state is not used |
//! | `end=semihosting` | the machine ends by a semihosting call (an emulator, without PSCI) |

use strandline::smmu::{Bbml, Httu, Limits};

use super::TreeError;
use super::tree::Tree;

/// How PSCI is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// By `SMC #0`.
    Smc,
    /// By `HVC #0`.
    Hvc,
}

impl Conduit {
    /// The conduit that the PSCI node names; `None` where no PSCI of version 0.2 or later is named: firmware that nobody
    /// speaks of is never called.
    ///
    /// # Errors
    /// PSCI is there, and names no conduit.
    pub fn read(tree: Tree) -> Result<Option<Self>, TreeError> {
        let names = ["arm,psci-1.0", "arm,psci-0.2"];
        let Some(place) = tree.find(&mut |p| Ok(p.compatible_with(&names).is_some()))? else {
            return Ok(None);
        };
        match place.string("method") {
            Some("smc") => Ok(Some(Self::Smc)),
            Some("hvc") => Ok(Some(Self::Hvc)),
            _ => Err(place.wrong("method", "is neither \"smc\" nor \"hvc\"")),
        }
    }
}

const OVERRIDES: &str = "strandline,overrides";

/// What a board's own words say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The words themselves.
    pub text: &'static str,
    /// What no SMMU is relied on for.
    pub smmu: Limits,
    /// CPUs' hardware dirty state is not used.
    pub no_cpu_dirty: bool,
    /// The machine ends by a semihosting call.
    pub semihosting: bool,
}

impl Overrides {
    /// The board's words; none where there is no such property.
    ///
    /// # Errors
    /// One of them is unknown.
    pub fn read(tree: Tree) -> Result<Self, TreeError> {
        let mut overrides = Self::default();
        let Some(chosen) = tree.by_path("/chosen")?.filter(|c| c.property(OVERRIDES).is_some()) else {
            return Ok(overrides);
        };
        overrides.text =
            chosen.string(OVERRIDES).ok_or_else(|| chosen.wrong(OVERRIDES, "is not a string"))?;
        for word in overrides.text.split_ascii_whitespace() {
            if !overrides.take(word) {
                return Err(chosen.wrong(OVERRIDES, "has a word that is none of those in docs/porting.md"));
            }
        }
        Ok(overrides)
    }

    fn take(&mut self, word: &str) -> bool {
        match word {
            "smmu-httu=none" => self.smmu.httu = Some(Httu::None),
            "smmu-httu=access" => self.smmu.httu = Some(Httu::AccessFlag),
            "smmu-httu=dirty" => self.smmu.httu = Some(Httu::Dirty),
            "smmu-bbml=0" => self.smmu.bbml = Some(Bbml::Level0),
            "smmu-bbml=1" => self.smmu.bbml = Some(Bbml::Level1),
            "smmu-bbml=2" => self.smmu.bbml = Some(Bbml::Level2),
            "smmu-coherent=no" => self.smmu.coherent = Some(false),
            "smmu-range=no" => self.smmu.range_invalidation = Some(false),
            "cpu-dirty=no" => self.no_cpu_dirty = true,
            "end=semihosting" => self.semihosting = true,
            _ => return false,
        }
        true
    }
}
