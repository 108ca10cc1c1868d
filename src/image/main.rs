//! Strandline's bootable image: it starts at EL2, finds out what machine it is on, and hosts guests whose writes, and
//! whose devices' writes, it logs.
//!
//! For `target_os = "none"` this is the image. On a host the same binary is a small runner that boots the image under
//! an emulator, so that `cargo run` does what one expects; its tests are those of the image's pure parts.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]
#![cfg_attr(
    all(test, feature = "image", not(target_os = "none")),
    expect(unused_imports, reason = "on a host the tests alone use the pure parts")
)]

#[cfg(all(target_os = "none", not(feature = "image")))]
compile_error!("the image is built with --features image (a user of the library builds with --lib)");

#[cfg(all(feature = "image", any(target_os = "none", test)))]
extern crate alloc;

// Pure: what these do depends on their input alone, and is tested on the host.
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod aarch32;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod args;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod efi;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod entropy;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod guest_dt;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod guest_map;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod handover;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod id_registers;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod inject;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod loader;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod machine;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod mapping;
#[cfg(all(feature = "image", target_os = "none"))]
use strandline::midr;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod mmio;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod psci;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod ram;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod sort;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod trapped;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod vpci;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod vuart;
#[cfg(all(feature = "image", any(target_os = "none", test)))]
mod write_protect;

// The machine itself.
#[cfg(target_os = "none")]
mod audit;
#[cfg(target_os = "none")]
mod banner;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod cache;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod failure;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod header;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod irq;
#[cfg(target_os = "none")]
mod layout;
#[cfg(target_os = "none")]
mod masked;
#[cfg(target_os = "none")]
mod mmu;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
mod pci;
#[cfg(target_os = "none")]
mod platform;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod smmus;
#[cfg(target_os = "none")]
mod sysreg;
#[cfg(target_os = "none")]
mod timer;
#[cfg(target_os = "none")]
mod vcpu;
#[cfg(target_os = "none")]
mod vectors;

#[cfg(not(target_os = "none"))]
mod runner;

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    runner::main()
}
