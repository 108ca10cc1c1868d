// The file's first bytes, which are two headers in one: that of an arm64 Image (Linux, 'Booting AArch64 Linux', 4) and
// the DOS header of an EFI application, whose two fields, "MZ" and the offset of the PE header, lie where an Image has
// an instruction of no effect and a reserved word.

.section .head.header, "ax"
.global image_header
image_header:
    // Its encoding begins with "MZ"; it changes flags that nobody reads.
    ccmp    x18, #0, #0xd, pl
    b       image_entry
    .quad   {TEXT_OFFSET}
    .quad   image_size
    .quad   {IMAGE_FLAGS}
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   pe_header - image_header

// PE signature and COFF header (PE format, 'Signature', 'COFF File Header').
.balign 8
pe_header:
    .ascii  "PE\0\0"
    .short  {PE_MACHINE}
    .short  (sections_end - sections) / {PE_SECTION_BYTES}
    .long   0                           // time stamp
    .long   0, 0                        // no symbols
    .short  sections - optional_header
    .short  {PE_CHARACTERISTICS}

// 'Optional Header': standard fields, Windows-specific fields, data directories.
optional_header:
    .short  {PE32_PLUS}
    .byte   0, 0                        // linker version
    .long   pe_text_bytes
    .long   pe_data_file_bytes
    .long   pe_bss_bytes
    .long   efi_entry - image_header
    .long   {HEADER_BYTES}              // base of code

    .quad   0                           // preferred base: none, the image relocates itself
    .long   {PE_SECTION_ALIGN}
    .long   {PE_FILE_ALIGN}
    .short  0, 0                        // operating system
    .short  0, 0                        // image
    .short  0, 0                        // subsystem's version
    .long   0
    .long   image_size
    .long   {HEADER_BYTES}
    .long   0                           // checksum: not used for applications
    .short  {PE_EFI_APPLICATION}
    .short  {PE_DLL_CHARACTERISTICS}
    .quad   0, 0, 0, 0                  // stack and heap: the firmware's
    .long   0
    .long   {PE_DIRECTORIES}
    .zero   {PE_DIRECTORIES} * 8        // all empty, that of relocations too

// 'Section Table': name, size in memory, address, size in the file, offset in the file, nothing, rights.
sections:
    .ascii  ".text\0\0\0"
    .long   pe_text_bytes
    .long   {HEADER_BYTES}
    .long   pe_text_bytes
    .long   {HEADER_BYTES}
    .long   0, 0, 0
    .long   {PE_TEXT_RIGHTS}

    .ascii  ".data\0\0\0"
    .long   pe_data_bytes
    .long   pe_data_start
    .long   pe_data_file_bytes
    .long   pe_data_start
    .long   0, 0, 0
    .long   {PE_DATA_RIGHTS}
sections_end:
