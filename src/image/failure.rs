//! Why EL2 ends without having succeeded: what its last line says.

use alloc::string::String;
use core::fmt;

use super::irq::IrqError;
use super::machine::TreeError;
use super::mapping::MapError;

/// The reason on EL2's last line.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The image was entered at EL1.
    NotEl2,
    /// The CPU has no EL2 without FEAT_VHE's extensions (HCR_EL2.E2H is always 1).
    Vhe,
    /// The device tree is wrong, or lacks something.
    Tree(TreeError),
    /// EL2 could not map the machine.
    Map(MapError),
    /// The interrupt controller could not be set up.
    Irq(IrqError),
    /// Firmware has not set CNTFRQ_EL0.
    NoTimerFrequency,
    /// The boot loader has left no guest.
    NoVm,
    /// Something could not be set up, or a VM failed; says what.
    Setup(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEl2 => f.write_str(
                "needs EL2 (the hypervisor's level) but was entered at EL1; start the machine with its \
                 virtualization extensions (QEMU: -machine virtualization=on)",
            ),
            Self::Vhe => f.write_str(
                "this CPU's EL2 is always that of a VHE host (HCR_EL2.E2H), which is not supported",
            ),
            Self::Tree(error) => write!(f, "{error}"),
            Self::Map(error) => write!(f, "{error}"),
            Self::Irq(error) => write!(f, "{error}"),
            Self::NoTimerFrequency => f.write_str("firmware has not set the timer's frequency (CNTFRQ_EL0)"),
            Self::NoVm => f.write_str(
                "no boot module is a kernel (/chosen, \"multiboot,kernel\"), and there is no bundle (the initial \
                 ramdisk): there is no VM to start",
            ),
            Self::Setup(why) => f.write_str(why),
        }
    }
}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<IrqError> for Failure {
    fn from(error: IrqError) -> Self {
        Self::Irq(error)
    }
}
