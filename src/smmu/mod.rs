//! The SMMUv3 driver (Arm IHI 0070).
//!
//! [`Smmu::new`] brings an SMMU up; from then on every stream goes through the stage-2 view it was attached to, or
//! aborts. The driver is logic alone: memory, frames, barriers and time come from a [`crate::hw::Platform`], registers
//! from a [`Registers`], so that it runs against [`Mmio`] and against models alike.
//!
//! What is not used, and turned off: stage 1, ATS and PRI, broadcast TLB maintenance, message-signalled interrupts,
//! enhanced command queues, the secure and realm programming interfaces.

mod bring_up;
mod command_queue;
mod device;
mod driver;
mod errata;
mod error;
mod event_queue;
mod fault;
mod features;
mod global_error;
mod invalidate;
mod limits;
mod note;
mod registers;
mod ring;
mod spec;
mod stage2_config;
mod stall;
mod stream_table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod vmid;

pub use device::Statistics;
pub use driver::{GlobalErrorReport, Options, Quarantined, Smmu};
pub use errata::Errata;
pub use error::{CommandError, SmmuError, Stage2Error};
pub use event_queue::Drained;
pub use fault::{Access, FaultClass, FaultEvent, FaultKind};
pub use features::{Bbml, Features, Httu, StallModel, Unsupported};
pub use global_error::GlobalErrors;
pub use limits::{Ability, Limits};
pub use note::{Note, Notes};
pub use registers::{Mmio, Registers};
pub use spec::command::RawCommand;
pub use spec::pages::{Page0, Page1, Register32, Register64};
pub use stage2_config::{Stage2Config, ViewSte};
pub use stall::StallQueue;
