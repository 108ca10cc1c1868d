//! The hardware as an adversary: a software SMMUv3, PEs with stage-2 TLBs, and the memory between them, against which
//! Strandline's driver and engine run unchanged through their hardware traits.
//!
//! [`Machine`] implements [`strandline::hw::Memory`], [`strandline::hw::Cpu`] and [`strandline::frames::Frames`];
//! [`SmmuPort`] implements [`strandline::smmu::Registers`]. Every access that software makes through them first lets
//! hardware take a random number of steps, so that devices, vCPUs, walkers and the Command queue interleave with
//! software at every memory access. Hardware keeps in its caches all that the architecture lets it keep, does late
//! all that it lets be late, and where software breaks a rule an [`Alarm`] says which one and what happened.
//!
//! A run is a function of its [`Parameters`], the seed among them. There are no globals: any number of machines run
//! side by side.
#![forbid(unsafe_code)]

mod alarm;
mod core;
mod descriptor;
mod device;
mod due;
mod journal;
mod machine;
mod memory;
mod parameters;
mod pe;
mod pool;
mod random;
mod references;
mod smmu;
mod tally;
mod tlb;
mod translate;
mod truth;
mod update;
mod walk;

pub use alarm::{Alarm, Rule};
pub use device::{Dma, Window};
pub use machine::{Machine, ModelWord, SmmuPort, WriteFault};
pub use parameters::{Parameters, PeParameters, SmmuParameters};
pub use pool::Pool;
pub use tally::Tally;
pub use truth::{Abort, Reason, Report, Source, Write};
