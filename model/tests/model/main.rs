//! Strandline's driver and engine on the model of the hardware: as they are, and broken on purpose.

mod broken;
mod catches;
mod embedder;
/// What the example of an embedder does: here on the model.
#[path = "../../../examples/embedding/src/story.rs"]
mod embedding;
mod frames;
mod gate;
mod guest;
mod host;
mod life;
mod lying;
mod page;
mod properties;
mod queues;
mod ranges;
mod rules;
mod shadow;
mod smmus;
mod stalls;
mod table_flags;
mod vm;
