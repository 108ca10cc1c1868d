//! The stream table (§3.3, §5.1, §5.2): read word by word, and kept until CMD_CFGI_*.

use super::{SMMUEN, Smmu};
use crate::alarm::Rule;
use crate::core::Core;
use crate::memory::{Look, Observer};
use crate::truth::Reason;
use crate::update::Walker;
use crate::walk::Regime;

/// Fields of word 2 in which STEs of one VMID must agree (§5.2.1): all but S2S and S2R.
const AGREED: u64 = !0x0600_0000_0000_0000;
/// CMD_CFGI_STE.
const CFGI_STE: u64 = 0x03;
/// S2HD.
const S2HD: u64 = 0x0080_0000_0000_0000;
/// S2HA.
const S2HA: u64 = 0x0100_0000_0000_0000;
/// S2HAFT.
const S2HAFT: u64 = 0x0800_0000_0000_0000;
/// S2IR0 and S2OR0, and both write-back.
const CACHEABILITY: u64 = 0x0000_0f00_0000_0000;
const WRITE_BACK: u64 = 0x0000_0500_0000_0000;
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
    /// It has outlived a CMD_CFGI_*; it does not outlive another.
    spared: bool,
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
                table_flags: self.words[2] & S2HAFT != 0,
                stalls: self.words[2] & S2S != 0,
            }),
            word if word & 0x9 == 0x1 => Decoded::Refused(Reason::SteAborts),
            _ => Decoded::Refused(Reason::BadSte),
        }
    }
}

impl Core {
    /// The tree that `stream` goes through, by a cached STE or the one in memory.
    pub fn stream_regime(&mut self, smmu: usize, stream: u32) -> Result<Regime, Reason> {
        match self.ste_of(smmu, stream)?.decode() {
            Decoded::Regime(regime) => Ok(regime),
            Decoded::Refused(reason) => Err(reason),
        }
    }

    /// What the STE of `stream` says of ATS (STE.EATS).
    pub(super) fn translated_allowed(&mut self, smmu: usize, stream: u32) -> Result<bool, Reason> {
        let ste = self.ste_of(smmu, stream)?;
        match ste.decode() {
            Decoded::Regime(_) => Ok(ste.words[1] >> 28 & 3 != 0),
            Decoded::Refused(reason) => Err(reason),
        }
    }

    fn ste_of(&mut self, smmu: usize, stream: u32) -> Result<CachedSte, Reason> {
        if !self.smmus[smmu].translates() {
            return Err(Reason::Disabled);
        }
        match self.smmus[smmu].stes.iter().find(|s| s.stream == stream).copied() {
            Some(ste) => Ok(ste),
            None => self.fetch_ste(smmu, stream),
        }
    }

    /// A word of the stream table as the SMMU finds it.
    fn fetch_structure(&mut self, smmu: usize, pa: u64) -> Result<u64, Reason> {
        let at = self.index(pa).ok_or(Reason::External)?;
        let look = self.memory.look(Observer::Smmu(smmu), at, &mut self.random);
        Ok(self.looked_at(smmu, pa, &look))
    }

    fn looked_at(&mut self, smmu: usize, pa: u64, look: &Look) -> u64 {
        if look.premature {
            let who = Walker::Smmu(smmu);
            let account = format!("{who} reads {:#x} at {pa:#x}, filled but not visible", look.value);
            self.alarm(Rule::StreamTableNotVisible, account);
        }
        look.value
    }

    /// Two words of an STE: at once, where PEs have FEAT_LSE2 (§3.21.3).
    fn fetch_pair(&mut self, smmu: usize, pa: u64) -> Result<[u64; 2], Reason> {
        if !self.parameters.pes.lse2 {
            return Ok([self.fetch_structure(smmu, pa)?, self.fetch_structure(smmu, pa + 8)?]);
        }
        let at = self.index(pa).ok_or(Reason::External)?;
        let [first, second] = self.memory.look_at_pair(Observer::Smmu(smmu), at, &mut self.random);
        Ok([self.looked_at(smmu, pa, &first), self.looked_at(smmu, pa + 8, &second)])
    }

    fn fetch_ste(&mut self, smmu: usize, stream: u32) -> Result<CachedSte, Reason> {
        let pa = self.ste_pa(smmu, stream)?;
        let mut words = [0; 8];
        let first = self.random.index(4);
        for i in (0..4).map(|i| (i + first) % 4 * 2) {
            let pair = self.fetch_pair(smmu, pa + i as u64 * 8)?;
            words[i..i + 2].copy_from_slice(&pair);
        }
        let mut ste = CachedSte { stream, words, born: self.step, spared: false };
        if let Some(why) = self.illegal(smmu, &ste) {
            let account = format!("stream {stream:#x} has {words:#x?}: {why}");
            self.alarm(Rule::IllegalSte, account);
            return Err(Reason::BadSte);
        }
        self.check_update(smmu, &ste);
        self.check_table_flags(smmu, &mut ste);
        self.check_agreement(smmu, &ste);
        // An STE with V=0 may be kept as well (§5.2). The one that was there first goes where there is no room.
        if self.smmus[smmu].stes.len() == self.smmus[smmu].has.ste_entries {
            self.smmus[smmu].stes.remove(0);
        }
        self.smmus[smmu].stes.push(ste);
        Ok(ste)
    }

    fn illegal(&self, smmu: usize, ste: &CachedSte) -> Option<&'static str> {
        let (word2, has) = (ste.words[2], &self.smmus[smmu].has);
        let rules = [
            (word2 & S2HA != 0 && has.httu == 0, "S2HA without HTTU"),
            (word2 & S2HD != 0 && has.httu < 2, "S2HD without HTTU of the dirty state"),
            (word2 & (S2HA | S2HD) == S2HD, "S2HD without S2HA"),
            (word2 & (S2HA | S2HAFT) == S2HAFT && has.httu == 3, "S2HAFT without S2HA"),
            (word2 & S2AA64 == 0, "no AArch64 tables"),
            (word2 & 0xff00 != 0 && !has.vmid16, "a VMID of 16 bits"),
            (word2 & S2S != 0 && has.stall_model == 1, "S2S where nothing stalls"),
            (word2 & S2S == 0 && has.stall_model == 2, "no S2S where everything stalls"),
        ];
        rules.into_iter().find(|(broken, _)| ste.translates() && *broken).map(|(_, why)| why)
    }

    /// Hardware update needs coherent accesses, cacheable and write-back; what it does otherwise nobody says.
    fn check_update(&mut self, smmu: usize, ste: &CachedSte) {
        let word2 = ste.words[2];
        let coherent = self.smmus[smmu].has.coherent && word2 & CACHEABILITY == WRITE_BACK;
        if ste.translates() && word2 & S2HA != 0 && !coherent {
            let account = format!("stream {:#x} has S2HA in {word2:#x}", ste.stream);
            self.alarm(Rule::UpdateNotCoherent, account);
        }
    }

    /// Where IDR0.HTTU has no access flags of tables S2HAFT is RES0, and nobody keeps them.
    fn check_table_flags(&mut self, smmu: usize, ste: &mut CachedSte) {
        if ste.translates() && ste.words[2] & S2HAFT != 0 && self.smmus[smmu].has.httu != 3 {
            let account = format!("stream {:#x} has S2HAFT in {:#x}", ste.stream, ste.words[2]);
            self.alarm(Rule::TableFlagsReserved, account);
            ste.words[2] &= !S2HAFT;
        }
    }

    /// The command at `pa` is submitted: where it tells the SMMU of an STE, that is visible.
    pub(super) fn check_told_of(&mut self, smmu: usize, pa: u64) {
        let word = |core: &Self, pa| core.index(pa).map(|at| core.memory.newest(at));
        let Some(command) = word(self, pa).filter(|command| command & 0xff == CFGI_STE) else { return };
        let stream = (command >> 32) as u32;
        let (base, config) =
            (self.smmus[smmu].strtab_base & 0x00ff_ffff_ffff_ffc0, self.smmus[smmu].strtab_base_cfg);
        let split = config >> 6 & 0x1f;
        let (descriptor, first) = if config >> 16 & 3 == 0 {
            (None, base + u64::from(stream) * 64)
        } else {
            let at = base + u64::from(stream >> split) * 8;
            let table = word(self, at).unwrap_or(0) & 0x00ff_ffff_ffff_ffc0;
            (Some(at), table + u64::from(stream & ((1 << split) - 1)) * 64)
        };
        let hidden =
            |pa: &u64| self.index(*pa).is_some_and(|at| self.memory.is_unseen(Observer::Smmu(smmu), at));
        if let Some(pa) = descriptor.into_iter().chain((0..8).map(|i| first + i * 8)).find(hidden) {
            let account = format!("CMD_CFGI_STE of {stream:#x} is submitted, {pa:#x} is not visible");
            self.alarm(Rule::StreamTableNotVisible, account);
        }
    }

    fn check_agreement(&mut self, smmu: usize, ste: &CachedSte) {
        let differs = |other: &&CachedSte| {
            other.translates()
                && other.vmid() == ste.vmid()
                && ((other.words[2] ^ ste.words[2]) & AGREED != 0 || other.words[3] != ste.words[3])
        };
        let Some(other) = self.smmus[smmu].stes.iter().filter(|_| ste.translates()).find(differs) else {
            return;
        };
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

    fn ste_pa(&mut self, smmu: usize, stream: u32) -> Result<u64, Reason> {
        let (base, config) =
            (self.smmus[smmu].strtab_base & 0x00ff_ffff_ffff_ffc0, self.smmus[smmu].strtab_base_cfg);
        if u64::from(stream) >> (config & 0x3f) != 0 {
            return Err(Reason::BadStream);
        }
        if config >> 16 & 3 == 0 {
            return Ok(base + u64::from(stream) * 64);
        }
        let split = config >> 6 & 0x1f;
        let descriptor = self.level1_descriptor(smmu, base + u64::from(stream >> split) * 8)?;
        let (span, index) = (descriptor & 0x1f, u64::from(stream & ((1 << split) - 1)));
        if span == 0 || index >= 1 << (span - 1) {
            return Err(Reason::BadStream);
        }
        Ok((descriptor & 0x00ff_ffff_ffff_ffc0) + index * 64)
    }

    /// A level-1 descriptor may be kept whatever it says (§5.1.1).
    fn level1_descriptor(&mut self, smmu: usize, pa: u64) -> Result<u64, Reason> {
        if let Some((_, descriptor, _)) = self.smmus[smmu].level1.iter().find(|(at, ..)| *at == pa) {
            return Ok(*descriptor);
        }
        let descriptor = self.fetch_structure(smmu, pa)?;
        self.smmus[smmu].level1.push((pa, descriptor, self.step));
        Ok(descriptor)
    }

    pub(super) fn forget_config(&mut self, smmu: usize, invalidation: ConfigInvalidation) {
        let ConfigInvalidation { stream, leaf, begun } = invalidation;
        let Self { smmus, random, tally, .. } = self;
        let Smmu { stes, has, .. } = &mut smmus[smmu];
        stes.retain_mut(|s| {
            let covered = s.born <= begun && stream.is_none_or(|of| of == s.stream);
            let stays = covered && has.outliving && !s.spared && random.coin();
            s.spared |= stays;
            tally.outlived += u64::from(stays);
            !covered || stays
        });
        if !leaf {
            self.smmus[smmu].level1.retain(|(.., born)| *born > begun);
        }
        self.smmus[smmu].reset_config &= stream.is_some();
    }

    /// The trees of the STEs that are cached.
    pub fn cached_regimes(&self) -> impl Iterator<Item = (usize, Regime)> {
        let stes =
            self.smmus.iter().enumerate().flat_map(|(i, smmu)| smmu.stes.iter().map(move |ste| (i, ste)));
        stes.filter_map(|(smmu, ste)| match ste.decode() {
            Decoded::Regime(regime) => Some((smmu, regime)),
            Decoded::Refused(_) => None,
        })
    }

    /// A queue or stream table that lies in the `bytes` from `first` and is in use.
    pub fn smmu_structure(&self, first: u64, bytes: u64) -> Option<String> {
        let inside = |pa: u64| pa.wrapping_sub(first) < bytes;
        self.smmus.iter().find_map(|smmu| smmu.structure(inside)).map(|name| format!("{name} lies in it"))
    }
}

impl Smmu {
    /// A queue or stream table that is in use, and of which something is `inside`.
    fn structure(&self, inside: impl Fn(u64) -> bool) -> Option<&'static str> {
        let Self { cr0ack, strtab_base, cmdq_base, eventq_base, .. } = *self;
        let structures = [
            (SMMUEN, strtab_base, "the stream table"),
            (super::CMDQEN, cmdq_base, "the Command queue"),
            (super::EVENTQEN, eventq_base, "the Event queue"),
        ];
        let used = |(enable, base, _): &(u32, u64, &str)| {
            cr0ack & enable != 0 && inside(base & 0x00ff_ffff_ffff_ffc0)
        };
        structures.into_iter().find(used).map(|(_, _, name)| name)
    }
}
