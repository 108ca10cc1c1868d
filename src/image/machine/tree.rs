//! Reading a flattened device tree: walking it, cells, and addresses as the CPU sees them.
//!
//! The structure of the whole blob has been checked first ([`super::fdt`]). What stands in the properties has not: sizes,
//! addresses and references are claims, each checked here or by the caller.

use arrayvec::ArrayVec;

use super::fdt::{Fdt, Node};
use super::{Region, TreeError};

/// Nodes nested deeper are not looked at: no device that EL2 drives is described there.
const MAX_DEPTH: usize = 16;

/// A validated device tree. The blob stays where it is as long as the machine runs.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    fdt: Fdt,
}

impl Tree {
    /// Validates `blob`, whose length is the one its header gives.
    ///
    /// # Errors
    /// The structure is broken.
    pub fn new(blob: &'static [u8]) -> Result<Self, TreeError> {
        Ok(Self { fdt: Fdt::new(blob)? })
    }

    /// The entries of the memory reservation block: address, size.
    pub fn reservations(self) -> impl Iterator<Item = (u64, u64)> {
        self.fdt.reservations()
    }

    /// Calls `visit` with every node that is not disabled, parents first.
    ///
    /// # Errors
    /// Those of `visit`; the walk ends there.
    pub fn each(self, visit: &mut dyn FnMut(&Place) -> Result<(), TreeError>) -> Result<(), TreeError> {
        let mut place = Place { fdt: self.fdt, node: self.fdt.root(), above: ArrayVec::new() };
        descend(&mut place, visit)
    }

    /// Calls `visit` with every enabled node that is compatible with one of `names`.
    ///
    /// # Errors
    /// Those of `visit`.
    pub fn each_compatible(
        self,
        names: &[&'static str],
        visit: &mut dyn FnMut(&Place) -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        self.each(&mut |place| if place.compatible_with(names).is_some() { visit(place) } else { Ok(()) })
    }

    /// The first enabled node for which `wanted` holds.
    ///
    /// # Errors
    /// Those of `wanted`.
    pub fn find(
        self,
        wanted: &mut dyn FnMut(&Place) -> Result<bool, TreeError>,
    ) -> Result<Option<Place>, TreeError> {
        let mut found = None;
        self.each(&mut |place| {
            if found.is_none() && wanted(place)? {
                found = Some(place.clone());
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The enabled node that `phandle` names.
    ///
    /// # Errors
    /// A `phandle` property on the way is not one cell.
    pub fn by_phandle(self, phandle: u32) -> Result<Option<Place>, TreeError> {
        self.find(&mut |place| Ok(place.phandle()? == Some(phandle)))
    }

    /// Whether a node, disabled or not, has this `phandle`.
    pub fn has_phandle(self, phandle: u32) -> bool {
        has_phandle_below(self.fdt, self.fdt.root(), MAX_DEPTH, &phandle.to_be_bytes())
    }

    /// The enabled node at `path`, each of whose components names a node with its unit address or without.
    ///
    /// # Errors
    /// None of its own.
    pub fn by_path(self, path: &str) -> Result<Option<Place>, TreeError> {
        self.find(&mut |place| Ok(place.is_at(path)))
    }
}

fn descend(
    place: &mut Place,
    visit: &mut dyn FnMut(&Place) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    if !place.is_enabled() {
        return Ok(());
    }
    visit(place)?;
    let node = place.node;
    if place.above.try_push(node).is_err() {
        return Ok(());
    }
    for child in place.fdt.children(node) {
        place.node = child;
        descend(place, visit)?;
    }
    place.above.pop();
    place.node = node;
    Ok(())
}

fn has_phandle_below(fdt: Fdt, node: Node, depth: usize, phandle: &[u8]) -> bool {
    fdt.property(node, "phandle") == Some(phandle)
        || depth > 0 && fdt.children(node).any(|child| has_phandle_below(fdt, child, depth - 1, phandle))
}

/// A node, and the nodes it lies in, the root first.
#[derive(Clone)]
pub struct Place {
    fdt: Fdt,
    node: Node,
    above: ArrayVec<Node, MAX_DEPTH>,
}

impl Place {
    /// The node's name, with its unit address; `/` for the root.
    pub fn name(&self) -> &'static str {
        if self.above.is_empty() { "/" } else { self.node.name }
    }

    /// The bytes of a property.
    pub fn property(&self, name: &str) -> Option<&'static [u8]> {
        self.fdt.property(self.node, name)
    }

    /// A property that holds one string.
    #[inline(never)]
    pub fn string(&self, name: &str) -> Option<&'static str> {
        core::str::from_utf8(self.property(name)?.strip_suffix(b"\0")?).ok()
    }

    /// A property that holds one cell.
    ///
    /// # Errors
    /// It is there and is not one cell.
    #[inline(never)]
    pub fn cell(&self, name: &'static str) -> Result<Option<u32>, TreeError> {
        let Some(value) = self.property(name) else { return Ok(None) };
        let bytes = value.try_into().map_err(|_| self.wrong(name, "is not one cell"))?;
        Ok(Some(u32::from_be_bytes(bytes)))
    }

    /// The node's phandle, where it has one.
    ///
    /// # Errors
    /// It has one that is not one cell.
    pub fn phandle(&self) -> Result<Option<u32>, TreeError> {
        self.cell("phandle")
    }

    /// A property of this node or, where it has none of that name, of the nearest node around it.
    pub fn inherited(&self, name: &str) -> Option<&'static [u8]> {
        self.property(name)
            .or_else(|| self.above.iter().rev().find_map(|node| self.fdt.property(*node, name)))
    }

    /// The first of the node's compatible strings that is one of `names`.
    #[inline(never)]
    pub fn compatible_with(&self, names: &[&'static str]) -> Option<&'static str> {
        let strings = self.property("compatible")?.split(|byte| *byte == 0);
        strings.filter_map(|string| core::str::from_utf8(string).ok()).find_map(|string| {
            // The caller's own text: it lives as long as the program.
            names.iter().find(|name| **name == string).copied()
        })
    }

    /// The name of the node this one lies in; empty for the root and its children.
    pub fn parent_name(&self) -> &'static str {
        self.above.last().map_or("", |node| node.name)
    }

    /// How deep the node lies: 0 for the root, 1 for its children.
    pub fn depth(&self) -> usize {
        self.above.len()
    }

    /// An error about one of this node's properties.
    // Seven words: put together in one place, not at each.
    #[cold]
    #[inline(never)]
    pub fn wrong(&self, property: &'static str, problem: &'static str) -> TreeError {
        TreeError::Property { node: self.name(), property, problem }
    }

    /// An error about this node as a whole.
    pub fn unsupported(&self, what: &'static str) -> TreeError {
        TreeError::Unsupported { node: self.name(), what }
    }

    /// How many entries the node's `reg` has.
    ///
    /// # Errors
    /// It is absent, or not a whole number of entries.
    pub fn reg_count(&self) -> Result<usize, TreeError> {
        let (address, size) = self.reg_cells()?;
        let reg = self.property("reg").ok_or_else(|| self.wrong("reg", "is missing"))?;
        let entry = 4 * (address + size);
        if reg.is_empty() || !reg.len().is_multiple_of(entry) {
            return Err(self.wrong("reg", "is not a whole number of address and size pairs"));
        }
        Ok(reg.len() / entry)
    }

    /// Entry `index` of the node's `reg`, as the CPU addresses it.
    ///
    /// # Errors
    /// There is no such entry, it is empty or wraps, or a bus on the way does not say how it is addressed.
    pub fn reg(&self, index: usize) -> Result<Region, TreeError> {
        if index >= self.reg_count()? {
            return Err(self.wrong("reg", "has too few entries"));
        }
        let (address, size) = self.reg_cells()?;
        let reg = self.property("reg").unwrap_or_default();
        let mut cells = Cells(reg.get(4 * index * (address + size)..).unwrap_or_default());
        let start = cells.take(address);
        let bytes = cells.take(size);
        let region = start.zip(bytes).and_then(|(start, bytes)| Region::new(start, bytes));
        self.translate(region.ok_or_else(|| self.wrong("reg", "is empty, wraps or is too large"))?)
    }

    /// Whether entry `index` of the node's `reg` is there and says zero bytes.
    pub fn reg_size_is_zero(&self, index: usize) -> bool {
        let Ok((address, size)) = self.reg_cells() else { return false };
        let reg = self.property("reg").unwrap_or_default();
        let mut cells = Cells(reg.get(4 * index * (address + size)..).unwrap_or_default());
        cells.take(address).and_then(|_| cells.take(size)) == Some(0)
    }

    /// `#address-cells` of the bus the node lies on, where that is sound.
    pub fn parent_address_cells(&self) -> Option<usize> {
        Some(cells_of(self.fdt, *self.above.last()?)?.0)
    }

    /// `#address-cells` and `#size-cells` of the bus the node lies on. A `/chosen` that gives none has the root's.
    fn reg_cells(&self) -> Result<(usize, usize), TreeError> {
        let Some(mut bus) = self.above.last().copied() else {
            return Err(self.wrong("reg", "has no meaning here"));
        };
        if bus.name == "chosen" && self.fdt.property(bus, "#address-cells").is_none() {
            bus = self.above.first().copied().unwrap_or(bus);
        }
        match cells_of(self.fdt, bus) {
            Some(cells @ (1..=2, 1..=2)) => Ok(cells),
            _ => Err(self.wrong("reg", "lies on a bus whose addresses or sizes are not one or two cells")),
        }
    }

    /// Takes a region of the bus the node lies on up through all buses, to what the CPU sees.
    fn translate(&self, mut region: Region) -> Result<Region, TreeError> {
        for pair in self.above.windows(2).rev() {
            let [parent, bus] = pair else { break };
            if bus.name == "chosen" || bus.name == "reserved-memory" {
                continue;
            }
            let ranges = self.fdt.property(*bus, "ranges").ok_or_else(|| {
                self.wrong("reg", "lies on a bus that is not mapped into the CPU's addresses")
            })?;
            if ranges.is_empty() {
                continue;
            }
            region = translate_once(self.fdt, [*parent, *bus], ranges, region)
                .ok_or_else(|| self.wrong("reg", "is not covered by the ranges of its bus"))?;
        }
        Ok(region)
    }

    fn is_enabled(&self) -> bool {
        self.property("status").is_none_or(|status| matches!(status, b"okay\0" | b"ok\0"))
    }

    fn is_at(&self, path: &str) -> bool {
        let mut components = path.split('/').filter(|c| !c.is_empty());
        let nodes = self.above.iter().chain([&self.node]).skip(1);
        for node in nodes {
            let Some(wanted) = components.next() else { return false };
            let bare = node.name.split('@').next();
            if node.name != wanted && bare != Some(wanted) {
                return false;
            }
        }
        components.next().is_none()
    }
}

/// One step of an address translation: through the non-empty `ranges` of a bus, which lies in another.
fn translate_once(
    fdt: Fdt,
    [parent, bus]: [Node; 2],
    ranges: &'static [u8],
    region: Region,
) -> Option<Region> {
    let (child_cells, size_cells) = cells_of(fdt, bus)?;
    let (parent_cells, _) = cells_of(fdt, parent)?;
    let mut cells = Cells(ranges);
    while !cells.is_empty() {
        let child = cells.take(child_cells)?;
        let parent = cells.take(parent_cells)?;
        let window = Region::new(child, cells.take(size_cells)?);
        if window.is_some_and(|w| w.covers(region)) {
            return Region::new(parent.checked_add(region.start().0 - child)?, region.bytes());
        }
    }
    None
}

/// `#address-cells` and `#size-cells` of a bus: two and one where it doesn't say; `None` where what it says is no number.
fn cells_of(fdt: Fdt, bus: Node) -> Option<(usize, usize)> {
    let cells = |name, absent| match fdt.property(bus, name) {
        Some(value) => value.try_into().ok().map(u32::from_be_bytes),
        None => Some(absent),
    };
    Some((cells("#address-cells", 2)? as usize, cells("#size-cells", 1)? as usize))
}

/// Big-endian 32-bit cells, read from the front.
#[derive(Clone, Copy)]
pub struct Cells(pub &'static [u8]);

impl Cells {
    /// Whether no byte is left.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The number of `count` cells, one or two; `None` where they aren't there, or are more.
    #[inline(never)]
    pub fn take(&mut self, count: usize) -> Option<u64> {
        if !(1..=2).contains(&count) {
            return None;
        }
        let (value, rest) = self.0.split_at_checked(4 * count)?;
        self.0 = rest;
        Some(value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// One cell.
    #[inline(never)]
    pub fn cell(&mut self) -> Option<u32> {
        self.take(1).and_then(|value| value.try_into().ok())
    }
}
