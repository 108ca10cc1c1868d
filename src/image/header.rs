//! The header of the image file: an arm64 Image and an EFI application at once.
#![expect(unsafe_code, reason = "the header, in assembly")]

use core::arch::global_asm;

/// The flags of the arm64 Image header: little endian, 4 KiB pages, may be loaded anywhere in RAM.
const IMAGE_FLAGS: u64 = 0b01 << 1 | 1 << 3;
/// Offset from a multiple of 2 MiB at which the image wants to be loaded.
const IMAGE_TEXT_OFFSET: u64 = 0;

/// Bytes of the file, and of memory, in front of the first section; entry code and vectors share them.
const HEADER_BYTES: u32 = 0x1000;
/// IMAGE_FILE_MACHINE_ARM64.
const PE_MACHINE: u16 = 0xaa64;
/// IMAGE_FILE_EXECUTABLE_IMAGE, IMAGE_FILE_LINE_NUMS_STRIPPED, IMAGE_FILE_DEBUG_STRIPPED.
const PE_CHARACTERISTICS: u16 = 0x0002 | 0x0004 | 0x0200;
/// The magic number of a PE32+ optional header.
const PE32_PLUS: u16 = 0x20b;
/// Sections are given their rights by pages.
const PE_SECTION_ALIGN: u32 = 0x1000;
const PE_FILE_ALIGN: u32 = 0x200;
/// IMAGE_SUBSYSTEM_EFI_APPLICATION.
const PE_EFI_APPLICATION: u16 = 10;
/// IMAGE_DLLCHARACTERISTICS_NX_COMPAT: nothing is executed but code.
const PE_DLL_CHARACTERISTICS: u16 = 0x0100;
/// As many as there have to be for that of relocations, the sixth, to be among them: some loaders look there.
const PE_DIRECTORIES: u32 = 6;
/// Bytes of an entry of the section table.
const PE_SECTION_BYTES: u32 = 40;
/// IMAGE_SCN_CNT_CODE, IMAGE_SCN_MEM_EXECUTE, IMAGE_SCN_MEM_READ.
const PE_TEXT_RIGHTS: u32 = 0x0000_0020 | 0x2000_0000 | 0x4000_0000;
/// IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_READ, IMAGE_SCN_MEM_WRITE.
const PE_DATA_RIGHTS: u32 = 0x0000_0040 | 0x4000_0000 | 0x8000_0000;

global_asm!(
    include_str!("header.S"),
    TEXT_OFFSET = const IMAGE_TEXT_OFFSET,
    IMAGE_FLAGS = const IMAGE_FLAGS,
    HEADER_BYTES = const HEADER_BYTES,
    PE_MACHINE = const PE_MACHINE,
    PE_CHARACTERISTICS = const PE_CHARACTERISTICS,
    PE32_PLUS = const PE32_PLUS,
    PE_SECTION_ALIGN = const PE_SECTION_ALIGN,
    PE_FILE_ALIGN = const PE_FILE_ALIGN,
    PE_EFI_APPLICATION = const PE_EFI_APPLICATION,
    PE_DLL_CHARACTERISTICS = const PE_DLL_CHARACTERISTICS,
    PE_DIRECTORIES = const PE_DIRECTORIES,
    PE_SECTION_BYTES = const PE_SECTION_BYTES,
    PE_TEXT_RIGHTS = const PE_TEXT_RIGHTS,
    PE_DATA_RIGHTS = const PE_DATA_RIGHTS,
);
