//! The SMMUv3 driver (Arm IHI 0070).

mod command_queue;
mod device;
mod error;
mod event_queue;
mod fault;
mod features;
mod global_error;
mod registers;
mod ring;
pub mod spec;

pub use device::Statistics;
pub use error::{CommandError, SmmuError, Stage2Error};
pub use event_queue::Drained;
pub use fault::{Access, FaultClass, FaultEvent, FaultKind};
pub use features::{Bbml, Features, Httu, Limits, StallModel, Unsupported};
pub use global_error::GlobalErrors;
pub use registers::{Mmio, Registers};
