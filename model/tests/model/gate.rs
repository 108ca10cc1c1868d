//! The driver as the address space sees it: one at a time, and wrong where mischief wants that.

use std::cell::Cell;

use strandline::addr::Vmid;
use strandline::hw::{
    CommandCounts, DmaRoot, DmaTlb, DmaTlbError, Resume, ResumeError, Scope, SizeChange, Stall, StallTlb,
    TreeSwitch,
};

use crate::host::{Driver, Host, Mischief};

/// The driver, which nobody else uses while it is at work.
pub struct Gate<'a> {
    host: &'a Host<'a>,
    driver: &'a Driver<'a>,
    /// An invalidation that is done when it is too late.
    late: Cell<Option<(Vmid, Scope)>>,
    /// How often streams were sent through another tree.
    pub switches: Cell<u64>,
    /// What it is taken to bear where sizes change, if less than it does.
    less: Option<SizeChange>,
    /// It is the second one behind the VM, whose commands some kinds of mischief leave out.
    second: bool,
}

impl<'a> Gate<'a> {
    pub fn new(host: &'a Host<'a>, driver: &'a Driver<'a>) -> Self {
        Self { host, driver, late: Cell::new(None), switches: Cell::new(0), less: None, second: false }
    }

    /// That of the second SMMU.
    pub fn to_the_second(host: &'a Host<'a>, driver: &'a Driver<'a>) -> Self {
        Self { second: true, ..Self::new(host, driver) }
    }

    /// The same, as if the SMMU bore less: another one behind the same VM.
    pub fn to_a_lesser_one(host: &'a Host<'a>, driver: &'a Driver<'a>, seed: u64) -> Self {
        let less = match driver.size_change() {
            SizeChange::Direct if seed.is_multiple_of(2) => SizeChange::ThroughNt,
            _ => SizeChange::Never,
        };
        Self { less: Some(less), ..Self::new(host, driver) }
    }
}

impl DmaTlb for Gate<'_> {
    fn sync(&self) -> Result<(), DmaTlbError> {
        match self.host.mischief {
            Mischief::SecondSmmuNotSynced if self.second => Ok(()),
            _ => self.host.driving(|| self.driver.sync()),
        }
    }

    fn invalidate(&self, vmid: Vmid, scope: Scope) -> Result<(), DmaTlbError> {
        match self.host.mischief {
            Mischief::ResumedBeforeInvalidation if self.host.stalls.is_answering() => {
                self.late.set(Some((vmid, scope)));
                Ok(())
            }
            Mischief::StallViewNotInvalidated if matches!(scope, Scope::Range { leaf_only: true, .. }) => {
                Ok(())
            }
            Mischief::SecondSmmuNotInvalidated if self.second => Ok(()),
            _ => self.host.driving(|| self.driver.invalidate(vmid, scope)),
        }
    }

    fn commands(&self) -> CommandCounts {
        self.driver.commands()
    }

    fn size_change(&self) -> SizeChange {
        self.less.unwrap_or_else(|| self.driver.size_change())
    }

    fn switching(&self) -> Option<&dyn TreeSwitch> {
        if self.driver.switching().is_some() { Some(self) } else { None }
    }
}

impl TreeSwitch for Gate<'_> {
    fn take_vmid(&self) -> Result<Option<Vmid>, DmaTlbError> {
        self.host.driving(|| self.driver.take_vmid())
    }

    fn end_vmid(&self, vmid: Vmid, forgotten: bool) {
        if !forgotten {
            self.host.port(self.second).quarantine_vmid(vmid);
        }
        self.driver.end_vmid(vmid, forgotten);
    }

    fn switch(&self, from: DmaRoot, to: DmaRoot) -> Result<(), DmaTlbError> {
        self.host.driving(|| self.driver.switch(from, to))?;
        self.switches.set(self.switches.get() + 1);
        Ok(())
    }
}

impl StallTlb for Gate<'_> {
    fn resume(&self, stall: &Stall, how: Resume) -> Result<(), ResumeError> {
        self.host.driving(|| self.driver.resume(stall, how))?;
        let Some((vmid, scope)) = self.late.take() else { return Ok(()) };
        let late = self.host.driving(|| self.driver.invalidate(vmid, scope));
        late.map_err(|error| ResumeError { error, issued: true })
    }
}
