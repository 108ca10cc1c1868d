//! What keeps the EFI application from starting EL2: a line on the firmware's console, and a status for it.

use core::fmt;

use uefi_raw::Status;

/// Why there is no way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EfiError {
    /// The firmware runs at EL1.
    NotEl2,
    /// The firmware publishes no device tree.
    NoTree,
    /// What it publishes as device tree is none, or is larger than one can be.
    BadTree,
    /// The firmware can't read the volume the application was started from.
    NoVolume(Status),
    /// The bundle is not on that volume, or can't be opened.
    NoBundle(Status),
    /// The bundle could not be read to its end.
    Read(Status),
    /// The bundle is an empty file.
    EmptyBundle,
    /// There is no free memory of so many bytes.
    NoMemory(u64),
    /// The firmware does not let go.
    Exit(Status),
}

impl EfiError {
    /// What the application returns.
    pub const fn status(self) -> Status {
        match self {
            Self::NotEl2 | Self::NoTree => Status::UNSUPPORTED,
            Self::BadTree | Self::EmptyBundle => Status::LOAD_ERROR,
            Self::NoVolume(status) | Self::NoBundle(status) | Self::Read(status) | Self::Exit(status) => {
                status
            }
            Self::NoMemory(_) => Status::OUT_OF_RESOURCES,
        }
    }
}

impl fmt::Display for EfiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEl2 => f.write_str(
                "needs EL2 (the hypervisor's level), this firmware runs at EL1: switch the machine's virtualization \
                 extensions on (QEMU: -machine virtualization=on)",
            ),
            Self::NoTree => f.write_str(
                "this firmware publishes no device tree, which EL2 needs: choose it in place of ACPI in the firmware's \
                 setup (QEMU: -machine acpi=off)",
            ),
            Self::BadTree => f.write_str("what this firmware publishes as device tree is none"),
            Self::NoVolume(status) => {
                write!(f, "the volume this was started from can't be read: {}", Code(*status))
            }
            Self::NoBundle(status) => {
                write!(f, "strandline.bundle is not on the volume this was started from: {}", Code(*status))
            }
            Self::Read(status) => write!(f, "strandline.bundle can't be read: {}", Code(*status)),
            Self::EmptyBundle => f.write_str("strandline.bundle is empty"),
            Self::NoMemory(bytes) => write!(f, "no free memory of {bytes} bytes, for what has to be loaded"),
            Self::Exit(status) => {
                write!(f, "the firmware doesn't let go of the machine (ExitBootServices): {}", Code(*status))
            }
        }
    }
}

/// A status as people write it; others by their number (UEFI specification, appendix D).
struct Code(Status);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            Status::NOT_FOUND => "not found",
            Status::NO_MEDIA => "no medium",
            Status::DEVICE_ERROR => "device error",
            Status::VOLUME_CORRUPTED => "the file system is damaged",
            Status::UNSUPPORTED => "not supported",
            other => return write!(f, "EFI status {:#x}", other.0),
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_the_file_and_the_reason() {
        assert_eq!(
            EfiError::NoBundle(Status::NOT_FOUND).to_string(),
            "strandline.bundle is not on the volume this was started from: not found"
        );
        assert_eq!(
            EfiError::Read(Status::CRC_ERROR).to_string(),
            "strandline.bundle can't be read: EFI status 0x800000000000001b"
        );
    }

    #[test]
    fn every_error_is_returned_as_an_error() {
        let device_error = Status::DEVICE_ERROR;
        for error in [
            EfiError::NotEl2,
            EfiError::NoTree,
            EfiError::BadTree,
            EfiError::NoVolume(device_error),
            EfiError::NoBundle(device_error),
            EfiError::Read(device_error),
            EfiError::EmptyBundle,
            EfiError::NoMemory(1),
            EfiError::Exit(device_error),
        ] {
            assert!(error.status().is_error(), "{error:?}");
        }
    }
}
