//! The words that software and hardware share, and when hardware comes to see what software stored.
//!
//! What hardware changes, software is sure to see after a DSB of loads and stores; until then a load may give it the
//! value before (an atomic operation always works on the newest). The other way round, a walker may see the value before it until software has executed a DSB after
//! the store (Arm ARM D8.2.6, B2.3.12; IHI 0070 §3.21.2); whether it does is chance, and once it has seen the new
//! value it never goes back. A walker that is not coherent waits for a cache clean and a DSB behind that.

use std::collections::BTreeMap;

use crate::random::Random;

/// Who looks at memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observer {
    /// The walkers of PEs.
    Pe,
    /// An SMMU: walks, queues, stream tables.
    Smmu(usize),
}

impl Observer {
    const fn index(self) -> usize {
        match self {
            Self::Pe => 0,
            Self::Smmu(smmu) => 1 + smmu,
        }
    }
}

/// SMMUs at the most.
pub(crate) const MOST_SMMUS: usize = 2;
const OBSERVERS: usize = 1 + MOST_SMMUS;

/// The newest value is not yet sure to be seen, by observer.
const UNSEEN: [u16; OBSERVERS] = [0x1, 0x2, 0x100];
/// Stored as part of a table nobody should reach yet, and unseen, by observer.
const FILLED: [u16; OBSERVERS] = [0x4, 0x8, 0x200];
/// Cleaned to the point of coherency since the last store.
const CLEANED: u16 = 0x10;
/// A walk read a leaf here.
const WALKED: u16 = 0x20;
/// Hardware changed it since software last looked.
const CHANGED: u16 = 0x40;
/// Stored together with the other word of its aligned 128 bits.
const PAIRED: u16 = 0x80;

/// Memory by word index.
pub(crate) struct Memory {
    newest: Vec<u64>,
    /// What each observer is sure to see at least.
    seen: Vec<Vec<u64>>,
    flags: Vec<u16>,
    /// Words with [`UNSEEN`], perhaps more than once or no more.
    unseen: Vec<Vec<u32>>,
    /// Which SMMUs see the PEs' caches.
    coherent: Vec<bool>,
    /// What hardware has changed since software's last DSB.
    hidden: BTreeMap<u32, Hidden>,
    /// Leaves software has cleaned since an invalidation last completed.
    cleaned: Vec<u32>,
    /// What a cache may hold of words that an SMMU without coherent accesses has written since, with that old value.
    stale: BTreeMap<u32, u64>,
    /// Of these, the ones that software has invalidated; a DSB completes it.
    invalidated: Vec<u32>,
}

/// A change by hardware that software may not see yet.
struct Hidden {
    /// The value before.
    before: u64,
    /// It went past the caches, which may hold the value before until software invalidates them.
    past_caches: bool,
}

/// What an observer found.
pub(crate) struct Look {
    pub value: u64,
    /// It is not the newest.
    pub old: bool,
    /// The newest value was filled in and is not sure to be seen: nothing should have led here.
    pub premature: bool,
}

impl Memory {
    /// `words` words whose contents look like descriptors that lead nowhere, and SMMUs that are each `coherent`, or not.
    pub fn new(words: usize, coherent: Vec<bool>) -> Self {
        assert!(coherent.len() <= MOST_SMMUS, "more SMMUs than there are flags for");
        let observers = 1 + coherent.len();
        let garbage = |i: usize| 0x0008_0bad_0000_07ff + ((i as u64) << 12 & 0xffff_f000);
        let newest: Vec<u64> = (0..words).map(garbage).collect();
        Self {
            seen: vec![newest.clone(); observers],
            newest,
            flags: vec![0; words],
            unseen: vec![vec![]; observers],
            coherent,
            hidden: BTreeMap::new(),
            cleaned: vec![],
            stale: BTreeMap::new(),
            invalidated: vec![],
        }
    }

    pub fn newest(&self, at: u32) -> u64 {
        self.newest[at as usize]
    }

    /// What software sees; it has then looked.
    pub fn load(&mut self, at: u32, random: &mut Random) -> u64 {
        let before = self.hidden.get(&at).map(|hidden| hidden.before);
        if let Some(before) = before.or_else(|| self.stale.get(&at).copied())
            && random.coin()
        {
            return before;
        }
        self.hidden.remove(&at);
        self.flags[at as usize] &= !CHANGED;
        self.newest[at as usize]
    }

    /// Software executes a DSB of loads and stores: it sees what hardware did before.
    pub fn synchronize(&mut self) {
        self.hidden.retain(|_, hidden| hidden.past_caches);
    }

    /// Software invalidates its caches of `words` words from `at`; a DSB completes that.
    pub fn invalidate(&mut self, at: u32, words: u32) {
        for (_, hidden) in self.hidden.range_mut(at..at + words) {
            hidden.past_caches = false;
        }
        self.invalidated.extend(self.stale.range(at..at + words).map(|(word, _)| *word));
    }

    /// Software has read the newest value by an atomic operation: it reads none older after that (coherence, Arm ARM
    /// B2.3.1).
    pub fn has_been_read(&mut self, at: u32) {
        self.hidden.remove(&at);
    }

    /// Software cleans a leaf.
    pub fn note_clean(&mut self, at: u32) {
        self.cleaned.push(at);
    }

    /// An invalidation completes.
    pub fn forget_cleans(&mut self) {
        self.cleaned.clear();
    }

    /// Whether the leaf was cleaned, and no invalidation has completed since.
    pub fn is_being_cleaned(&self, at: u32) -> bool {
        self.cleaned.contains(&at)
    }

    /// Whether hardware has changed the word since software last looked.
    pub fn was_changed(&self, at: u32) -> bool {
        self.flags[at as usize] & CHANGED != 0
    }

    pub fn store(&mut self, at: u32, value: u64, filled: bool) {
        let i = at as usize;
        for observer in 0..self.seen.len() {
            if self.flags[i] & UNSEEN[observer] == 0 {
                self.seen[observer][i] = self.newest[i];
                self.unseen[observer].push(at);
            }
            self.flags[i] |= UNSEEN[observer] | if filled { FILLED[observer] } else { 0 };
        }
        self.flags[i] &= !(CLEANED | CHANGED | PAIRED);
        self.hidden.remove(&at);
        self.newest[i] = value;
    }

    /// Software stores 128 bits at once.
    pub fn store_pair(&mut self, at: u32, pair: [u64; 2]) {
        for (at, value) in (at..).zip(pair) {
            self.store(at, value, false);
            self.flags[at as usize] |= PAIRED;
        }
    }

    /// `observer` reads the 128 bits at `at` at once: of two words that were stored together it finds both, or neither.
    pub fn look_at_pair(&mut self, observer: Observer, at: u32, random: &mut Random) -> [Look; 2] {
        let words = [at, at + 1];
        let undecided = PAIRED | UNSEEN[observer.index()];
        if words.iter().all(|at| self.flags[*at as usize] & undecided == undecided) {
            if random.coin() {
                return words.map(|at| self.as_seen(observer, at));
            }
            words.iter().for_each(|at| self.settle(observer, *at));
        }
        words.map(|at| self.look(observer, at, random))
    }

    /// The word as `observer` is sure to see it at least.
    fn as_seen(&self, observer: Observer, at: u32) -> Look {
        let (i, o) = (at as usize, observer.index());
        let (value, premature) = (self.seen[o][i], self.flags[i] & FILLED[o] != 0);
        Look { value, old: value != self.newest[i], premature }
    }

    /// Hardware's own store: all of hardware sees it at once.
    pub fn hardware_store(&mut self, at: u32, value: u64) {
        let i = at as usize;
        self.hidden.entry(at).or_insert(Hidden { before: self.newest[i], past_caches: false });
        self.newest[i] = value;
        self.flags[i] = self.flags[i] & WALKED | CHANGED;
    }

    /// Whether what `observer` stores goes past the PEs' caches.
    fn is_past_caches(&self, observer: Observer) -> bool {
        matches!(observer, Observer::Smmu(smmu) if !self.coherent[smmu])
    }

    /// A store of a vCPU, or of a device, into guest RAM.
    pub fn data_store(&mut self, at: u32, value: u64, by: Observer) {
        self.hardware_store(at, value);
        let past_caches = self.is_past_caches(by);
        if let Some(hidden) = self.hidden.get_mut(&at) {
            hidden.past_caches |= past_caches;
        }
    }

    /// An SMMU's own store of a record. Where its accesses aren't coherent, a cache may hold the line, whether software
    /// has read it or not, until software invalidates it after this.
    pub fn record_store(&mut self, at: u32, value: u64, by: Observer) {
        if self.is_past_caches(by) {
            let before = self.newest(at);
            self.stale.entry(at).or_insert(before);
            self.invalidated.retain(|word| *word != at);
        }
        self.hardware_store(at, value);
    }

    /// Whether a cache may hold the word as it was before a record was written there.
    pub fn is_stale(&self, at: u32) -> bool {
        self.stale.contains_key(&at)
    }

    /// The word as `observer` finds it.
    pub fn look(&mut self, observer: Observer, at: u32, random: &mut Random) -> Look {
        let (i, o) = (at as usize, observer.index());
        if self.flags[i] & UNSEEN[o] == 0 {
            return Look { value: self.newest[i], old: false, premature: false };
        }
        let premature = self.flags[i] & FILLED[o] != 0;
        if random.coin() {
            self.flags[i] &= !(UNSEEN[o] | FILLED[o]);
            return Look { value: self.newest[i], old: false, premature };
        }
        self.as_seen(observer, at)
    }

    /// `observer` has found out that the word is not what it was: from now on it sees the newest value.
    pub fn settle(&mut self, observer: Observer, at: u32) {
        let o = observer.index();
        self.flags[at as usize] &= !(UNSEEN[o] | FILLED[o]);
    }

    /// What `observer` may find at the least and at the most recent.
    pub fn both(&self, observer: Observer, at: u32) -> [u64; 2] {
        let (i, o) = (at as usize, observer.index());
        let seen = if self.flags[i] & UNSEEN[o] == 0 { self.newest[i] } else { self.seen[o][i] };
        [seen, self.newest[i]]
    }

    pub fn is_unseen(&self, observer: Observer, at: u32) -> bool {
        self.flags[at as usize] & UNSEEN[observer.index()] != 0
    }

    /// A DSB that orders stores for `observer`; `maintenance`: and completes cache maintenance (Arm ARM B2.6.9).
    pub fn barrier(&mut self, observer: Observer, maintenance: bool) {
        let o = observer.index();
        if maintenance {
            for word in std::mem::take(&mut self.invalidated) {
                self.stale.remove(&word);
            }
        }
        let needs_clean = self.is_past_caches(observer);
        let flags = &mut self.flags;
        self.unseen[o].retain(|&at| {
            let flag = &mut flags[at as usize];
            let stays = needs_clean && *flag & UNSEEN[o] != 0 && !(maintenance && *flag & CLEANED != 0);
            if !stays {
                *flag &= !(UNSEEN[o] | FILLED[o]);
            }
            stays
        });
    }

    /// A cache clean of `words` words from `at`; a DSB completes it.
    pub fn clean(&mut self, at: u32, words: usize) {
        for flag in &mut self.flags[at as usize..][..words] {
            *flag |= CLEANED;
        }
    }

    pub fn note_leaf(&mut self, at: u32) {
        self.flags[at as usize] |= WALKED;
    }

    pub fn is_leaf(&self, at: u32) -> bool {
        self.flags[at as usize] & WALKED != 0
    }

    /// Forgets what walks found in `words` words: they are handed out anew.
    pub fn forget_leaves(&mut self, at: u32, words: usize) {
        for flag in &mut self.flags[at as usize..][..words] {
            *flag &= !WALKED;
        }
    }
}
