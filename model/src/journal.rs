//! The last things that happened, for the account an alarm gives.

use std::collections::VecDeque;
use std::fmt;

use strandline::hw::{Barrier, Tlbi};

use crate::tlb::Entry;
use crate::update::Walker;

/// How many are kept.
const KEPT: usize = 48;

/// Something that happened.
#[derive(Clone, Copy)]
pub(crate) enum Happening {
    Store(u64, u64),
    Fill(u64, usize),
    Atomic(u64, u64, u64),
    Barrier(Barrier),
    Tlbi(u16, Tlbi),
    Hold(bool),
    Register(Walker, usize, u64),
    Command(Walker, [u64; 2]),
    Freed(u64, u32),
    Cached(Walker, Entry),
    Dirtied(u64, u64),
    Completed(Walker, u64),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(pa, value) => write!(f, "EL2 stores {value:#x} at {pa:#x}"),
            Self::Fill(pa, words) => write!(f, "EL2 fills {words} words from {pa:#x}"),
            Self::Atomic(pa, old, new) => write!(f, "EL2 changes {old:#x} to {new:#x} at {pa:#x}"),
            Self::Barrier(barrier) => write!(f, "EL2 executes {barrier:?}"),
            Self::Tlbi(vmid, op) => write!(f, "EL2 issues {op:?} for VMID {vmid}"),
            Self::Hold(true) => f.write_str("EL2 holds the vCPUs"),
            Self::Hold(false) => f.write_str("EL2 releases the vCPUs"),
            Self::Register(smmu, offset, value) => {
                write!(f, "EL2 writes {value:#x} to register {offset:#x} of {smmu}")
            }
            Self::Command(smmu, words) => write!(f, "{smmu} consumes {:#018x} {:#018x}", words[0], words[1]),
            Self::Freed(pa, order) => write!(f, "EL2 frees 2^{order} frames at {pa:#x}"),
            Self::Cached(walker, entry) => write!(f, "{walker} caches {entry}"),
            Self::Dirtied(pa, word) => write!(f, "hardware makes the descriptor at {pa:#x} {word:#x}"),
            Self::Completed(walker, ipa) => write!(f, "a write through {walker} to {ipa:#x} completes"),
        }
    }
}

/// The newest happenings, with their steps.
#[derive(Default)]
pub(crate) struct Journal(VecDeque<(u64, Happening)>);

impl Journal {
    pub fn add(&mut self, step: u64, what: Happening) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((step, what));
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.iter().map(|(step, what)| format!("{step}: {what}")).collect()
    }
}
