//! A runtime library for small guest kernels at EL1, and the pure logic their checks are made of.
//!
//! A guest runs with MMU and caches off: all memory is Device-nGnRnE to it, every access is aligned, nothing needs cache
//! maintenance. The modules that touch the machine exist for the bare target only; the others run on the host as well.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    target_os = "none",
    expect(
        clippy::result_large_err,
        reason = "a check that fails is the last thing that happens; there is no heap"
    )
)]

pub mod area;
pub mod args;
pub mod bar;
pub mod bitmap;
pub mod marks;
pub mod pages;
pub mod picture;
pub mod reason;
pub mod rng;
pub mod tree;

#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod edu;
#[cfg(target_os = "none")]
pub mod log;
#[cfg(target_os = "none")]
pub mod nvme;
#[cfg(target_os = "none")]
pub mod pci;
#[cfg(target_os = "none")]
pub mod power;
#[cfg(target_os = "none")]
pub mod timer;
#[cfg(target_os = "none")]
pub mod virtio;
#[cfg(target_os = "none")]
pub mod window;
