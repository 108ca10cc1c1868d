//! The stream table (§3.3, §5.1, §5.2): read word by word, and kept until CMD_CFGI_*.

use super::{SMMUEN, Smmu};
use crate::alarm::Rule;
use crate::core::Core;
use crate::truth::Reason;
use crate::walk::Regime;

/// Fields of word 2 in which STEs of one VMID must agree (§5.2.1): all but S2S and S2R.
const AGREED: u64 = !0x0600_0000_0000_0000;
/// S2HD.
const S2HD: u64 = 0x0080_0000_0000_0000;
/// S2HA.
const S2HA: u64 = 0x0100_0000_0000_0000;
/// S2S.
const S2S: u64 = 0x0200_0000_0000_0000;
/// S2AA64.
const S2AA64: u64 = 0x0008_0000_0000_0000;

/// An STE as it was read.
#[derive(Clone, Copy)]
pub(super) struct CachedSte {
    stream: u32,
    words: [u64; 8],
    born: u64,
}

/// A CMD_CFGI_* that no CMD_SYNC has completed.
#[derive(Clone, Copy)]
pub(super) struct ConfigInvalidation {
    /// `None`: all.
    pub stream: Option<u32>,
    pub leaf: bool,
    pub begun: u64,
}

/// What an STE says.
enum Decoded {
    Regime(Regime),
    Refused(Reason),
}

impl CachedSte {
    fn vmid(&self) -> u16 {
        self.words[2] as u16
    }

    fn translates(&self) -> bool {
        self.words[0] & 0xf == 0xd
    }

    fn decode(&self) -> Decoded {
        match self.words[0] & 0xf {
            0xd => Decoded::Regime(Regime {
                vmid: self.vmid(),
                root: self.words[3] & 0x000f_ffff_ffff_fff0,
                start_level: 2u64.saturating_sub(self.words[2] >> 38 & 3) as u8,
                ipa_bits: 64 - (self.words[2] >> 32 & 0x3f) as u32,
                dirty: self.words[2] & S2HD != 0,
                stalls: self.words[2] & S2S != 0,
            }),
            word if word & 0x9 == 0x1 => Decoded::Refused(Reason::SteAborts),
            _ => Decoded::Refused(Reason::BadSte),
        }
    }
}

impl Core {
    /// The tree that `stream` goes through, by a cached STE or the one in memory.
    pub fn stream_regime(&mut self, stream: u32) -> Result<Regime, Reason> {
        if !self.smmu.translates() {
            return Err(Reason::Disabled);
        }
        let cached = self.smmu.stes.iter().find(|s| s.stream == stream).copied();
        let ste = match cached {
            Some(ste) => ste,
            None => self.fetch_ste(stream)?,
        };
        match ste.decode() {
            Decoded::Regime(regime) => Ok(regime),
            Decoded::Refused(reason) => Err(reason),
        }
    }

    fn fetch_ste(&mut self, stream: u32) -> Result<CachedSte, Reason> {
        let pa = self.ste_pa(stream)?;
        let mut words = [0; 8];
        let first = self.random.index(8);
        for i in (0..8).map(|i| (i + first) % 8) {
            words[i] = self.fetch(pa + i as u64 * 8).ok_or(Reason::External)?;
        }
        let ste = CachedSte { stream, words, born: self.step };
        if let Some(why) = self.illegal(&ste) {
            let account = format!("stream {stream:#x} has {words:#x?}: {why}");
            self.alarm(Rule::IllegalSte, account);
            return Err(Reason::BadSte);
        }
        self.check_agreement(&ste);
        // An STE with V=0 may be kept as well (§5.2).
        self.smmu.stes.push(ste);
        Ok(ste)
    }

    fn illegal(&self, ste: &CachedSte) -> Option<&'static str> {
        let (word2, smmu) = (ste.words[2], &self.parameters.smmu);
        let rules = [
            (word2 & S2HA != 0 && smmu.httu == 0, "S2HA without HTTU"),
            (word2 & S2HD != 0 && smmu.httu < 2, "S2HD without HTTU of the dirty state"),
            (word2 & (S2HA | S2HD) == S2HD, "S2HD without S2HA"),
            (word2 & S2AA64 == 0, "no AArch64 tables"),
            (word2 & 0xff00 != 0 && !smmu.vmid16, "a VMID of 16 bits"),
            (word2 & S2S != 0 && smmu.stall_model == 1, "S2S where nothing stalls"),
            (word2 & S2S == 0 && smmu.stall_model == 2, "no S2S where everything stalls"),
        ];
        rules.into_iter().find(|(broken, _)| ste.translates() && *broken).map(|(_, why)| why)
    }

    fn check_agreement(&mut self, ste: &CachedSte) {
        let differs = |other: &&CachedSte| {
            other.translates()
                && other.vmid() == ste.vmid()
                && ((other.words[2] ^ ste.words[2]) & AGREED != 0 || other.words[3] != ste.words[3])
        };
        let Some(other) = self.smmu.stes.iter().filter(|_| ste.translates()).find(differs) else { return };
        let account = format!(
            "streams {:#x} and {:#x} share VMID {} with {:#x} {:#x} and {:#x} {:#x}",
            other.stream,
            ste.stream,
            ste.vmid(),
            other.words[2],
            other.words[3],
            ste.words[2],
            ste.words[3]
        );
        self.alarm(Rule::StesDiffer, account);
    }

    fn ste_pa(&mut self, stream: u32) -> Result<u64, Reason> {
        let (base, config) = (self.smmu.strtab_base & 0x00ff_ffff_ffff_ffc0, self.smmu.strtab_base_cfg);
        if u64::from(stream) >> (config & 0x3f) != 0 {
            return Err(Reason::BadStream);
        }
        if config >> 16 & 3 == 0 {
            return Ok(base + u64::from(stream) * 64);
        }
        let split = config >> 6 & 0x1f;
        let descriptor = self.level1_descriptor(base + u64::from(stream >> split) * 8)?;
        let (span, index) = (descriptor & 0x1f, u64::from(stream & ((1 << split) - 1)));
        if span == 0 || index >= 1 << (span - 1) {
            return Err(Reason::BadStream);
        }
        Ok((descriptor & 0x00ff_ffff_ffff_ffc0) + index * 64)
    }

    /// A level-1 descriptor may be kept whatever it says (§5.1.1).
    fn level1_descriptor(&mut self, pa: u64) -> Result<u64, Reason> {
        if let Some((_, descriptor, _)) = self.smmu.level1.iter().find(|(at, ..)| *at == pa) {
            return Ok(*descriptor);
        }
        let descriptor = self.fetch(pa).ok_or(Reason::External)?;
        self.smmu.level1.push((pa, descriptor, self.step));
        Ok(descriptor)
    }

    pub(super) fn forget_config(&mut self, invalidation: ConfigInvalidation) {
        let ConfigInvalidation { stream, leaf, begun } = invalidation;
        self.smmu.stes.retain(|s| s.born > begun || stream.is_some_and(|of| of != s.stream));
        if !leaf {
            self.smmu.level1.retain(|(.., born)| *born > begun);
        }
        self.smmu.reset_config &= stream.is_some();
    }

    /// The trees of the STEs that are cached.
    pub fn cached_regimes(&self) -> impl Iterator<Item = Regime> {
        self.smmu.stes.iter().filter_map(|ste| match ste.decode() {
            Decoded::Regime(regime) => Some(regime),
            Decoded::Refused(_) => None,
        })
    }

    /// A queue or stream table that lies in the `bytes` from `first` and is in use.
    pub fn smmu_structure(&self, first: u64, bytes: u64) -> Option<String> {
        let inside = |pa: u64| pa.wrapping_sub(first) < bytes;
        let Smmu { cr0ack, strtab_base, cmdq_base, eventq_base, .. } = self.smmu;
        let structures = [
            (SMMUEN, strtab_base, "the stream table"),
            (super::CMDQEN, cmdq_base, "the Command queue"),
            (super::EVENTQEN, eventq_base, "the Event queue"),
        ];
        let used = |(enable, base, _): &(u32, u64, &str)| {
            cr0ack & enable != 0 && inside(base & 0x00ff_ffff_ffff_ffc0)
        };
        structures.iter().find(|s| used(s)).map(|(_, _, name)| format!("{name} lies in it"))
    }
}
