//! The machine's SMMUs: brought up, and their events brought to the VMs.
#![expect(unsafe_code, reason = "references to registers at addresses the device tree gives")]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::with_exposed_provenance_mut;

use strandline::addr::StreamId;
use strandline::smmu::{Errata, FaultEvent, GlobalErrorReport, GlobalErrors, Limits, Mmio, Options, Smmu};

use super::console::say;
use super::irq::{self, Pending};
use super::machine::{Machine, Region, SmmuNode};
use super::platform::Platform;

/// An SMMU of the machine.
pub type RealSmmu = Smmu<'static, Platform, Mmio>;

/// Bytes of the two register pages (IHI 0070 §6.1).
const PAGES_BYTES: u64 = 0x2_0000;

/// All SMMUs, in the order of the device tree.
pub struct Smmus {
    list: Vec<RealSmmu>,
    inbox: Inbox,
}

/// What comes in from the SMMUs: events and errors.
#[derive(Default)]
pub struct Inbox {
    /// Events of streams that no VM owns: counted, and the first few told.
    strays: u32,
    /// Reports of global errors so far: the first few are told.
    errors: u32,
}

/// How many events of strays are told.
const TOLD_STRAYS: u32 = 8;
/// How many reports of global errors are told: a device that floods its event queue causes them at will.
const TOLD_ERRORS: u32 = 8;

impl Smmus {
    /// Brings all of them up: every stream aborts from here on.
    ///
    /// # Errors
    /// One can't be used, or did not answer; says which and why.
    pub fn bring_up(machine: &Machine, platform: &'static Platform) -> Result<Self, String> {
        let mut list = Vec::new();
        for (index, node) in machine.smmus.iter().enumerate() {
            let at = node.region.start();
            let smmu = start(node, &machine.overrides.smmu, platform)
                .map_err(|why| format!("SMMU at {at}: {why}"))?;
            say!("strandline: SMMU {index} at {at}: {}", describe(&smmu));
            for note in smmu.features().notes.iter() {
                say!("strandline: SMMU {index}: {}", note.text());
            }
            list.push(smmu);
        }
        Ok(Self { list, inbox: Inbox::default() })
    }

    /// The drivers, and what comes in from them.
    pub fn split(&mut self) -> (&[RealSmmu], &mut Inbox) {
        (&self.list, &mut self.inbox)
    }
}

fn start(node: &SmmuNode, board: &Limits, platform: &'static Platform) -> Result<RealSmmu, String> {
    let registers = registers(node.region)?;
    // What the tree does not call coherent is not; what it calls so is, if the SMMU and the board say so too.
    let limits = Limits { coherent: if node.coherent { board.coherent } else { Some(false) }, ..*board };
    let options = Options { limits, errata: Errata::of_compatible(node.compatible), ..Options::default() };
    Smmu::new(platform, registers, &options).map_err(|error| format!("{error}"))
}

fn registers(region: Region) -> Result<Mmio, String> {
    if region.bytes() < PAGES_BYTES {
        return Err("its registers need 128 KiB".into());
    }
    // SAFETY: 1. EL2 maps them as device memory, for ever. 2. The device tree says that an SMMUv3's register pages are there;
    // `Machine` has checked that no RAM and no other device is. 3. The driver is the only one who accesses them.
    unsafe { Mmio::at(with_exposed_provenance_mut(region.start().0 as usize)) }
        .map_err(|error| format!("{error}"))
}

/// What matters of its abilities, in one line.
fn describe(smmu: &RealSmmu) -> String {
    let features = smmu.features();
    format!(
        "SMMUv3.{}, {} StreamID bits, {}-bit output, {}, hardware update {}, break-before-make {}{}",
        features.minor_version,
        features.stream_bits,
        features.output_bits,
        if features.coherent { "coherent" } else { "not coherent" },
        features.httu,
        features.bbml,
        if features.range_invalidation { ", range invalidation" } else { "" },
    )
}

/// Who wants to know of the events of a stream.
pub trait EventSink {
    /// Takes an event of `stream` behind SMMU `smmu`; `false` where it is not this one's.
    fn event(&mut self, smmu: usize, event: &FaultEvent) -> bool;
    /// An event queue has overflowed: records of whatever stream were lost.
    fn lost(&mut self);
}

impl Inbox {
    /// Handles what interrupts have noted.
    pub fn attend(&mut self, smmus: &[RealSmmu], sink: &mut impl EventSink) {
        let Pending { events, gerrors, .. } = irq::take_pending();
        for (index, smmu) in smmus.iter().enumerate() {
            if gerrors >> index & 1 == 1 {
                let report = smmu.handle_gerror();
                self.tell(index, &report);
                if report.errors.contains(GlobalErrors::EVENT_QUEUE_ABORT) {
                    sink.lost();
                }
            }
            if events >> index & 1 == 1 {
                self.drain(index, smmu, sink);
            }
        }
    }

    /// Reads the event queues, whether an interrupt said so or not.
    pub fn poll(&mut self, smmus: &[RealSmmu], sink: &mut impl EventSink) {
        for (index, smmu) in smmus.iter().enumerate() {
            self.drain(index, smmu, sink);
        }
    }

    /// Tells of a global error, unless there were many, or whoever waited behind a command has dealt with it.
    fn tell(&mut self, index: usize, report: &GlobalErrorReport) {
        if report.errors.is_empty() {
            return;
        }
        self.errors = self.errors.saturating_add(1);
        if self.errors > TOLD_ERRORS {
            return;
        }
        say!("strandline: SMMU {index}: global error {:?}", report.errors);
        if let Some(command) = report.command {
            say!("strandline: SMMU {index}: {command}");
        }
    }

    fn drain(&mut self, index: usize, smmu: &RealSmmu, sink: &mut impl EventSink) {
        let drained = smmu.drain_events(|event| {
            if sink.event(index, event) {
                return;
            }
            self.strays = self.strays.saturating_add(1);
            if self.strays <= TOLD_STRAYS {
                say!("strandline: SMMU {index}: {event}, which no VM owns");
            }
        });
        if drained.overflowed {
            sink.lost();
        }
        if drained.more {
            // As many as the queue holds at once: a source that floods is heard again after the next exit.
            irq::note_events(index);
        }
    }
}

/// A stream as the machine knows it: the SMMU's index and the StreamID behind it.
pub type Stream = (usize, StreamId);
