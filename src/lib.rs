//! Strandline's library: a stage-2 engine, an SMMUv3 driver and a dirty log that tells, page by page, what vCPUs and
//! devices have written.
//!
//! The library is pure logic: it builds for the host as well as for bare metal, knows no board, has no global
//! state, and reaches hardware through the small traits of [`hw`] and [`frames`] alone.
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
pub mod frames;
#[forbid(unsafe_code)]
pub mod guest;
#[forbid(unsafe_code)]
pub mod hw;
#[cfg(feature = "hypercall")]
#[forbid(unsafe_code)]
pub mod hypercall;
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
