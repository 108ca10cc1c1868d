//! The SMMUv3 driver (Arm IHI 0070).

pub mod spec;
