//! The format, byte by byte, and what is made of bytes that are no bundle.
#![cfg(feature = "write")]

use strandline_bundle::{Bundle, BundleError, Entry, EntryError, Kind, write};

const KERNEL: Entry<'static> = Entry { kind: Kind::Kernel, arguments: "memory=64M", data: b"kernel" };
const RAMDISK: Entry<'static> = Entry { kind: Kind::Ramdisk, arguments: "", data: b"disk" };

fn bundle() -> Vec<u8> {
    write(&[KERNEL, RAMDISK]).unwrap()
}

/// With other bytes at `at`, and the checksum that goes with them.
fn forged(at: usize, bytes: &[u8]) -> Vec<u8> {
    use siphasher::sip128::{Hasher128 as _, SipHasher13};
    use std::hash::Hasher as _;
    let mut forged = bundle();
    forged[at..at + bytes.len()].copy_from_slice(bytes);
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(&forged[..24]);
    hasher.write(&forged[40..]);
    forged[24..40].copy_from_slice(&hasher.finish128().as_bytes());
    forged
}

#[test]
fn what_is_written_is_read() {
    let bytes = bundle();
    let entries: Vec<_> = Bundle::read(&bytes).unwrap().entries().collect();
    assert_eq!(entries, [KERNEL, RAMDISK]);
}

#[test]
fn every_field_stands_where_the_format_says() {
    let bytes = bundle();
    assert_eq!(bytes[..8], [0x53, 0x54, 0x52, 0x42, 0x89, 0x0d, 0x0a, 0x0a]);
    // Version 1, two entries, 0x2004 bytes.
    assert_eq!(bytes[8..24], [1, 0, 0, 0, 2, 0, 0, 0, 0x04, 0x20, 0, 0, 0, 0, 0, 0]);
    // Kind 1, ten bytes of arguments at 0x68, six bytes of data at 0x1000.
    let kernel = [1, 0, 0, 0, 10, 0, 0, 0, 0x68, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 6];
    assert_eq!(bytes[0x28..0x41], kernel);
    // Kind 2, no arguments at 0x1006, four bytes of data at 0x2000.
    let ramdisk = [2, 0, 0, 0, 0, 0, 0, 0, 0x06, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 4];
    assert_eq!(bytes[0x48..0x61], ramdisk);
    assert_eq!(bytes[0x68..0x72], *b"memory=64M");
    assert_eq!(bytes[0x1000..0x1006], *b"kernel");
    assert_eq!(bytes[0x2000..], *b"disk");
}

#[test]
fn what_follows_a_bundle_is_not_its_own() {
    let mut bytes = bundle();
    bytes.resize(bytes.len() + 4096, 0xff);
    assert_eq!(Bundle::read(&bytes).unwrap().entries().count(), 2);
}

#[test]
fn bundle_that_is_cut_short_says_so_wherever_that_is() {
    let bytes = bundle();
    for length in [8, 11, 23, 24, 40, 0x1000, bytes.len() - 1] {
        let error = Bundle::read(&bytes[..length]).unwrap_err();
        assert!(matches!(error, BundleError::Truncated { loaded, .. } if loaded == length as u64), "{error}");
    }
    assert_eq!(Bundle::read(&bytes[..7]).unwrap_err(), BundleError::NoBundle);
    assert_eq!(Bundle::read(b"").unwrap_err(), BundleError::NoBundle);
}

#[test]
fn every_single_bit_that_is_wrong_is_noticed() {
    let mut bytes = bundle();
    for at in (0..0x80).chain([0xfff, 0x1000, 0x1005, 0x1fff, 0x2003]) {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(Bundle::read(&bytes).is_err(), "bit {bit} of byte {at:#x}");
            bytes[at] ^= 1 << bit;
        }
    }
    bytes[0x1002] ^= 4;
    assert_eq!(Bundle::read(&bytes).unwrap_err(), BundleError::Damaged);
}

#[test]
fn length_shorter_than_the_header_is_damage() {
    assert_eq!(Bundle::read(&forged(16, &[0; 8])).unwrap_err(), BundleError::Damaged);
}

#[test]
fn bundle_of_another_version_is_refused_by_its_number() {
    assert_eq!(Bundle::read(&forged(8, &[2])).unwrap_err(), BundleError::Version(2));
}

#[test]
fn entries_that_make_no_sense_are_named() {
    let refused = |at, bytes: &[u8], error| {
        assert_eq!(Bundle::read(&forged(at, bytes)).unwrap_err(), BundleError::Entry(0, error));
    };
    refused(0x28, &[7], EntryError::Kind(7));
    refused(0x40, &[0], EntryError::Empty);
    refused(0x40, &[0xff; 8], EntryError::Outside);
    refused(0x38, &[0xff; 8], EntryError::Outside);
    refused(0x30, &[0xff; 8], EntryError::Outside);
    refused(0x68, &[0xff], EntryError::Arguments);
    // The last of 0xffff_ffff entries lies outside.
    let many = Bundle::read(&forged(12, &[0xff; 4])).unwrap_err();
    assert!(matches!(many, BundleError::Entry(_, _)), "{many}");
}

#[test]
fn refusals_are_lines_that_can_be_acted_on() {
    let line = |error: BundleError| error.to_string();
    assert_eq!(line(BundleError::NoBundle), "is no bundle: scripts/image makes one");
    assert_eq!(
        line(BundleError::Truncated { says: 9, loaded: 4 }),
        "is cut short: it has 9 bytes, 4 of them were loaded"
    );
    assert_eq!(line(BundleError::Entry(3, EntryError::Kind(7))), "entry 3 is of unknown kind 7");
}
