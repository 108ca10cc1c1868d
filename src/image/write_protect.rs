//! Write-protect faults: which aborts of a guest are writes that stage 2 does not permit. In a log of a CPU without
//! hardware dirty state these are the first writes to pages.

/// ISS of an abort (Arm ARM D24.2.40): the fault status code, whose bits 1:0 are the level.
const STATUS: u64 = 0b11_1100;
/// Permission fault.
const PERMISSION: u64 = 0b00_1100;
/// WnR, of data aborts: it was a write, or cache maintenance or an update that needs the right to write.
const WRITE: u64 = 1 << 6;
/// S1PTW: a walk of stage 1 made the access.
const WALK: u64 = 1 << 7;

/// Who made an access that stage 2 does not permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The instruction.
    Instruction,
    /// A walk of the guest's own tables, which only an update of an access flag or a dirty state can fail: reading is
    /// permitted wherever there is RAM. It counts as a write.
    Walk,
}

/// Who wanted to write, where a data abort (or, with `fetch`, an instruction abort) is a permission fault of a write.
pub const fn writer(esr: u64, fetch: bool) -> Option<Writer> {
    if esr & STATUS != PERMISSION {
        None
    } else if esr & WALK != 0 {
        Some(Writer::Walk)
    } else if !fetch && esr & WRITE != 0 {
        Some(Writer::Instruction)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_not_permitted_is_a_write() {
        // EC 0x24, IL, DFSC 0b001111 (permission, level 3), WnR.
        assert_eq!(writer(0x9200_004f, false), Some(Writer::Instruction));
        // The same of a load; of a write that finds no translation (0b000111).
        assert_eq!(writer(0x9200_000f, false), None);
        assert_eq!(writer(0x9200_0047, false), None);
    }

    #[test]
    fn a_walk_that_is_not_permitted_is_a_write_for_whomever_it_is_made() {
        assert_eq!(writer(0x9200_008e, false), Some(Writer::Walk));
        assert_eq!(writer(0x9200_00ce, false), Some(Writer::Walk));
        // EC 0x20: an instruction fetch. Bit 6 means nothing there.
        assert_eq!(writer(0x8200_008f, true), Some(Writer::Walk));
        assert_eq!(writer(0x8200_004f, true), None);
    }
}
