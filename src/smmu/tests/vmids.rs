//! VMIDs: invalidated before first use and after last.

use super::*;
use crate::smmu::spec::pages::Register32;
use crate::smmu::{CommandError, Quarantined, SmmuError};

#[test]
fn vmid_is_invalidated_before_first_use_and_after_last() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    assert_eq!(smmu.alloc_vmid(), Ok(Vmid(1)));
    assert_eq!(hardware.take_consumed(), [[0x0000_0001_0000_0028, 0], [0x46, 0]]);
    assert_eq!(smmu.free_vmid(Vmid(1)), Ok(()));
    assert_eq!(hardware.take_consumed(), [[0x0000_0001_0000_0028, 0], [0x46, 0]]);
}

#[test]
fn vmid_whose_last_invalidation_failed_is_never_given_out_again() {
    let memory = Fake::new(8);
    // 8-bit VMIDs.
    let hardware = FakeSmmu::new(&memory).with(Register32::Idr0, 0x0d40_101b);
    let smmu = up(&memory, &hardware);
    assert_eq!(smmu.alloc_vmid(), Ok(Vmid(1)));
    hardware.set_dead(true);
    assert_eq!(smmu.free_vmid(Vmid(1)), Err(SmmuError::Command(CommandError::Timeout { cons: 5 })));
    hardware.catch_up();
    for vmid in 2..=255 {
        assert_eq!(smmu.alloc_vmid(), Ok(Vmid(vmid)));
    }
    assert_eq!(smmu.alloc_vmid(), Err(SmmuError::OutOfVmids));
    assert_eq!(smmu.free_vmid(Vmid(1)), Err(SmmuError::VmidQuarantined(Vmid(1))));
    assert_eq!(smmu.alloc_vmid(), Err(SmmuError::OutOfVmids));
    assert_eq!(smmu.quarantined(), Quarantined { vmids: 1, ..Quarantined::default() });
    assert_eq!(smmu.free_vmid(Vmid(2)), Ok(()));
    assert_eq!(smmu.alloc_vmid(), Ok(Vmid(2)));
}

#[test]
fn vmid_that_could_not_be_invalidated_is_not_given_out() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    hardware.refuse(0x28, 1, 1);
    assert!(smmu.alloc_vmid().is_err());
    assert_eq!(smmu.free_vmid(Vmid(1)), Err(SmmuError::UnknownVmid(Vmid(1))));
}

#[test]
fn vmid_nobody_took_cannot_be_given_back() {
    let memory = Fake::new(8);
    let hardware = FakeSmmu::new(&memory);
    let smmu = up(&memory, &hardware);
    for vmid in [Vmid(0), Vmid(1), Vmid(0xffff)] {
        assert_eq!(smmu.free_vmid(vmid), Err(SmmuError::UnknownVmid(vmid)));
    }
    assert_eq!(hardware.take_consumed(), [[0; 2]; 0]);
}
