//! Writes a flattened device tree, front to back (Devicetree Specification v0.4, chapter 5).
//!
//! Own code, because what `dtoolkit` makes trees with (a model on hash maps, then sorted) took 24 KB of the image.

use alloc::vec::Vec;

/// Tokens of the structure block (§5.4.1).
mod token {
    pub const BEGIN_NODE: u32 = 1;
    pub const END_NODE: u32 = 2;
    pub const PROP: u32 = 3;
    pub const END: u32 = 9;
}

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LAST_COMPATIBLE_VERSION: u32 = 16;
/// Ten cells (§5.2), and the end of an empty memory reservation block (§5.3.2).
const HEADER_BYTES: usize = 40;
const RESERVATIONS_BYTES: usize = 16;

/// A tree under construction. Names and values are the caller's to choose well; together they stay below 4 GiB.
#[derive(Default)]
pub struct Writer {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    /// A node with what `fill` puts into it: properties first, then nodes. The root's name is empty.
    pub fn node(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.cell(token::BEGIN_NODE);
        self.structure.extend_from_slice(name.as_bytes());
        self.structure.push(0);
        self.align();
        fill(self);
        self.cell(token::END_NODE);
    }

    /// A property of these bytes.
    pub fn property(&mut self, name: &str, value: &[u8]) {
        let name = self.string(name);
        self.cell(token::PROP);
        self.cell(value.len() as u32);
        self.cell(name);
        self.structure.extend_from_slice(value);
        self.align();
    }

    /// A property of these cells.
    pub fn cells(&mut self, name: &str, cells: &[u32]) {
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.property(name, &bytes);
    }

    /// A property of one string or, with NULs between them, several.
    pub fn text(&mut self, name: &str, text: &str) {
        let mut bytes = Vec::from(text);
        bytes.push(0);
        self.property(name, &bytes);
    }

    /// The tree.
    pub fn finish(mut self) -> Vec<u8> {
        self.cell(token::END);
        let structure_at = HEADER_BYTES + RESERVATIONS_BYTES;
        let strings_at = structure_at + self.structure.len();
        let total = strings_at + self.strings.len();
        let header = [
            MAGIC,
            total as u32,
            structure_at as u32,
            strings_at as u32,
            HEADER_BYTES as u32,
            VERSION,
            LAST_COMPATIBLE_VERSION,
            0,
            self.strings.len() as u32,
            self.structure.len() as u32,
        ];
        let mut tree = Vec::with_capacity(total);
        tree.extend(header.iter().flat_map(|cell| cell.to_be_bytes()));
        tree.resize(structure_at, 0);
        tree.append(&mut self.structure);
        tree.append(&mut self.strings);
        tree
    }

    fn cell(&mut self, cell: u32) {
        self.structure.extend_from_slice(&cell.to_be_bytes());
    }

    /// Each token begins at a multiple of four bytes.
    fn align(&mut self) {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    /// Where `name` stands among the strings; added where it doesn't yet.
    fn string(&mut self, name: &str) -> u32 {
        let mut at = 0;
        for known in self.strings.split_inclusive(|byte| *byte == 0) {
            if known.strip_suffix(&[0]) == Some(name.as_bytes()) {
                return at;
            }
            at += known.len() as u32;
        }
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::Writer;

    #[test]
    fn tree_has_the_bytes_the_specification_gives_it() {
        let mut writer = Writer::default();
        writer.node("", |root| {
            root.cells("a", &[0x0102_0304]);
            root.node("n@1", |n| {
                n.text("bc", "x");
                n.property("a", &[]);
            });
        });
        let words = |bytes: &[u8]| -> Vec<u32> {
            let (cells, rest) = bytes.as_chunks::<4>();
            assert_eq!(rest, b"\0");
            cells.iter().map(|cell| u32::from_be_bytes(*cell)).collect()
        };
        // Magic, total size, places of structure, strings and reservations, version, last compatible version, boot CPU,
        // bytes of strings and structure.
        let header: &[u32] = &[0xd00d_feed, 133, 56, 128, 40, 17, 16, 0, 5, 72];
        let no_reservation: &[u32] = &[0, 0, 0, 0];
        let (root, a): (&[u32], &[u32]) = (&[1, 0], &[3, 4, 0, 0x0102_0304]);
        let (n, bc): (&[u32], &[u32]) = (&[1, 0x6e40_3100], &[3, 2, 2, 0x7800_0000]);
        let (a_again, ends): (&[u32], &[u32]) = (&[3, 0, 0], &[2, 2, 9]);
        // "a", "bc", and the last NUL.
        let strings: &[u32] = &[0x6100_6263];
        let expected = [header, no_reservation, root, a, n, bc, a_again, ends, strings].concat();
        assert_eq!(words(&writer.finish()), expected);
    }
}
