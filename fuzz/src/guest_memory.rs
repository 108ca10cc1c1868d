//! The target `guest_memory`: which words of a guest's memory an allegation gives access to.

use strandline::addr::{Ipa, PAGE_BYTES};
use strandline::hw::Word;
use strandline::hypercall::{CallError, GuestBuffer};
use strandline_abi::{DmaTier, Error};

use crate::input::Input;
use crate::life::{RAM, REGISTERS, Setting, TAIL_PAGES, space};
use crate::strict::Tlb;

/// More words than any buffer of the target's has in RAM.
const MANY: u64 = 1 << 22;

/// What must come of an allegation: nothing, or the error.
fn judged(setting: &Setting, start: u64, words: u64) -> Result<(), CallError> {
    let error = |code, value| Err(CallError { code, value });
    if !start.is_multiple_of(8) {
        return error(Error::Unaligned, start);
    }
    let Some(end) = words.checked_mul(8).and_then(|bytes| start.checked_add(bytes)) else {
        return error(Error::OutOfRange, start);
    };
    // Every word for itself, unlike the code: the first that isn't RAM names its page.
    let outside = (0..words.min(MANY)).map(|i| start + i * 8).find(|at| setting.pa(*at).is_none());
    assert!(words == 0 || outside.is_some() || end <= setting.end());
    outside.map_or(Ok(()), |at| error(Error::OutOfRange, at & !(PAGE_BYTES - 1)))
}

/// A few allegations, each held against what the map of the VM says.
pub fn guest_memory(data: &[u8]) {
    let mut input = Input::new(data);
    let setting = Setting { tier: DmaTier::None, frames: 16, blocks: 1 };
    let (machine, tlb) = (setting.machine(), Tlb::default());
    let space = space(&machine, &tlb, &setting);
    while !input.is_empty() {
        let (start, words) = (address(&setting, &mut input), length(&mut input));
        let wanted = judged(&setting, start, words);
        assert_eq!(GuestBuffer::check(&machine, &space, Ipa(start), words), wanted, "{start:#x} {words}");
        let kept = words.min(GuestBuffer::MAX_WORDS as u64);
        let buffer = GuestBuffer::validate(&machine, &space, Ipa(start), kept as usize);
        let buffer = match (buffer, judged(&setting, start, kept)) {
            (Ok(buffer), Ok(())) => buffer,
            (buffer, wanted) => {
                assert_eq!(buffer.err(), wanted.err(), "{start:#x} {kept}");
                continue;
            }
        };
        machine.forget();
        for index in [0, 1, kept / 2, kept.wrapping_sub(1), kept, kept + 1, input.word()] {
            let word = buffer.word(&machine, index);
            assert_eq!(word.is_some(), index < kept, "word {index} of {kept}");
            if let (Some(word), Some(pa)) = (word, setting.pa(start.wrapping_add(index.wrapping_mul(8)))) {
                word.store(index);
                assert_eq!(machine.guest_stores().last(), Some(&pa), "word {index} from {start:#x}");
            }
        }
        let touched = buffer.touched();
        assert_eq!(touched.is_none(), kept == 0);
        if let Some(touched) = touched {
            let last = Ipa(start + kept * 8 - 1);
            assert!(touched.contains(Ipa(start)) && touched.contains(last));
            assert!(touched.bytes() <= (last.0 / PAGE_BYTES - start / PAGE_BYTES + 1) * PAGE_BYTES);
        }
    }
}

fn address(setting: &Setting, input: &mut Input<'_>) -> u64 {
    let edge =
        input.of(&[RAM, setting.tail(), setting.end(), REGISTERS, 0, 1 << 36, RAM + (TAIL_PAGES << 12)]);
    let distance = input.below(1 << 14);
    match input.below(4) {
        0 => edge.wrapping_add(distance * 8),
        1 => edge.wrapping_sub(distance * 8),
        2 => edge.wrapping_add(distance),
        _ => input.word(),
    }
}

fn length(input: &mut Input<'_>) -> u64 {
    match input.below(4) {
        0 => input.below(9),
        1 => 504 + input.below(17),
        2 => input.below(1 << 16),
        _ => input.word(),
    }
}
