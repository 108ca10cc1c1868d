//! An ELF file around a raw Image, for the loader of ELF kernels.

/// An executable for AArch64 with one segment: `code`, which is entered at its first byte, at `address`, with `zeros`
/// behind it (ELF-64 Object File Format, 1.5).
#[must_use]
pub fn executable(code: &[u8], address: u64, zeros: u64) -> Vec<u8> {
    const HEADER: u64 = 64;
    const PROGRAM_HEADER: u64 = 56;
    let length = code.len() as u64;
    let mut file = vec![];
    file.extend(*b"\x7fELF\x02\x01\x01");
    file.resize(16, 0);
    // e_type 2 (executable), e_machine 183 (AArch64), e_version 1.
    file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    file.extend(address.to_le_bytes());
    file.extend(HEADER.to_le_bytes());
    file.extend(0_u64.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    for half in [HEADER as u16, PROGRAM_HEADER as u16, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // p_type 1 (load), p_flags 7 (rwx).
    file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for word in [HEADER + PROGRAM_HEADER, address, address, length, length + zeros, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}
