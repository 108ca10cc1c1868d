//! A dirty bitmap as a picture of the address range, for a console.

use core::fmt;
use core::ops::Range;

use crate::bitmap::{Bitmap, Words};

/// Cells in a row.
pub const CELLS_PER_ROW: u64 = 64;

/// Pages of a bitmap drawn in rows of cells, each row led by the address it begins at.
pub struct Picture<'a, W: ?Sized> {
    /// The bitmap.
    pub bitmap: Bitmap<'a, W>,
    /// The address of the bitmap's first page.
    pub base: u64,
    /// The pages drawn.
    pub range: Range<u64>,
    /// How many rows at most.
    pub rows: u64,
}

impl<W: Words + ?Sized> Picture<'_, W> {
    /// Pages one cell stands for: as few as let the range fit.
    #[must_use]
    pub fn pages_per_cell(&self) -> u64 {
        let pages = self.range.end.saturating_sub(self.range.start);
        pages.div_ceil(self.rows.max(1) * CELLS_PER_ROW).max(1)
    }

    fn cell(&self, pages: Range<u64>) -> char {
        let written = self.bitmap.count(pages.clone());
        match written {
            0 => '.',
            _ if written == pages.end - pages.start => '#',
            1..=9 => char::from(b'0' + u8::try_from(written).unwrap_or(9)),
            _ => '+',
        }
    }
}

impl<W: Words + ?Sized> fmt::Display for Picture<'_, W> {
    /// One line a row, each ended by a line feed: `.` no page of the cell was written, `1` to `9` so many, `+` more,
    /// `#` all of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.pages_per_cell();
        let mut page = self.range.start;
        while page < self.range.end {
            write!(f, "  {:#13x} |", self.base + page * strandline_abi::PAGE_BYTES)?;
            for _ in 0..CELLS_PER_ROW {
                if page < self.range.end {
                    let end = (page + step).min(self.range.end);
                    fmt::Write::write_char(f, self.cell(page..end))?;
                    page = end;
                }
            }
            f.write_str("|\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(words: &[u64], pages: u64, rows: u64) -> Picture<'_, [u64]> {
        Picture { bitmap: Bitmap::new(words, pages), base: 0x4000_0000, range: 0..pages, rows }
    }

    #[test]
    fn a_small_range_has_one_page_a_cell() {
        let picture = picture(&[0x5], 8, 8);
        assert_eq!(picture.pages_per_cell(), 1);
        assert_eq!(picture.to_string(), "     0x40000000 |#.#.....|\n");
    }

    #[test]
    fn cells_tell_none_few_many_and_all() {
        // 64 cells of 16 pages: none, one, nine, ten, fifteen, all, none...
        let mut words = [0_u64; 16];
        words[0] = 0x03ff_01ff_0001_0000;
        words[1] = 0xffff_7fff;
        let text = picture(&words, 1024, 1).to_string();
        assert_eq!(text, format!("     0x40000000 |.19++#{}|\n", ".".repeat(58)));
    }

    #[test]
    fn the_last_row_may_be_short() {
        let text = picture(&[0; 3], 130, 3).to_string();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2], "     0x40080000 |..|");
    }
}
