//! Devices come and go, each with a view of its own, of one tier or another.

use strandline::addr::Vmid;
use strandline::address_space::SpaceError;
use strandline::dirty_log::{AttachError, Weakening};
use strandline::smmu::{Httu, SmmuError, Stage2Config};
use strandline::stage2::{DmaWalker, MapError};
use strandline_abi::{DmaTier, LogState};
use strandline_model::Source;

use super::snapshot::Snapshot;
use super::{Guest, Outcome};
use crate::vm::STREAMS;

/// The view of a stream.
#[derive(Clone, Copy)]
pub(super) struct Plugged {
    pub index: usize,
    pub vmid: Vmid,
    pub tier: DmaTier,
}

impl Guest<'_> {
    pub(super) fn replug(&mut self) -> Outcome {
        let stream = self.dice.below(2) as usize;
        if self.views[stream].is_some() { self.unplug(stream) } else { self.plug(stream) }
    }

    /// Whether some device may write unseen.
    pub(super) fn assumes(&self) -> bool {
        self.views.iter().flatten().any(|v| v.tier == DmaTier::Assume)
    }

    /// The weakest tier of the devices.
    pub(super) fn weakest(&self) -> DmaTier {
        let tiers = self.views.iter().flatten().map(|view| view.tier);
        tiers.max_by_key(|tier| tier.code()).unwrap_or(DmaTier::None)
    }

    /// Ends what hardware did not complete, if it may stall: what it had stalled waits for that.
    pub(super) fn leave(&mut self) -> Outcome {
        for stream in 0..2 {
            if self.leaving[stream] && self.tiers[stream] == DmaTier::Stall && self.answers() {
                self.unplug(stream)?;
            }
        }
        Ok(())
    }

    pub(super) fn plug(&mut self, stream: usize) -> Outcome {
        self.exhaust();
        let before = self.snapshot();
        let answered = self.answers();
        let vmid = match self.host.driving(|| self.smmus[stream].alloc_vmid()) {
            Ok(vmid) => vmid,
            Err(_) if self.excused(answered) => return self.check_unchanged("a VMID", &before),
            Err(error) => return Err(error.to_string()),
        };
        let tier = if self.dice.chance(self.mix.mixed) { DmaTier::Assume } else { self.tiers[stream] };
        let weakening = if self.dice.chance(512) { Weakening::Refused } else { Weakening::Accepted };
        let under_log = matches!(self.log.state(), LogState::On | LogState::Untrusted);
        let weakest = self.weakest();
        let weaker = under_log && weakest != DmaTier::None && tier.code() > weakest.code();
        let smmu = self.smmus[stream];
        let walker = DmaWalker { tlb: &self.gates[stream], vmid, coherent: smmu.features().coherent };
        let answered = self.answers();
        let attached = self.log.attach_view(self.host, &mut self.host.space_mut(), walker, tier, weakening);
        let index = match attached {
            Ok(index) if !weaker || weakening == Weakening::Accepted => index,
            Err(error) => {
                return self.refused_view(stream, error, weaker.then_some(tier), answered, vmid, &before);
            }
            Ok(_) => return Err("a log was made weaker, which was not allowed".to_owned()),
        };
        // Some views do without what their SMMU can do.
        if smmu.features().httu == Httu::TableAccessFlag && self.dice.chance(896) {
            self.host.space_mut().use_table_flags(self.host, index);
        }
        self.met.weakened += u64::from(weaker);
        self.views[stream] = Some(Plugged { index, vmid, tier });
        self.enter_dirty(Source::Dma, self.all());
        self.met.attaches_under_log += u64::from(self.is_on());
        self.relent();
        self.go_through(stream, index)
    }

    /// A view was refused: it had to be, and nothing has changed.
    fn refused_view(
        &mut self,
        stream: usize,
        error: AttachError,
        weaker: Option<DmaTier>,
        answered: bool,
        vmid: Vmid,
        before: &Snapshot,
    ) -> Outcome {
        match error {
            AttachError::Weaker(tier) if weaker == Some(tier) => self.met.weaker_refused += 1,
            AttachError::Space(SpaceError::Map(MapError::OutOfFrames(_))) if !self.hoard.is_empty() => {
                self.met.other_refusals += 1;
            }
            // It was asked for the VMID of a second tree.
            AttachError::Space(SpaceError::NoAnswer(_)) if self.excused(answered) => {}
            _ => return Err(format!("attach failed: {error}")),
        }
        let answered = self.answers();
        match self.host.driving(|| self.smmus[stream].free_vmid(vmid)) {
            Err(error) if !self.excused(answered) => Err(error.to_string()),
            _ => self.check_unchanged("attach", before),
        }
    }

    /// Sends a stream through its view. Where the SMMU is silent the stream aborts, and its device rests.
    fn go_through(&mut self, stream: usize, index: usize) -> Outcome {
        self.fate();
        let config = self.config(index);
        let smmu = self.smmus[stream];
        let mut ste = smmu.view(&config).map_err(|e| e.to_string())?;
        let stalls = self.views[stream].is_some_and(|v| v.tier == DmaTier::Stall);
        if stalls {
            ste = smmu.stalling(ste).map_err(|e| e.to_string())?;
        }
        self.host.stalls.route(STREAMS[stream], index, stalls);
        let answered = self.answers();
        match self.host.driving(|| smmu.attach(STREAMS[stream], &ste)) {
            Ok(()) => self.machine().set_active(STREAMS[stream], true),
            // The SMMU did not confirm an earlier detach: the device rests for good.
            Err(SmmuError::StreamQuarantined(_)) if smmu.quarantined().streams > 0 => {}
            Err(_) if self.excused(answered) => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    fn config(&self, index: usize) -> Stage2Config {
        self.with_view(index, |dma| {
            let tree = &dma.view.tree;
            Stage2Config {
                vmid: dma.view.walker.vmid,
                root: tree.root(),
                ipa_bits: u32::from(tree.format().ipa_bits()),
                start_level: tree.format().start_level(),
                output_bits: 48,
                hardware_update: dma.hardware_update(),
            }
        })
    }

    /// Takes a device away. Where the SMMU is silent it stays, and rests.
    pub(super) fn unplug(&mut self, stream: usize) -> Outcome {
        let Some(view) = self.views[stream] else { return Ok(()) };
        self.machine().quiesce(STREAMS[stream]);
        let answered = self.answers();
        match self.host.stalls.detach(self.host, self.smmus[stream], STREAMS[stream]) {
            Err(_) if self.excused(answered) => {
                self.leaving[stream] = true;
                return Ok(());
            }
            result => result.map_err(|e| e.to_string())?,
        }
        self.leaving[stream] = false;
        self.fate();
        let (linked, other) = self.tables(view.index);
        let quarantined = self.host.space().quarantined_frames();
        let answered = self.answers();
        let detached =
            self.host.detaching(|| self.log.detach_view(self.host, &mut self.host.space_mut(), view.index));
        self.views[stream] = None;
        // Another tree may come to stand there in this very step.
        self.forget_trees();
        match detached {
            Ok(vmid) if vmid == view.vmid => {
                // It may have fallen silent behind the invalidation of the tree in use, and keep the other one.
                let left = self.host.space().quarantined_frames() - quarantined;
                if left != 0 && !(left == other && self.excused(answered)) {
                    return Err(format!(
                        "half done: detached, and {left} of {linked} and {other} tables are quarantined"
                    ));
                }
                self.quarantined += left as usize;
            }
            Err(AttachError::View(_)) if self.excused(answered) => {
                self.met.dead_detaches += 1;
                self.port(stream).quarantine_vmid(view.vmid);
                let left = self.host.space().quarantined_frames() - quarantined;
                // Of two trees the SMMU may have forgotten one before.
                if left != linked && left != linked + other {
                    return Err(format!("half done: {linked} and {other} tables, {left} quarantined"));
                }
                self.quarantined += left as usize;
                if self.log.state() == LogState::On {
                    return Err("trusted: a log one of whose views is gone unread".to_owned());
                }
                self.machine().log_stopped();
                return Ok(());
            }
            _ => return Err(format!("detach failed: {detached:?}")),
        }
        if view.tier == DmaTier::Assume {
            self.enter_dirty(Source::Dma, self.all());
        }
        self.met.detaches_under_log += u64::from(self.is_on());
        let answered = self.answers();
        match self.host.driving(|| self.smmus[stream].free_vmid(view.vmid)) {
            Err(error) if !self.excused(answered) => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}
