//! The driver against an SMMU that behaves, and misbehaves.

mod bring_up;
mod commands;
mod errata;
mod events;
mod invalidation;
mod stalls;
mod streams;
mod switch;
mod vmids;

use crate::addr::{Pa, Vmid};
use crate::fake::{Fake, take_trace};

use super::testing::FakeSmmu;
use super::{Httu, Options, Smmu, Stage2Config};

/// The driver of a test.
type Driver<'a> = Smmu<'a, Fake, &'a FakeSmmu<'a>>;

/// Where things come to lie with [`small_options`]: a frame each, in the order they are allocated.
const STREAM_TABLE: Pa = Pa(0x1_4000_0000);
const COMMAND_QUEUE: Pa = Pa(0x1_4000_1000);
const EVENT_QUEUE: Pa = Pa(0x1_4000_2000);
const FIRST_LEVEL2: Pa = Pa(0x1_4000_3000);

/// StreamIDs of 8 bits in two levels, 256 commands, 4 records, 1000 µs.
fn small_options() -> Options {
    Options {
        stream_bits: 8,
        command_queue_bits: 8,
        event_queue_bits: 2,
        timeout_us: 1000,
        ..Options::default()
    }
}

/// Brings `hardware` up with [`small_options`] and forgets how.
fn up<'a>(memory: &'a Fake, hardware: &'a FakeSmmu<'a>) -> Driver<'a> {
    up_with(memory, hardware, &small_options())
}

fn up_with<'a>(memory: &'a Fake, hardware: &'a FakeSmmu<'a>, options: &Options) -> Driver<'a> {
    let smmu = Smmu::new(memory, hardware, options).unwrap();
    take_trace();
    hardware.take_consumed();
    smmu
}

/// A view of 39 IPA bits: its STE is `VIEW_STE` on an SMMU like QEMU's.
const VIEW: Stage2Config = Stage2Config {
    vmid: Vmid(5),
    root: Pa(0x4123_4000),
    ipa_bits: 39,
    start_level: 1,
    output_bits: 44,
    hardware_update: Httu::None,
};
