//! What is fuzzed, apart from the fuzzer: each target is a function of some bytes, which panics where a rule of the
//! contract is broken. The same functions replay the corpus on the stable toolchain (`tests/corpus.rs`).

extern crate alloc;

mod device_tree;
mod dispatch;
mod guest_memory;
mod input;
mod life;
mod shadow;
mod strict;

// The image's own reader of device trees. It belongs to a program, not to the library: its files are taken as they are.
#[path = "../../src/image/handover.rs"]
mod handover;
#[path = "../../src/image/machine/mod.rs"]
#[expect(dead_code, reason = "the image uses more of it")]
#[cfg_attr(not(test), expect(unused_imports, reason = "the image uses more of it"))]
mod machine;
#[path = "../../src/image/sort.rs"]
mod sort;

pub use device_tree::{described, device_tree};
pub use dispatch::dispatch;
pub use guest_memory::guest_memory;
