//! Static AArch64 executables: each loadable segment goes to its physical address.

use alloc::vec::Vec;

use elf::abi::{EI_NIDENT, EM_AARCH64, ET_DYN, ET_EXEC, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, ELF64_EHDR_TAILSIZE, FileHeader, parse_ident};
use elf::parse::{ParseAt, ParseError};
use elf::segment::{ProgramHeader, SegmentTable};
use strandline::addr::{Ipa, IpaRange};

use super::{LoadError, LoadPlan, Segment};

/// The most loadable segments a kernel can have: a linker makes a handful.
const MOST_SEGMENTS: usize = 64;

/// Plans the loading of an ELF file.
pub(super) fn plan(module: &[u8], ram: IpaRange) -> Result<LoadPlan, LoadError> {
    let file = header(module).map_err(|error| refusal(&error))?;
    check_kind(&file)?;
    let headers = loadable(&file, module)?;
    let mut segments = Vec::new();
    for header in &headers {
        segments.push(segment(header, module, ram)?);
    }
    crate::sort::by_key(&mut segments, |s| s.to);
    check_apart(&segments)?;
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
        return Err(LoadError::ElfKind("it has no loadable segment"));
    };
    let (start, end) = (first.to, Ipa(end(last)));
    Ok(LoadPlan { entry: entry(file.e_entry, &headers)?, segments, start, end })
}

type Header = FileHeader<LittleEndian>;

/// The file header. The sections, which the crate would read as well, are of no use here.
fn header(module: &[u8]) -> Result<Header, ParseError> {
    let tail = EI_NIDENT + ELF64_EHDR_TAILSIZE;
    let (ident, tail) = module
        .get(..tail)
        .and_then(|header| header.split_at_checked(EI_NIDENT))
        .ok_or(ParseError::SliceReadError((0, tail)))?;
    FileHeader::parse_tail(parse_ident(ident)?, tail)
}

/// What the parser's error means for whoever made the file.
fn refusal(error: &ParseError) -> LoadError {
    match error {
        ParseError::UnsupportedElfEndianness(_) => LoadError::BigEndian,
        ParseError::UnsupportedElfClass(class) => LoadError::ElfBroken("unknown class", (*class).into()),
        ParseError::UnsupportedVersion((version, _)) => LoadError::ElfBroken("unknown version", *version),
        ParseError::BadEntsize((size, _)) => LoadError::ElfBroken("table entries of a wrong size", *size),
        ParseError::SliceReadError((_, end)) => {
            LoadError::ElfBroken("it ends before this offset", *end as u64)
        }
        _ => LoadError::ElfKind("its headers can't be read"),
    }
}

fn check_kind(file: &Header) -> Result<(), LoadError> {
    if file.class != Class::ELF64 || file.e_machine != EM_AARCH64 {
        return Err(LoadError::ElfKind("it is not for 64-bit Arm"));
    }
    match file.e_type {
        ET_EXEC => Ok(()),
        ET_DYN => {
            Err(LoadError::ElfKind("it is position-independent: link it statically, to addresses in RAM"))
        }
        _ => Err(LoadError::ElfKind("it is no executable")),
    }
}

/// The headers of the segments that take up memory.
fn loadable(file: &Header, module: &[u8]) -> Result<Vec<ProgramHeader>, LoadError> {
    if file.e_phoff == 0 {
        return Err(LoadError::ElfKind("it has no program headers"));
    }
    let size = usize::from(file.e_phentsize);
    ProgramHeader::validate_entsize(file.class, size).map_err(|error| refusal(&error))?;
    // More than 2^16 - 2 would be counted elsewhere; they are too many in any case.
    let bytes = u64::from(file.e_phnum) * size as u64;
    let table = range(file.e_phoff, bytes).and_then(|at| module.get(at)).ok_or_else(|| {
        LoadError::ElfBroken("it ends before this offset", file.e_phoff.saturating_add(bytes))
    })?;
    let table = SegmentTable::new(file.endianness, file.class, table);
    let loadable = table.iter().filter(|h| h.p_type == PT_LOAD && h.p_memsz != 0);
    let headers: Vec<ProgramHeader> = loadable.take(MOST_SEGMENTS + 1).collect();
    if headers.len() > MOST_SEGMENTS {
        return Err(LoadError::ElfKind("it has more than 64 loadable segments"));
    }
    Ok(headers)
}

fn segment(header: &ProgramHeader, module: &[u8], ram: IpaRange) -> Result<Segment, LoadError> {
    let zeros = header.p_memsz.checked_sub(header.p_filesz);
    let zeros = zeros
        .ok_or(LoadError::ElfBroken("a segment is larger in the file than in memory", header.p_filesz))?;
    let from = range(header.p_offset, header.p_filesz).filter(|from| module.get(from.clone()).is_some());
    let from =
        from.ok_or(LoadError::ElfBroken("a segment goes on behind the end of the file", header.p_offset))?;
    let end = header.p_paddr.checked_add(header.p_memsz);
    if header.p_paddr < ram.start().0 || end.is_none_or(|end| end > ram.end().0) {
        return Err(LoadError::OutsideRam(header.p_paddr, header.p_memsz, ram));
    }
    Ok(Segment { to: Ipa(header.p_paddr), from, zeros })
}

fn range(start: u64, bytes: u64) -> Option<core::ops::Range<usize>> {
    let end = start.checked_add(bytes)?;
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

/// The first address behind a segment, which was found to lie in RAM.
const fn end(segment: &Segment) -> u64 {
    segment.to.0 + (segment.from.end - segment.from.start) as u64 + segment.zeros
}

/// Whether no two of the segments, sorted by address, overlap.
fn check_apart(segments: &[Segment]) -> Result<(), LoadError> {
    for (lower, upper) in segments.iter().zip(segments.iter().skip(1)) {
        if end(lower) > upper.to.0 {
            return Err(LoadError::Overlap(lower.to, upper.to));
        }
    }
    Ok(())
}

/// Where the entry point, a virtual address, is loaded: the guest is entered with its MMU off.
fn entry(address: u64, headers: &[ProgramHeader]) -> Result<Ipa, LoadError> {
    let found = headers.iter().find_map(|header| {
        let offset = address.checked_sub(header.p_vaddr).filter(|offset| *offset < header.p_memsz)?;
        (header.p_flags & PF_X != 0).then_some(Ipa(header.p_paddr).offset(offset))
    });
    let entry = found.ok_or(LoadError::ElfBroken("the entry point is in no executable segment", address))?;
    if !entry.is_aligned(4) {
        return Err(LoadError::OddEntry(entry.0));
    }
    Ok(entry)
}
