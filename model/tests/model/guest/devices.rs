//! Devices come and go, each with a view of its own.

use strandline::addr::Vmid;
use strandline::address_space::SpaceError;
use strandline::dirty_log::{AttachError, Weakening};
use strandline::smmu::{Httu, Stage2Config};
use strandline::stage2::{DmaWalker, MapError};
use strandline_abi::DmaTier;
use strandline_model::Source;

use super::{Guest, Outcome};
use crate::vm::STREAMS;

impl Guest<'_> {
    pub(super) fn replug(&mut self) -> Outcome {
        let stream = self.dice.below(2) as usize;
        if self.views[stream].is_some() { self.unplug(stream) } else { self.plug(stream) }
    }

    pub(super) fn plug(&mut self, stream: usize) -> Outcome {
        self.exhaust();
        let before = self.snapshot();
        let vmid = self.smmu.alloc_vmid().map_err(|e| e.to_string())?;
        let walker = DmaWalker { tlb: self.smmu, vmid, coherent: self.smmu.features().coherent };
        let attached = self.log.attach_view(
            self.host,
            &mut self.host.space_mut(),
            walker,
            self.tier,
            Weakening::Refused,
        );
        let index = match attached {
            Ok(index) => index,
            Err(AttachError::Space(SpaceError::NoRoot | SpaceError::Map(MapError::OutOfFrames(_))))
                if !self.hoard.is_empty() =>
            {
                self.met.other_refusals += 1;
                self.smmu.free_vmid(vmid).map_err(|e| e.to_string())?;
                return self.check_unchanged("attach", &before);
            }
            Err(error) => return Err(format!("attach failed: {error}")),
        };
        if let Some(logged) = self.log.range() {
            self.machine().enters_dirty(Source::Dma, logged);
            self.met.attaches_under_log += 1;
        }
        self.relent();
        self.views[stream] = Some((index, vmid));
        let config = self.config(index, vmid);
        let ste = self.smmu.view(&config).map_err(|e| e.to_string())?;
        self.smmu.attach(STREAMS[stream], &ste).map_err(|e| e.to_string())?;
        self.machine().set_active(STREAMS[stream], true);
        Ok(())
    }

    pub(super) fn config(&self, index: usize, vmid: Vmid) -> Stage2Config {
        let space = self.host.space();
        // Views stand in ascending order of their indices.
        let before = self.views.iter().flatten().filter(|(i, _)| *i < index).count();
        let tree = &space.dma_views().nth(before).expect("the view").view.tree;
        Stage2Config {
            vmid,
            root: tree.root(),
            ipa_bits: u32::from(tree.format().ipa_bits()),
            start_level: tree.format().start_level(),
            output_bits: 48,
            hardware_update: if self.tier == DmaTier::Hardware { Httu::Dirty } else { Httu::None },
        }
    }

    pub(super) fn unplug(&mut self, stream: usize) -> Outcome {
        let Some((index, vmid)) = self.views[stream].take() else { return Ok(()) };
        self.machine().quiesce(STREAMS[stream]);
        self.smmu.detach(STREAMS[stream]).map_err(|e| e.to_string())?;
        let detached =
            self.host.detaching(|| self.log.detach_view(self.host, &mut self.host.space_mut(), index));
        if detached != Ok(vmid) {
            return Err(format!("detach failed: {detached:?}"));
        }
        self.smmu.free_vmid(vmid).map_err(|e| e.to_string())?;
        self.met.detaches_under_log += u64::from(self.is_on());
        Ok(())
    }
}
