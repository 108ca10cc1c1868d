//! Strandline's library: a stage-2 engine, an SMMUv3 driver and a dirty log that tells, page by page, what vCPUs and
//! devices have written.
//!
//! The library is pure logic: it builds for the host as well as for bare metal, knows no board, has no global
//! state, and reaches hardware through the small traits of [`hw`] and [`frames`] alone.
//!
//! # Where to begin
//! `docs/library.md` goes from nothing to a log in six steps. In short: implement [`hw::Memory`], [`hw::Cpu`] and
//! [`frames::FrameSource`] for one type of yours and try it with [`check::platform`]; bring each SMMU up with
//! [`smmu::Smmu::new`]; make a [`guest::Guest`], map its memory, attach its devices, start its log, sync.
//!
//! # The layers
//! * [`guest`]: the front, where types leave out what can be got wrong.
//! * [`address_space`], [`dirty_log`], [`smmu`]: the parts it is made of, for who shares them in other ways.
//! * [`stage2`]: the engine: trees, views, and the orders in which their changes reach a walker.
//! * [`hw`], [`frames`], [`mmio`], [`check`], [`midr`]: the seam to your machine.
//! * `vm` and `hypercall` (feature `hypercall`): a log as guests see it.
//!
//! # Specifications
//! Sections are those of Arm IHI 0070 (SMMUv3) where nothing else is said, of the Arm Architecture Reference Manual (DDI
//! 0487) as *Arm ARM*, and of DEN 0028 (SMCCC).
#![cfg_attr(not(test), no_std)]

#[forbid(unsafe_code)]
pub mod addr;
#[forbid(unsafe_code)]
pub mod address_space;
#[forbid(unsafe_code)]
pub mod check;
#[forbid(unsafe_code)]
pub mod dirty_log;
#[forbid(unsafe_code)]
mod error;
#[cfg(test)]
mod fake;
#[forbid(unsafe_code)]
mod fifo;
pub mod frames;
#[forbid(unsafe_code)]
pub mod guest;
#[forbid(unsafe_code)]
pub mod hw;
#[cfg(feature = "hypercall")]
#[forbid(unsafe_code)]
pub mod hypercall;
#[forbid(unsafe_code)]
pub mod midr;
pub mod mmio;
#[doc(hidden)]
pub mod sabotage;
#[forbid(unsafe_code)]
pub mod smmu;
#[forbid(unsafe_code)]
pub mod stage2;
#[cfg(feature = "hypercall")]
#[forbid(unsafe_code)]
pub mod vm;

pub use error::Error;

/// The steps of `docs/library.md`, as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
mod library_md {}
