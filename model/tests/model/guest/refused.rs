//! What can't be is asked for.

use strandline::addr::IpaRange;
use strandline::address_space::Region;
use strandline_abi::LogState;

use super::memory::{pages_of, region};
use super::{Guest, Outcome, PAGE, PAGES};
use crate::vm::RAM;

impl Guest<'_> {
    /// Asks for what can't be: nothing must come of it.
    pub(super) fn be_refused(&mut self) -> Outcome {
        let i = self.dice.below(4) as usize;
        let Region { range, .. } = region(i);
        let changing = matches!(self.log.state(), LogState::Starting | LogState::Stopping);
        let logged = self.log.range().is_some_and(|r| r.overlaps(range));
        let before = self.snapshot();
        let host = self.host;
        let refused = match self.dice.below(5) {
            0 if self.mapped[i] => host.space_mut().map(host, region(i)).is_err(),
            1 if !self.mapped[i] || changing && logged => host.space_mut().unmap(host, range).is_err(),
            2 => {
                let part = IpaRange::new(range.start(), PAGE).expect("a page");
                host.space_mut().unmap(host, part).is_err()
            }
            3 if self.log.state() != LogState::Off => {
                self.log.start(host, &mut host.space_mut(), range, 7_777).is_err()
            }
            4 if changing => self.log.detach_view(host, &mut host.space_mut(), 0).is_err(),
            _ => self.log.step_of(pages_of(RAM.0 / PAGE + PAGES, 1), 0).is_err(),
        };
        if !refused {
            return Err("half done: what can't be was not refused".to_owned());
        }
        self.met.other_refusals += 1;
        self.check_unchanged("what can't be", &before)
    }
}
