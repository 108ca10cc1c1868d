//! The shapes of IHI 0070: registers, stream table entries, commands, event records. Types and section numbers
//! only; what is done with them stands in the modules beside this one.

#[expect(
    missing_docs,
    reason = "register_bitfields! documents a field's module, not the constant of the same name"
)]
pub mod command;
#[expect(
    missing_docs,
    reason = "register_bitfields! documents a field's module, not the constant of the same name"
)]
pub mod event;
pub mod pages;
#[expect(
    missing_docs,
    reason = "register_bitfields! documents a field's module, not the constant of the same name"
)]
pub mod registers;
#[expect(
    missing_docs,
    reason = "register_bitfields! documents a field's module, not the constant of the same name"
)]
pub mod ste;
