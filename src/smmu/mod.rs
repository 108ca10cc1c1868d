//! The SMMUv3 driver (Arm IHI 0070).

mod features;
mod registers;
pub mod spec;

pub use features::{Bbml, Features, Httu, Limits, StallModel, Unsupported};
pub use registers::{Mmio, Registers};
