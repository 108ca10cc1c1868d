//! Strandline's driver and engine on the model of the hardware: as they are, and broken on purpose.

mod broken;
mod catches;
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
