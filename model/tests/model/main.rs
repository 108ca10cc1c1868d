//! Strandline's driver and engine on the model of the hardware: as they are, and broken on purpose.

mod broken;
mod catches;
mod life;
mod rules;
mod vm;
