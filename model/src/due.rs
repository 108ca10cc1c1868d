//! Pages that the next report must name, whether or not anybody has written to them since the last one.

use std::collections::BTreeMap;

use strandline::addr::Ipa;

use crate::truth::Source;

/// Why a page is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It entered the log dirty: with a mapping, with a view, or since a device may write it unseen.
    Entered,
    /// It was found dirty, and could not be delivered.
    Undelivered,
}

/// What a report owes, by the sources one of which knows the page for dirty.
#[derive(Default)]
pub(crate) struct Dues(BTreeMap<(u8, u64), Due>);

/// Sources as bits.
fn set_of(sources: &[Source]) -> u8 {
    sources.iter().fold(0, |set, source| set | 1 << *source as u8)
}

impl Dues {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The pages are due by a report of all `sources`.
    pub fn owe(&mut self, sources: &[Source], pages: impl IntoIterator<Item = u64>, why: Due) {
        let set = set_of(sources);
        for page in pages {
            let due = self.0.entry((set, page)).or_insert(why);
            // The later reason counts: what could not be delivered is watched until it has been.
            if why == Due::Undelivered {
                *due = why;
            }
        }
    }

    /// Looks at a report of those pages that `asked` names: `pages`, ascending. Gives back how many it told at last that
    /// could not be delivered before; with `clear` they are due no more.
    pub fn settle(
        &mut self,
        asked: impl Fn(Ipa) -> bool,
        sources: &[Source],
        clear: bool,
        pages: &[u64],
    ) -> Result<u64, String> {
        let (named, mut retried, mut lost) = (set_of(sources), 0, None);
        self.0.retain(|&(set, page), why| {
            let (told, sure) = (pages.binary_search(&page).is_ok(), set & !named == 0);
            if sure && !told && asked(Ipa(page)) {
                lost = lost.or(Some((page, *why)));
            }
            let settled = told && clear && set & named != 0;
            retried += u64::from(settled && sure && *why == Due::Undelivered);
            !settled
        });
        match lost {
            None => Ok(retried),
            Some((page, why)) => Err(format!("lost: page {page:#x}, due by {sources:?}: {why:?}")),
        }
    }
}
