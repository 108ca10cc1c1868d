//! The driver as the address space sees it: one at a time, and wrong where mischief wants that.

use std::cell::Cell;

use strandline::addr::Vmid;
use strandline::hw::{
    CommandCounts, DmaTlb, DmaTlbError, Resume, ResumeError, Scope, SizeChange, Stall, StallTlb,
};

use crate::host::{Driver, Host, Mischief};

/// The driver, which nobody else uses while it is at work.
pub struct Gate<'a> {
    host: &'a Host<'a>,
    driver: &'a Driver<'a>,
    /// An invalidation that is done when it is too late.
    late: Cell<Option<(Vmid, Scope)>>,
}

impl<'a> Gate<'a> {
    pub fn new(host: &'a Host<'a>, driver: &'a Driver<'a>) -> Self {
        Self { host, driver, late: Cell::new(None) }
    }
}

impl DmaTlb for Gate<'_> {
    fn sync(&self) -> Result<(), DmaTlbError> {
        self.host.driving(|| self.driver.sync())
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
            _ => self.host.driving(|| self.driver.invalidate(vmid, scope)),
        }
    }

    fn commands(&self) -> CommandCounts {
        self.driver.commands()
    }

    fn size_change(&self) -> SizeChange {
        self.driver.size_change()
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
