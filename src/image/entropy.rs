//! Randomness for the keys of digests, and where it comes from: a caller is told.

use core::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};
use strandline::dirty_log::DigestKey;
use strandline_abi::KeySource;

/// How often the CPU's generator is asked before it counts as failed (Arm ARM, RNDR: it may have nothing ready).
const TRIES: usize = 16;

/// What all keys of this boot are made from.
#[derive(Clone, Copy)]
pub struct Entropy {
    words: [u64; 2],
    source: KeySource,
}

impl Entropy {
    /// From the best source there is: the CPU's generator, `generate`; the seed that firmware has left; a counter, which
    /// who knows the machine well may guess.
    pub fn gather(generate: Option<impl FnMut() -> Option<u64>>, seed: &[u8], counter: u64) -> Self {
        if let Some(words) = generate.and_then(generated) {
            return Self { words, source: KeySource::Cpu };
        }
        let source = if seed.len() >= 16 { KeySource::Firmware } else { KeySource::Counter };
        Self { words: mixed([counter, !counter], seed), source }
    }

    /// The key of VM number `index`: another for each.
    pub fn key(&self, index: usize) -> (DigestKey, KeySource) {
        (DigestKey(mixed(self.words, &(index as u64).to_le_bytes())), self.source)
    }
}

/// Two words of the CPU's generator, each asked for until there is one.
fn generated(mut generate: impl FnMut() -> Option<u64>) -> Option<[u64; 2]> {
    let mut one = || (0..TRIES).find_map(|_| generate());
    Some([one()?, one()?])
}

/// SipHash of `bytes`, keyed by `words`.
fn mixed(words: [u64; 2], bytes: &[u8]) -> [u64; 2] {
    let mut hasher = SipHasher13::new_with_keys(words[0], words[1]);
    hasher.write(bytes);
    let mixed = hasher.finish128();
    [mixed.h1, mixed.h2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> Option<fn() -> Option<u64>> {
        None
    }

    #[test]
    fn the_cpus_generator_comes_first_and_may_hesitate() {
        let mut calls = 0;
        let hesitant = || {
            calls += 1;
            (calls % 3 == 0).then_some(calls)
        };
        let entropy = Entropy::gather(Some(hesitant), &[1; 32], 5);
        assert_eq!((entropy.words, entropy.source), ([3, 6], KeySource::Cpu));
    }

    #[test]
    fn a_generator_that_fails_gives_way_to_the_seed_and_that_to_the_counter() {
        let failing = Some(|| None::<u64>);
        assert_eq!(Entropy::gather(failing, &[1; 32], 5).source, KeySource::Firmware);
        assert_eq!(Entropy::gather(never(), &[1; 15], 5).source, KeySource::Counter);
        assert_eq!(Entropy::gather(never(), &[], 5).source, KeySource::Counter);
    }

    #[test]
    fn every_vm_and_every_boot_has_a_key_of_its_own() {
        let keys = |seed: &[u8], counter| {
            let entropy = Entropy::gather(never(), seed, counter);
            [entropy.key(0).0, entropy.key(1).0]
        };
        let all = [keys(&[1; 32], 5), keys(&[2; 32], 5), keys(&[], 5), keys(&[], 6)].concat();
        for (i, key) in all.iter().enumerate() {
            assert!(!all[..i].contains(key), "{i}");
        }
    }
}
