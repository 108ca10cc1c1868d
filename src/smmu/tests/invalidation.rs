//! What the stage-2 engine and the dirty log ask for: one call, one batch.

use super::*;
use crate::addr::{Ipa, IpaRange};
use crate::fake::Event::Register;
use crate::hw::{DmaTlb, Scope};
use crate::smmu::Limits;

/// The last-level entries of `pages` pages from `start`.
pub(super) fn range(start: u64, pages: u64) -> Scope {
    Scope::Range { range: IpaRange::new(Ipa(start), pages << 12).unwrap(), leaf_only: true }
}

#[test]
fn everything_is_exactly_one_vmall_and_one_sync() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.invalidate(Vmid(0x1234), Scope::All).unwrap();
    assert_eq!(hardware.take_consumed(), [[0x0000_1234_0000_0028, 0], [0x46, 0]]);
    let moved = take_trace().into_iter().filter(|e| matches!(e, Register(0x98, _))).count();
    assert_eq!(moved, 1);
}

#[test]
fn sync_is_exactly_one_sync() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.sync().unwrap();
    assert_eq!(hardware.take_consumed(), [[0x46, 0]]);
}

#[test]
fn range_is_one_batch_with_one_sync() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    smmu.invalidate(Vmid(5), range(0x4000_0000, 513)).unwrap();
    // One page, then 512: NUM=15, SCALE=5 or NUM=0, SCALE=9; the latter.
    let expected = [[0x5_0000_002a, 0x4000_0001], [0x5_0090_002a, 0x4000_1401], [0x46, 0]];
    assert_eq!(hardware.take_consumed(), expected);
}

#[test]
fn ranges_taken_away_by_the_board_are_not_used() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let limits = Limits { range_invalidation: Some(false), ..Limits::default() };
    let smmu = up_with(&memory, &hardware, &Options { limits, ..small_options() });
    smmu.invalidate(Vmid(5), range(0x4000_0000, 2)).unwrap();
    let expected = [[0x5_0000_002a, 0x4000_0001], [0x5_0000_002a, 0x4000_1001], [0x46, 0]];
    assert_eq!(hardware.take_consumed(), expected);
    smmu.invalidate(Vmid(5), range(0x4000_0000, 513)).unwrap();
    assert_eq!(hardware.take_consumed(), [[0x5_0000_0028, 0], [0x46, 0]]);
}
