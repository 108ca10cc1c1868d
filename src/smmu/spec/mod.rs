//! The shapes of IHI 0070: registers, stream table entries, commands, event records. Types and section numbers
//! only; what is done with them stands in the modules beside this one.

pub mod command;
pub mod event;
pub mod pages;
pub mod registers;
pub mod ste;
