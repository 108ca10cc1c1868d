//! RAM, what of it others have claimed, and what is left.

use super::tree::{Place, Tree};
use super::{Module, ModuleKind, Region, TreeError};
use arrayvec::ArrayVec;

/// How many pieces of RAM a machine may have.
pub const MAX_RAM: usize = 32;
/// How many pieces of it may be reserved.
pub const MAX_RESERVED: usize = 48;
/// Whose an entry of the memory reservation block is.
const MEMRESERVE: &str = "/memreserve/";
/// How many pieces may be left between them.
pub const MAX_FREE: usize = 64;

/// A piece of RAM that is not EL2's to hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Where it is.
    pub region: Region,
    /// Whose it is.
    pub what: &'static str,
    /// It must not even be mapped (`no-map`): a speculative access could do harm.
    pub no_map: bool,
}

/// Reads the memory nodes: whole pages, sorted, neighbours merged.
///
/// # Errors
/// There is no RAM, pieces of it overlap, or a node is wrong.
pub fn read_ram(tree: Tree, ram: &mut ArrayVec<Region, MAX_RAM>) -> Result<(), TreeError> {
    tree.each(&mut |place| {
        if place.depth() != 1 || place.string("device_type") != Some("memory") {
            return Ok(());
        }
        for index in 0..place.reg_count()? {
            // Firmware that fills nodes in writes zero sizes where a bank is not fitted.
            if let Some(region) = non_empty_reg(place, index)?.and_then(Region::pages_inside) {
                if let Some(other) = ram.iter().find(|other| other.overlaps(region)) {
                    return Err(TreeError::Overlap { one: (place.name(), region), other: ("RAM", *other) });
                }
                push(ram, "pieces of RAM", region)?;
            }
        }
        Ok(())
    })?;
    crate::sort::by_key(ram, |r| r.start());
    if ram.is_empty() {
        return Err(TreeError::Missing("RAM (device_type = \"memory\")"));
    }
    merge(ram);
    Ok(())
}

fn non_empty_reg(place: &Place, index: usize) -> Result<Option<Region>, TreeError> {
    if place.reg_size_is_zero(index) { Ok(None) } else { place.reg(index).map(Some) }
}

/// Joins neighbours in a sorted list.
fn merge(ram: &mut ArrayVec<Region, MAX_RAM>) {
    let mut index = 1;
    while let (Some(&before), Some(&region)) = (ram.get(index - 1), ram.get(index)) {
        match Region::between(before.start().0, region.end().0) {
            Some(both) if before.end() == region.start() => {
                ram[index - 1] = both;
                ram.remove(index);
            }
            _ => index += 1,
        }
    }
}

/// Reads the memory reservation block and `/reserved-memory`.
///
/// # Errors
/// An entry is wrong.
pub fn read_reserved(tree: Tree, reserved: &mut ArrayVec<Reserved, MAX_RESERVED>) -> Result<(), TreeError> {
    for (start, bytes) in tree.reservations() {
        if let Some(region) = Region::new(start, bytes) {
            push(reserved, "reservations", Reserved { region, what: MEMRESERVE, no_map: false })?;
        } else if bytes != 0 {
            return Err(TreeError::Property {
                node: "/",
                property: MEMRESERVE,
                problem: "an entry wraps around the end of the address space",
            });
        }
    }
    tree.each(&mut |place| {
        // One without `reg` asks an operating system for memory of its choice; EL2 is none.
        if place.depth() != 2 || place.parent_name() != "reserved-memory" || place.property("reg").is_none() {
            return Ok(());
        }
        for index in 0..place.reg_count()? {
            let no_map = place.property("no-map").is_some();
            let entry = Reserved { region: place.reg(index)?, what: place.name(), no_map };
            push(reserved, "reservations", entry)?;
        }
        Ok(())
    })
}

/// Refuses modules that are not wholly in RAM, or share memory with each other or with what is reserved.
///
/// A loader that hands over an initial ramdisk reserves its memory (`/memreserve/`), as U-Boot does: that is no conflict.
///
/// # Errors
/// As said.
pub fn check_modules(ram: &[Region], reserved: &[Reserved], modules: &[Module]) -> Result<(), TreeError> {
    for (index, module) in modules.iter().enumerate() {
        if !ram.iter().any(|r| r.covers(module.region)) {
            return Err(TreeError::OutsideRam(module.name, module.region));
        }
        let own = |r: &&Reserved| {
            module.kind == ModuleKind::Bundle && r.what == MEMRESERVE && r.region.covers(module.region)
        };
        let claimed = reserved.iter().filter(|r| !own(r)).map(|r| (r.what, r.region));
        let before = modules.iter().take(index).map(|m| (m.name, m.region));
        if let Some(other) = claimed.chain(before).find(|(_, region)| region.overlaps(module.region)) {
            return Err(TreeError::Overlap { one: (module.name, module.region), other });
        }
    }
    Ok(())
}

/// Puts the whole pages of `ram` that none of `taken` touches into `free`, sorted.
///
/// # Errors
/// They are too many pieces.
pub fn subtract(
    ram: &[Region],
    taken: impl Iterator<Item = Region> + Clone,
    free: &mut ArrayVec<Region, MAX_FREE>,
) -> Result<(), TreeError> {
    for region in ram {
        let mut at = region.start().0;
        while at < region.end().0 {
            // The first taken page at or above `at`; what lies below it is free.
            let next = taken
                .clone()
                .map(Region::pages_around)
                .filter(|t| t.end().0 > at && t.start() < region.end())
                .min_by_key(|t| t.start());
            let free_end = next.map_or(region.end().0, |t| t.start().0);
            if let Some(piece) = Region::between(at, free_end) {
                push(free, "pieces of free RAM", piece)?;
            }
            at = next.map_or(region.end().0, |t| t.end().0);
        }
    }
    Ok(())
}

/// Appends, or says what there is too much of.
pub fn push<T, const N: usize>(
    list: &mut ArrayVec<T, N>,
    what: &'static str,
    item: T,
) -> Result<(), TreeError> {
    list.try_push(item).map_err(|_| TreeError::TooMany { what, limit: N })
}
