//! The structure of a tree: tokens and blocks made by hand, and what a second reader sees of the same tree.

use dtoolkit::Node as _;
use dtoolkit::Property as _;
use dtoolkit::fdt::FdtNode;

use super::*;
use crate::machine::fdt::{Fdt, Node};

const BEGIN: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// `a` and a NUL, as a word.
const A: u32 = 0x6100_0000;

/// A tree with this structure block; its strings are `x` and `yz`.
fn blob(structure: &[u32]) -> &'static [u8] {
    let (reservations, size) = (40_u32, 4 * u32::try_from(structure.len()).unwrap());
    let (start, strings) = (reservations + 32, reservations + 32 + size);
    let header = [0xd00d_feed, strings + 5, start, strings, reservations, 17, 16, 0, 5, size];
    let entry = [0, 0x4000_0000, 0, 0x1000, 0, 0, 0, 0];
    let words = header.iter().chain(&entry).chain(structure);
    let bytes: Vec<u8> = words.flat_map(|word| word.to_be_bytes()).chain(*b"x\0yz\0").collect();
    bytes.leak()
}

fn error(structure: &[u32]) -> String {
    Fdt::new(blob(structure)).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn smallest_tree_is_a_root_and_an_end() {
    let fdt = Fdt::new(blob(&[BEGIN, 0, END_NODE, END])).unwrap();
    assert_eq!(fdt.root().name, "");
    assert_eq!((fdt.children(fdt.root()).count(), fdt.property(fdt.root(), "x")), (0, None));
    assert_eq!(fdt.reservations().collect::<Vec<_>>(), [(0x4000_0000, 0x1000)]);
}

#[test]
fn properties_and_children_are_found_between_tokens_that_say_nothing() {
    let child = [BEGIN, A, PROPERTY, 2, 2, 0x4142_0000, NOP, END_NODE];
    let root = [&[BEGIN, 0, NOP, PROPERTY, 0, 0, NOP][..], &child, &child, &[NOP, END_NODE, END]].concat();
    let fdt = Fdt::new(blob(&root)).unwrap();
    assert_eq!(fdt.property(fdt.root(), "x"), Some(&[][..]));
    assert_eq!(fdt.property(fdt.root(), "yz"), None, "a child's is not the root's");
    let children: Vec<_> = fdt.children(fdt.root()).collect();
    assert_eq!(children.iter().map(|c| c.name).collect::<Vec<_>>(), ["a", "a"]);
    assert_eq!(children.iter().filter_map(|c| fdt.property(*c, "yz")).collect::<Vec<_>>(), [b"AB", b"AB"]);
}

#[test]
fn broken_structures_are_told_by_their_place() {
    // The structure block begins at byte 72.
    for (structure, problem) in [
        (&[][..], "broken at byte 72: neither node nor property"),
        (&[END], "broken at byte 72: an end inside a node"),
        (&[END_NODE, END], "broken at byte 72: no end behind the root"),
        (&[PROPERTY, 0, 0, END], "broken at byte 72: a property outside the place for it"),
        (&[BEGIN, 0, END], "broken at byte 80: an end inside a node"),
        (&[BEGIN, 0, END_NODE], "broken at byte 80: no end behind the root"),
        (&[BEGIN, 0, END_NODE, BEGIN, 0, END_NODE, END], "broken at byte 80: no end behind the root"),
        (&[BEGIN, 0, 7, END_NODE, END], "broken at byte 80: neither node nor property"),
        (&[BEGIN, 0x6162_6364], "broken at byte 72: neither node nor property"),
        (&[BEGIN, 0x610a_0000, END_NODE, END], "broken at byte 72: neither node nor property"),
        (&[BEGIN, 0xff00_0000, END_NODE, END], "broken at byte 72: neither node nor property"),
        (&[BEGIN, 0, PROPERTY, 13, 0, 0, END_NODE, END], "broken at byte 80: neither node nor property"),
        (&[BEGIN, 0, PROPERTY, u32::MAX, 0, END_NODE, END], "broken at byte 80: neither node nor property"),
        (&[BEGIN, 0, PROPERTY, 0, 5, END_NODE, END], "broken at byte 80: neither node nor property"),
        (
            &[BEGIN, 0, BEGIN, A, END_NODE, PROPERTY, 0, 0, END_NODE, END],
            "broken at byte 92: a property outside the place for it",
        ),
    ] {
        assert_eq!(error(structure), format!("device tree: {problem}"), "{structure:?}");
    }
}

#[test]
fn headers_that_contradict_the_blob_are_told() {
    let with = |at: usize, value: u32| {
        let mut bytes = blob(&[BEGIN, 0, END_NODE, END]).to_vec();
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        Fdt::new(bytes.leak()).map(|_| ()).unwrap_err().to_string()
    };
    for (at, value, problem) in [
        (0, 0xfeed_d00d, "broken at byte 0: no magic number"),
        (4, 1000, "broken at byte 4: longer than what was loaded"),
        (20, 16, "broken at byte 20: a version that is not known"),
        (24, 18, "broken at byte 20: a version that is not known"),
        (16, 1000, "broken at byte 16: a block outside it"),
        (16, 72, "broken at byte 16: a list of reservations without an end"),
        (8, u32::MAX, "broken at byte 8: a block outside it"),
        (36, u32::MAX, "broken at byte 36: a block outside it"),
        (12, 1000, "broken at byte 12: a block outside it"),
        (32, 6, "broken at byte 32: a block outside it"),
    ] {
        assert_eq!(with(at, value), format!("device tree: {problem}"), "{at}: {value:#x}");
    }
    assert_eq!(
        Fdt::new(&[0xd0]).map(|_| ()).unwrap_err().to_string(),
        "device tree: broken at byte 0: cut short"
    );
}

#[test]
fn nodes_nested_without_end_are_refused() {
    let nested = |depth: usize| {
        let begin = [BEGIN, 0].repeat(depth);
        [begin, [END_NODE].repeat(depth), vec![END]].concat()
    };
    assert!(Fdt::new(blob(&nested(4096))).is_ok());
    assert!(error(&nested(4097)).ends_with("nodes nested too deep"));
}

/// Both readers see the same nodes and properties.
fn compare(fdt: Fdt, node: Node, theirs: &FdtNode<'_>) -> usize {
    let mut seen = 1;
    for property in theirs.properties() {
        assert_eq!(fdt.property(node, property.name()), Some(property.value_as::<&[u8]>().unwrap()));
    }
    let mut children = fdt.children(node);
    for child in theirs.children() {
        let ours = children.next().expect("as many children");
        assert_eq!(ours.name, child.name());
        seen += compare(fdt, ours, &child);
    }
    assert!(children.next().is_none());
    seen
}

#[test]
fn second_reader_sees_the_same_tree() {
    let blob = virt().add("/chosen", module(0x6000_0000, 0x1000, "multiboot,kernel")).blob();
    let theirs = dtoolkit::fdt::Fdt::new(blob).unwrap();
    let ours = Fdt::new(blob).unwrap();
    assert_eq!(compare(ours, ours.root(), &theirs.root()), 15);
}
