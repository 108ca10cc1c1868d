//! From whatever state firmware left to an SMMU that translates, with every stream aborting (IHI 0070 §3.11).

use crate::frames::FrameBlock;
use crate::hw::Platform;

use super::command_queue::CommandQueue;
use super::device::Device;
use super::error::SmmuError;
use super::event_queue::EventQueue;
use super::features::Features;
use super::registers::Registers;
use super::spec::command::Command;
use super::spec::pages::{Register32, Register64};
use super::spec::registers::{CR0, CR1, CR2, GBPA, IRQ_CTRL};
use super::stream_table::{Layout, StreamTable};

/// The enables of CR0 this driver answers for.
const ENABLES: u32 = CR0::SMMUEN::SET.value
    | CR0::PRIQEN::SET.value
    | CR0::EVENTQEN::SET.value
    | CR0::CMDQEN::SET.value
    | CR0::ATSCHK::SET.value;

/// How large tables and queues are to be, at most: the SMMU's own limits apply as well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) stream_bits: u32,
    pub(super) command_queue_bits: u32,
    pub(super) event_queue_bits: u32,
}

/// What the SMMU works on from now on.
pub(super) struct Structures {
    pub(super) commands: CommandQueue,
    pub(super) events: EventQueue,
    pub(super) streams: StreamTable,
}

/// Brings the SMMU up.
///
/// # Errors
/// A register or command that was not answered in time, or no frames. What the SMMU may have been told of stays
/// taken then; frames it was not told of are given back.
pub(super) fn bring_up<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    features: &Features,
    sizes: Sizes,
) -> Result<Structures, SmmuError> {
    abort_while_disabled(device)?;
    disable_everything(device, features)?;
    let mut structures = Structures::alloc(device, features, sizes)?;
    program(device, features, &structures);
    let enabled = CR0::CMDQEN::SET.value | ats_check(features);
    set_enables(device, enabled)?;
    forget_everything(device, features, &mut structures.commands)?;
    // Before what they report is turned on: what happened before an enable never interrupts (§6.3.16).
    set_interrupts(device, IRQ_CTRL::EVENTQ::SET.value | IRQ_CTRL::GERROR::SET.value)?;
    let enabled = enabled | CR0::EVENTQEN::SET.value;
    set_enables(device, enabled)?;
    set_enables(device, enabled | CR0::SMMUEN::SET.value)?;
    Ok(structures)
}

/// Turns translation off; all traffic aborts. Commands and events go on.
pub(super) fn stop_translation<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    features: &Features,
) -> Result<(), SmmuError> {
    abort_while_disabled(device)?;
    set_enables(device, CR0::CMDQEN::SET.value | CR0::EVENTQEN::SET.value | ats_check(features))
}

/// Makes traffic abort, not bypass, while SMMUEN is 0 (§6.3.14). What it does at reset is IMPLEMENTATION DEFINED. The
/// register may only be written when no update is under way.
fn abort_while_disabled<P: Platform, R: Registers>(device: &Device<'_, P, R>) -> Result<(), SmmuError> {
    device.wait(Register32::Gbpa, GBPA::UPDATE::SET.value, 0)?;
    let attributes = device.registers.read32(Register32::Gbpa);
    device.registers.write32(Register32::Gbpa, attributes | GBPA::ABORT::SET.value | GBPA::UPDATE::SET.value);
    device.wait(Register32::Gbpa, GBPA::UPDATE::SET.value | GBPA::ABORT::SET.value, GBPA::ABORT::SET.value)
}

/// Turns off what firmware may have left on, so that guarded registers can be written (§6.2).
fn disable_everything<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    features: &Features,
) -> Result<(), SmmuError> {
    set_enables(device, ats_check(features))?;
    set_interrupts(device, 0)
}

/// ATSCHK, where there is ATS. Without it, whatever a device calls translated passes unchecked (§6.3.9), so it is set
/// from the first write on; and never cleared, which streams in use by ATS would not survive (§6.3.9.2).
const fn ats_check(features: &Features) -> u32 {
    if features.ats { CR0::ATSCHK::SET.value } else { 0 }
}

/// Writes CR0, all that was written before being visible, and waits until it has taken effect.
fn set_enables<P: Platform, R: Registers>(device: &Device<'_, P, R>, enables: u32) -> Result<(), SmmuError> {
    device.order_stores();
    device.registers.write32(Register32::Cr0, enables);
    device.wait(Register32::Cr0Ack, ENABLES, enables)
}

fn set_interrupts<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    enables: u32,
) -> Result<(), SmmuError> {
    device.registers.write32(Register32::IrqCtrl, enables);
    device.wait(Register32::IrqCtrlAck, !0, enables)
}

/// Everything that may only be written while all is off.
fn program<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    features: &Features,
    structures: &Structures,
) {
    device.registers.write32(Register32::Cr1, access_attributes(features));
    device.registers.write32(Register32::Cr2, controls(features));
    structures.streams.program(device);
    structures.commands.program(device);
    structures.events.program(device);
    if features.msi {
        // Address zero: no message is sent, the wired interrupt is used (§6.3.21).
        device.registers.write64(Register64::GerrorIrqCfg0, 0);
        device.registers.write64(Register64::EventqIrqCfg0, 0);
    }
    // Firmware's errors; an active CMDQ_ERR would keep our queue standing still.
    device.acknowledge(!0);
}

/// CR1: how the SMMU accesses queues and stream tables; the same as our own mapping of them, where that can be.
fn access_attributes(features: &Features) -> u32 {
    let attributes = if features.coherent {
        CR1::QUEUE_IC::WriteBack
            + CR1::QUEUE_OC::WriteBack
            + CR1::QUEUE_SH::Inner
            + CR1::TABLE_IC::WriteBack
            + CR1::TABLE_OC::WriteBack
            + CR1::TABLE_SH::Inner
    } else {
        CR1::QUEUE_IC::NonCacheable
            + CR1::QUEUE_OC::NonCacheable
            + CR1::QUEUE_SH::Outer
            + CR1::TABLE_IC::NonCacheable
            + CR1::TABLE_OC::NonCacheable
            + CR1::TABLE_SH::Outer
    };
    attributes.value
}

/// CR2: unknown streams are reported. Broadcast TLB maintenance is not taken part in: the PEs' VMIDs are not the
/// SMMU's, whose TLB is invalidated by command alone. E2H stays 0: no stream is EL2's.
fn controls(features: &Features) -> u32 {
    let private = if features.broadcast_tlbi { CR2::PTM::SET.value } else { 0 };
    CR2::RECINVSID::SET.value | private
}

/// Empties caches and TLBs, whose state at reset is IMPLEMENTATION SPECIFIC (§3.11): configuration first, lest stale
/// configuration fills the TLB again (§4.3.6).
fn forget_everything<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    features: &Features,
    commands: &mut CommandQueue,
) -> Result<(), SmmuError> {
    let el2 = features.el2_contexts.then_some(Command::TlbiEl2All);
    let all = [Command::CfgiAll].into_iter().chain(el2).chain([Command::TlbiNsnhAll]);
    Ok(commands.execute(device, all)?)
}

impl Structures {
    /// All three, or none.
    fn alloc<P: Platform, R: Registers>(
        device: &Device<'_, P, R>,
        features: &Features,
        sizes: Sizes,
    ) -> Result<Self, SmmuError> {
        let layout = Layout::new(features, sizes.stream_bits.min(features.stream_bits));
        let command_bits = sizes.command_queue_bits.min(features.command_queue_bits);
        let event_bits = sizes.event_queue_bits.min(features.event_queue_bits);
        let bytes = [layout.bytes(), CommandQueue::bytes(command_bits), EventQueue::bytes(event_bits)];
        let [table, commands, events] = alloc_all(device, bytes)?;
        Ok(Self {
            commands: CommandQueue::new(commands, command_bits),
            events: EventQueue::new(events, event_bits),
            streams: StreamTable::new(device, layout, table),
        })
    }
}

/// A block for each of `bytes`, or none at all.
fn alloc_all<P: Platform, R: Registers>(
    device: &Device<'_, P, R>,
    bytes: [u64; 3],
) -> Result<[FrameBlock; 3], SmmuError> {
    match bytes.map(|bytes| device.alloc(bytes)) {
        [Ok(first), Ok(second), Ok(third)] => Ok([first, second, third]),
        blocks => {
            let mut missing = SmmuError::OutOfFrames { order: 0 };
            for block in blocks {
                match block {
                    Ok(block) => device.platform.free(block),
                    Err(error) => missing = error,
                }
            }
            Err(missing)
        }
    }
}
