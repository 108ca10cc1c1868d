//! The driver: one SMMU, brought up, and what can be asked of it.

use core::fmt;

use spin::Mutex;

use crate::addr::{StreamId, Vmid};
use crate::hw::{
    CommandCounts, DmaRoot, DmaTlb, DmaTlbError, Platform, Resume, ResumeError, Scope, SizeChange, Stall,
    StallTlb, TreeSwitch,
};

use super::bring_up::{self, Sizes};
use super::command_queue::CommandQueue;
use super::device::{Device, Statistics};
use super::errata::Errata;
use super::error::{CommandError, SmmuError};
use super::event_queue::{Drained, EventQueue};
use super::fault::FaultEvent;
use super::features::{Bbml, Features};
use super::global_error::GlobalErrors;
use super::invalidate::Invalidation;
use super::limits::Limits;
use super::registers::Registers;
use super::spec::command::Command;
use super::stage2_config::{Stage2Config, ViewSte};
use super::stream_table::StreamTable;
use super::vmid::VmidPool;

/// How an SMMU is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What firmware and the board take away from its abilities.
    pub limits: Limits,
    /// Errata of it that SMMU_IIDR does not tell: what [`Errata::of_compatible`] says, and what the board knows.
    pub errata: Errata,
    /// Bits of the StreamIDs the stream table covers, at most: streams beyond abort and cannot be attached. The first
    /// level takes `2^(bits - 6)` times 8 bytes of contiguous memory. Default: 20, 128 KiB.
    pub stream_bits: u32,
    /// `log2` of the commands the Command queue holds, at most. Default: 8, one frame.
    pub command_queue_bits: u32,
    /// `log2` of the records the Event queue holds, at most. Default: 9, four frames.
    pub event_queue_bits: u32,
    /// How long the SMMU may take to answer any one thing, in microseconds. Default: one second.
    pub timeout_us: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            errata: Errata::empty(),
            stream_bits: 20,
            command_queue_bits: 8,
            event_queue_bits: 9,
            timeout_us: 1_000_000,
        }
    }
}

/// What [`Smmu::handle_gerror`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalErrorReport {
    /// The errors that were active. A command error that a core is waiting behind is left to that core.
    pub errors: GlobalErrors,
    /// The command error that was repaired here, if one was.
    pub command: Option<CommandError>,
}

/// What is out of use for good because the SMMU did not confirm that it has forgotten it: see [`Smmu::quarantined`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// VMIDs. The frames of their views are the caller's to keep, and to count.
    pub vmids: u32,
    /// Streams.
    pub streams: u32,
    /// 4 KiB frames of the driver's own: level-2 stream tables.
    pub frames: u32,
}

/// One SMMU that translates: every stream goes through the view it was attached to, or aborts.
///
/// Methods take `&self` and lock what they touch, each lock for one purpose (streams before commands, where both
/// are held). Those that issue commands wait for the SMMU with the Command queue locked; [`crate::hw::Cpu::relax`]
/// may take interrupts meanwhile, so they must not be called from an interrupt handler. [`Smmu::drain_events`] and
/// [`Smmu::handle_gerror`] never wait for the SMMU and may, provided interrupts are masked around other calls of
/// `drain_events` on the same core.
pub struct Smmu<'p, P, R> {
    device: Device<'p, P, R>,
    features: Features,
    commands: Mutex<CommandQueue>,
    events: Mutex<EventQueue>,
    streams: Mutex<StreamTable>,
    vmids: Mutex<VmidPool>,
}

impl<P, R> fmt::Debug for Smmu<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smmu").field("features", &self.features).finish_non_exhaustive()
    }
}

impl<'p, P: Platform, R: Registers> Smmu<'p, P, R> {
    /// Brings up the SMMU behind `registers` from whatever state firmware left it in. When this returns, traffic of
    /// every stream aborts, and no cache or TLB holds anything from before. It never passes through in between.
    ///
    /// # Errors
    /// It lacks what the driver needs, or [`Options::limits`] would raise an ability (then nothing was touched), there
    /// are no frames (then all traffic aborts), or
    /// it did not answer in time (then the frames it was told of stay taken).
    pub fn new(platform: &'p P, registers: R, options: &Options) -> Result<Self, SmmuError> {
        let features = Features::read(&registers, &options.limits, options.errata)?;
        let device = Device::new(platform, registers, &features, options.timeout_us);
        let sizes = Sizes {
            stream_bits: options.stream_bits,
            command_queue_bits: options.command_queue_bits,
            event_queue_bits: options.event_queue_bits,
        };
        let structures = bring_up::bring_up(&device, &features, sizes)?;
        Ok(Self {
            device,
            features,
            commands: Mutex::new(structures.commands),
            events: Mutex::new(structures.events),
            streams: Mutex::new(structures.streams),
            vmids: Mutex::new(VmidPool::new(features.vmid16)),
        })
    }

    /// What the SMMU can do, less what was taken away from it.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What the driver has done so far, bring-up included.
    pub fn statistics(&self) -> Statistics {
        self.device.counters.snapshot()
    }

    /// What is out of use for good because an invalidation did not complete. It never shrinks.
    pub fn quarantined(&self) -> Quarantined {
        let (streams, frames) = self.streams.lock().quarantined();
        Quarantined { vmids: self.vmids.lock().quarantined(), streams, frames }
    }

    /// Takes a VMID for a new view. No TLB entry of it is left from an earlier one.
    ///
    /// # Errors
    /// All are taken, or the invalidation did not complete.
    pub fn alloc_vmid(&self) -> Result<Vmid, SmmuError> {
        self.fresh_vmid()?.ok_or(SmmuError::OutOfVmids)
    }

    fn fresh_vmid(&self) -> Result<Option<Vmid>, CommandError> {
        let Some(vmid) = self.vmids.lock().take() else { return Ok(None) };
        // If that fails: nothing has used it since an invalidation of it completed.
        let forgotten = self.execute([Command::TlbiS12Vmall(vmid)]);
        forgotten.inspect_err(|_| self.vmids.lock().give_back(vmid))?;
        Ok(Some(vmid))
    }

    /// Gives back the VMID of a view that no stream is attached to any more. When this returns, no TLB entry of it is
    /// left: the view's frames may be reused.
    ///
    /// # Errors
    /// It was not allocated. Or the invalidation did not complete: the VMID is quarantined, and the view's frames may
    /// not be reused either.
    pub fn free_vmid(&self, vmid: Vmid) -> Result<(), SmmuError> {
        let (taken, quarantined) = {
            let vmids = self.vmids.lock();
            (vmids.is_taken(vmid), vmids.is_quarantined(vmid))
        };
        if quarantined {
            return Err(SmmuError::VmidQuarantined(vmid));
        }
        if !taken {
            return Err(SmmuError::UnknownVmid(vmid));
        }
        self.execute([Command::TlbiS12Vmall(vmid)]).inspect_err(|_| self.vmids.lock().quarantine(vmid))?;
        self.vmids.lock().give_back(vmid);
        Ok(())
    }

    /// The STE of `config`'s view, for [`Smmu::attach`] of each of its streams.
    ///
    /// # Errors
    /// This SMMU cannot have such an STE.
    pub fn view(&self, config: &Stage2Config) -> Result<ViewSte, SmmuError> {
        Ok(ViewSte::new(config, &self.features)?)
    }

    /// `ste` for a stream that may stall: a write that meets a writable-clean leaf waits there. Firmware has said that
    /// the device and what lies between it and the SMMU bear that; nothing on PCIe does (§3.12.1).
    ///
    /// # Errors
    /// This SMMU never stalls.
    pub fn stalling(&self, ste: ViewSte) -> Result<ViewSte, SmmuError> {
        Ok(ste.stalling(&self.features)?)
    }

    /// Sends `stream` through the view of `ste`, made by this SMMU's [`Smmu::view`]. The view's tables are complete,
    /// and on an SMMU that is not coherent cleaned.
    ///
    /// # Errors
    /// The stream is beyond the table, attached or quarantined, the view's streams have been sent through another tree
    /// since `ste` was made, or there is no frame for the part of the table it stands in: nothing was changed. Or the SMMU did not carry the commands out: the stream is not attached; but
    /// where it did not confirm that either, it may still come to use the view: the stream is quarantined, and the
    /// view's frames must not be reused.
    pub fn attach(&self, stream: StreamId, ste: &ViewSte) -> Result<(), SmmuError> {
        let mut streams = self.streams.lock();
        if self.vmids.lock().is_left(ste.vmid()) {
            return Err(SmmuError::TreeLeft(ste.vmid()));
        }
        streams.attach(&self.device, &mut self.commands.lock(), stream, ste)
    }

    /// Makes `stream` abort, silently. When this returns, transactions that went through its view have completed
    /// (§3.21.3); TLB entries of the VMID remain. Detaching a stream that is not attached does the same again, so a
    /// detach that failed can be repeated, until its device is known to have stopped.
    ///
    /// What of a stream that may stall ([`Smmu::stalling`]) had stalled is marked for termination (§4.7.2), and must not
    /// be answered any more: [`super::StallQueue::detach`] is the way for such a stream.
    ///
    /// # Errors
    /// The stream is beyond the table. Or the SMMU did not carry the commands out: it may still use the view, and the
    /// stream is quarantined: it is not attached again, whatever a repeated detach says.
    pub fn detach(&self, stream: StreamId) -> Result<(), SmmuError> {
        let mut streams = self.streams.lock();
        streams.detach(&self.device, &mut self.commands.lock(), stream)
    }

    /// Whether the STE of `stream` lets it through.
    pub(super) fn is_attached(&self, stream: StreamId) -> bool {
        self.streams.lock().is_attached(&self.device, stream)
    }

    /// Gives `sink` the event records that are there, oldest first, at most as many as the queue holds. Call it from
    /// the Event queue's interrupt, or now and then.
    ///
    /// `sink` runs with the Event queue locked: it may not call this method.
    pub fn drain_events(&self, sink: impl FnMut(&FaultEvent)) -> Drained {
        self.drain_some_events(u32::MAX, sink)
    }

    /// [`Smmu::drain_events`] of `most` records at the most. The others stay in the queue: an SMMU whose queue is full
    /// keeps stalled transactions until it can record them (§7.2.1).
    pub fn drain_some_events(&self, most: u32, sink: impl FnMut(&FaultEvent)) -> Drained {
        self.events.lock().drain(&self.device, most, sink)
    }

    /// How many records the Event queue holds.
    pub(super) fn event_capacity(&self) -> u32 {
        self.events.lock().capacity()
    }

    /// Acknowledges the global errors that are active, and repairs the Command queue, unless a core is waiting behind
    /// a command: that core does it, and returns the error. Call it from the global-error interrupt, or now and then.
    pub fn handle_gerror(&self) -> GlobalErrorReport {
        let active = GlobalErrors::from_bits_retain(self.device.active_errors());
        let others = self.device.acknowledge((active - GlobalErrors::COMMAND_QUEUE).bits());
        if GlobalErrors::from_bits_retain(others).contains(GlobalErrors::EVENT_QUEUE_ABORT) {
            self.device.counters.events_lost.add(1);
        }
        let command = self.commands.try_lock().and_then(|mut commands| commands.repair(&self.device));
        GlobalErrorReport { errors: active, command }
    }

    /// Turns translation off: all traffic aborts. Attached streams stay noted, commands and events go on.
    ///
    /// # Errors
    /// The SMMU did not answer in time.
    pub fn disable(&self) -> Result<(), SmmuError> {
        let _streams = self.streams.lock();
        bring_up::stop_translation(&self.device, &self.features)
    }

    fn execute(&self, commands: impl IntoIterator<Item = Command> + Clone) -> Result<(), CommandError> {
        self.commands.lock().execute(&self.device, commands)
    }
}

impl<P: Platform, R: Registers> StallTlb for Smmu<'_, P, R> {
    fn resume(&self, stall: &Stall, how: Resume) -> Result<(), ResumeError> {
        let command = Command::Resume { stream: stall.stream, stag: stall.stag, how };
        let answered = self.commands.lock().answer(&self.device, command);
        answered.map_err(|(error, issued)| ResumeError { error: error.into(), issued })
    }
}

impl<P: Platform, R: Registers> DmaTlb for Smmu<'_, P, R> {
    fn sync(&self) -> Result<(), DmaTlbError> {
        Ok(self.execute([])?)
    }

    fn invalidate(&self, vmid: Vmid, scope: Scope) -> Result<(), DmaTlbError> {
        Ok(self.execute(Invalidation::new(vmid, scope, self.features.range_invalidation))?)
    }

    fn commands(&self) -> CommandCounts {
        let Statistics { commands, tlbi_vmall, tlbi_ipa, syncs, .. } = self.statistics();
        CommandCounts { all: commands, tlbi_vmall, tlbi_ipa, syncs }
    }

    fn switching(&self) -> Option<&dyn TreeSwitch> {
        let Features { bbml, coherent, .. } = self.features;
        let able = bbml == Bbml::Level0 && coherent && self.device.platform.pairs().is_some();
        if able { Some(self) } else { None }
    }

    fn size_change(&self) -> SizeChange {
        match self.features.bbml {
            Bbml::Level0 => SizeChange::Never,
            Bbml::Level1 => SizeChange::ThroughNt,
            Bbml::Level2 => SizeChange::Direct,
        }
    }
}

impl<P: Platform, R: Registers> TreeSwitch for Smmu<'_, P, R> {
    fn take_vmid(&self) -> Result<Option<Vmid>, DmaTlbError> {
        Ok(self.fresh_vmid()?)
    }

    fn end_vmid(&self, vmid: Vmid, forgotten: bool) {
        let mut vmids = self.vmids.lock();
        if forgotten { vmids.give_back(vmid) } else { vmids.quarantine(vmid) }
    }

    fn switch(&self, from: DmaRoot, to: DmaRoot) -> Result<(), DmaTlbError> {
        let pairs = self.device.platform.pairs().ok_or(DmaTlbError::NoSwitching)?;
        let streams = self.streams.lock();
        let mut commands = self.commands.lock();
        self.vmids.lock().leave(from.vmid, to.vmid);
        streams.switch(&self.device, pairs, &mut commands, from.vmid, to)?;
        Ok(commands.execute(&self.device, [Command::TlbiS12Vmall(from.vmid)])?)
    }
}
