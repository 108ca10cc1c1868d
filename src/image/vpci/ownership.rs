//! Which VM has which function: an isolation group never belongs to two.

use alloc::vec::Vec;
use core::fmt;

use super::bdf::{Bdf, group_of};

/// The functions that belong to VMs; a VM is told by its number.
#[derive(Clone, Debug, Default)]
pub struct Ownership {
    claims: Vec<(Bdf, usize)>,
}

/// Why a VM can't have a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnershipError {
    /// A VM has it already; carries its number.
    Taken(Bdf, usize),
    /// Another VM has a function of the same isolation group: that function, and the VM's number.
    GroupTaken(Bdf, Bdf, usize),
}

impl fmt::Display for OwnershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(bdf, vm) => write!(f, "{bdf} belongs to VM {vm} already"),
            Self::GroupTaken(bdf, other, vm) => {
                write!(f, "{bdf} is not isolated from {other}, which belongs to VM {vm}")
            }
        }
    }
}

impl Ownership {
    /// Gives `bdf` to VM number `vm`.
    ///
    /// # Errors
    /// Some VM has it, or another VM has a function of its group; nothing is changed then.
    pub fn claim(&mut self, bdf: Bdf, vm: usize) -> Result<(), OwnershipError> {
        for (other, owner) in &self.claims {
            if *other == bdf {
                return Err(OwnershipError::Taken(bdf, *owner));
            }
            if *owner != vm && group_of(*other) == group_of(bdf) {
                return Err(OwnershipError::GroupTaken(bdf, *other, *owner));
            }
        }
        self.claims.push((bdf, vm));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::super::fake::bdf;
    use super::*;

    #[test]
    fn function_belongs_to_one_vm_once() {
        let mut owners = Ownership::default();
        assert_eq!(owners.claim(bdf("00:01.0"), 0), Ok(()));
        assert_eq!(owners.claim(bdf("00:01.0"), 0), Err(OwnershipError::Taken(bdf("00:01.0"), 0)));
        let error = owners.claim(bdf("00:01.0"), 1).unwrap_err();
        assert_eq!(error.to_string(), "00:01.0 belongs to VM 0 already");
    }

    #[test]
    fn functions_of_one_device_belong_to_one_vm() {
        let mut owners = Ownership::default();
        assert_eq!(owners.claim(bdf("00:01.0"), 0), Ok(()));
        let error = owners.claim(bdf("00:01.1"), 1).unwrap_err();
        assert_eq!(error.to_string(), "00:01.1 is not isolated from 00:01.0, which belongs to VM 0");
        assert_eq!(owners.claim(bdf("00:01.1"), 0), Ok(()));
        assert_eq!(owners.claim(bdf("00:02.0"), 1), Ok(()));
    }
}
