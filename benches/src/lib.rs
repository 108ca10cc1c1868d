//! What the library and the image cost: beside the limit of the same machine in the same run, and beside the published
//! crates that do the same work.
//!
//! `benches/host` takes wall-clock time on the host, [`emulator`] counts instructions and SMMU commands of the image under
//! QEMU. Both leave [`figure::Figure`]s in `target/bench`; [`report`] makes tables and plots of them.

pub mod clock;
pub mod contest;
pub mod emulator;
pub mod figure;
pub mod machine;
pub mod plot;
pub mod report;
