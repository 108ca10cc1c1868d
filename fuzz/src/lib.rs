//! What is fuzzed, apart from the fuzzer: each target is a function of some bytes, which panics where a rule of the
//! contract is broken. The same functions replay the corpus on the stable toolchain (`tests/corpus.rs`).

mod dispatch;
mod guest_memory;
mod input;
mod life;
mod machine;
mod shadow;

pub use dispatch::dispatch;
pub use guest_memory::guest_memory;
