//! Cache lines of tables that a walker which is not coherent must come to see.

use crate::addr::Pa;
use crate::hw::Cpu;

/// The granule in which changed words are collected. Where lines are longer, one may be cleaned twice.
const LINE_BYTES: u64 = 64;

/// The cache lines of words that were changed in place: each is cleaned once as long as words come in ascending order,
/// and none where the walker is coherent. [`Lines::clean`] ends it; the barrier behind the cleans is the invalidation's.
#[derive(Debug)]
pub(crate) struct Lines {
    coherent: bool,
    line: Option<Pa>,
}

impl Lines {
    pub const fn new(coherent: bool) -> Self {
        Self { coherent, line: None }
    }

    /// The word at `pa` was changed.
    pub fn touch(&mut self, cpu: &impl Cpu, pa: Pa) {
        let line = pa.align_down(LINE_BYTES);
        if !self.coherent && self.line != Some(line) {
            self.clean(cpu);
            self.line = Some(line);
        }
    }

    /// `words` adjacent words from `pa` were changed.
    pub fn touch_all(&mut self, cpu: &impl Cpu, pa: Pa, words: u64) {
        let end = pa.offset(words * 8);
        let mut line = pa.align_down(LINE_BYTES);
        while !self.coherent && line < end {
            self.touch(cpu, line);
            line = line.offset(LINE_BYTES);
        }
    }

    /// Cleans what is left.
    pub fn clean(&mut self, cpu: &impl Cpu) {
        if let Some(line) = self.line.take() {
            cpu.clean_to_poc(line, LINE_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Event::Clean;
    use crate::fake::{Fake, take_trace};

    /// What is cleaned where the words at these addresses were changed.
    fn cleaned(coherent: bool, words: &[u64]) -> Vec<u64> {
        let (cpu, mut lines) = (Fake::new(1), Lines::new(coherent));
        take_trace();
        words.iter().for_each(|at| lines.touch(&cpu, Pa(*at)));
        lines.clean(&cpu);
        let line = |event| if let Clean(pa, ..) = event { Some(pa.0) } else { None };
        take_trace().into_iter().filter_map(line).collect()
    }

    #[test]
    fn line_is_cleaned_once_however_many_of_its_words_were_changed() {
        assert_eq!(cleaned(false, &[0x1000, 0x1008, 0x1038, 0x1040, 0x2ff8]), [0x1000, 0x1040, 0x2fc0]);
        assert_eq!(cleaned(false, &[]), []);
    }

    #[test]
    fn lines_of_adjacent_words_are_cleaned_once_each() {
        let (cpu, mut lines) = (Fake::new(1), Lines::new(false));
        take_trace();
        for (pa, words) in [(0x1030, 1), (0x1038, 10), (0x10f8, 1), (0x2000, 0), (0x2f80, 16)] {
            lines.touch_all(&cpu, Pa(pa), words);
        }
        lines.clean(&cpu);
        let line = |event| if let Clean(pa, ..) = event { Some(pa.0) } else { None };
        let cleaned: Vec<u64> = take_trace().into_iter().filter_map(line).collect();
        assert_eq!(cleaned, [0x1000, 0x1040, 0x1080, 0x10c0, 0x2f80, 0x2fc0]);
    }

    #[test]
    fn nothing_is_cleaned_for_a_coherent_walker() {
        assert_eq!(cleaned(true, &[0x1000, 0x2000]), []);
    }
}
