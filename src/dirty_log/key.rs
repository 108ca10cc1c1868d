//! The key of digests, and the keyed hash: SipHash-1-3 with 128 bits, of the feature `digest`.
//!
//! Without the feature there is no hash, and so no key: [`DigestKey`] has no value then, which is how the compiler knows
//! that no log has digests.

#[cfg(not(feature = "digest"))]
use core::convert::Infallible;

use super::PAGE_WORDS;

/// Words hashed at a time.
#[cfg(feature = "digest")]
const CHUNK: usize = 8;

/// The key of a VM's digests. Who doesn't know it cannot make two contents of a page that have one digest.
#[cfg(feature = "digest")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DigestKey(pub [u64; 2]);

/// The key of a VM's digests. There is none without the feature `digest`.
#[cfg(not(feature = "digest"))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DigestKey(Infallible);

impl core::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // A secret is in no report.
        f.write_str("DigestKey(..)")
    }
}

impl DigestKey {
    /// The hash of what a page holds.
    #[cfg(feature = "digest")]
    pub(super) fn hash(self, words: &[u64; PAGE_WORDS]) -> [u64; 2] {
        use core::hash::Hasher;
        use siphasher::sip128::{Hasher128, SipHasher13};

        let mut hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        let mut bytes = [0; CHUNK * 8];
        for chunk in words.chunks_exact(CHUNK) {
            for (bytes, word) in bytes.chunks_exact_mut(8).zip(chunk) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            hasher.write(&bytes);
        }
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// Never called: there is no key.
    #[cfg(not(feature = "digest"))]
    pub(super) const fn hash(self, _words: &[u64; PAGE_WORDS]) -> [u64; 2] {
        match self.0 {}
    }
}

#[cfg(all(test, feature = "digest"))]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_no_report() {
        assert_eq!(format!("{:?}", DigestKey([0x1234, 0x5678])), "DigestKey(..)");
    }

    #[test]
    fn the_hash_is_siphash_1_3_of_the_bytes_with_128_bits() {
        // Worked out by an implementation of its own, which gives SipHash-2-4's published value for its published key.
        let words: [u64; PAGE_WORDS] = core::array::from_fn(|i| i as u64);
        let key = DigestKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
        assert_eq!(key.hash(&words), [0x784c_db33_77e8_0f94, 0xc6ae_1872_a5ca_c458]);
    }
}
