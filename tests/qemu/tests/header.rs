//! The first bytes of the image, against numbers worked out by hand from 'Booting AArch64 Linux' and the PE format.

use std::fs;

use qemu_tests::built;

fn image() -> Vec<u8> {
    fs::read(built("strandline.img")).expect("it was built")
}

fn half(image: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(image[at..at + 2].try_into().expect("two bytes"))
}

fn word(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..at + 4].try_into().expect("four bytes"))
}

fn wide(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"))
}

#[test]
fn arm64_image_header_has_every_field() {
    let image = image();
    // CCMP X18, #0, #13, PL: no effect, and "MZ" in memory.
    assert_eq!(word(&image, 0x00), 0xfa40_5a4d);
    assert_eq!(image[..2], *b"MZ");
    // B, forward, within the first page.
    assert!((0x1400_0000..0x1400_0400).contains(&word(&image, 0x04)));
    assert_eq!(wide(&image, 0x08), 0, "text_offset");
    // Little endian, 4 KiB pages, anywhere in memory.
    assert_eq!(wide(&image, 0x18), 0xa, "flags");
    assert_eq!([wide(&image, 0x20), wide(&image, 0x28), wide(&image, 0x30)], [0; 3], "reserved");
    assert_eq!(word(&image, 0x38), 0x644d_5241, "magic number");
    assert_eq!(word(&image, 0x3c), 0x40, "offset of the PE header");
}

#[test]
fn pe_header_has_every_field() {
    let image = image();
    assert_eq!(word(&image, 0x40), 0x0000_4550, "signature");
    assert_eq!(half(&image, 0x44), 0xaa64, "machine: Arm, 64 bits");
    assert_eq!(half(&image, 0x46), 2, "sections");
    assert_eq!([word(&image, 0x48), word(&image, 0x4c), word(&image, 0x50)], [0; 3], "time stamp, symbols");
    assert_eq!(half(&image, 0x54), 0xa0, "bytes of the optional header");
    assert_eq!(half(&image, 0x56), 0x0206, "executable, without line numbers and debug information");

    assert_eq!(half(&image, 0x58), 0x020b, "PE32+");
    assert_eq!(word(&image, 0x6c), 0x1000, "base of code");
    assert_eq!(wide(&image, 0x70), 0, "preferred base");
    assert_eq!(
        [word(&image, 0x78), word(&image, 0x7c)],
        [0x1000, 0x200],
        "alignment of sections and of the file"
    );
    assert_eq!(word(&image, 0x94), 0x1000, "bytes of headers");
    assert_eq!(word(&image, 0x98), 0, "checksum");
    assert_eq!(half(&image, 0x9c), 10, "EFI application");
    assert_eq!(half(&image, 0x9e), 0x0100, "NX compatible");
    assert_eq!(word(&image, 0xc4), 6, "data directories");
    assert!(image[0xc8..0xf8].iter().all(|byte| *byte == 0), "directories");
}

#[test]
fn sections_cover_the_file_and_the_image() {
    let image = image();
    let (file, memory) = (image.len() as u32, u32::try_from(wide(&image, 0x10)).expect("a small image"));
    assert_eq!(word(&image, 0x90), memory, "SizeOfImage and image_size");
    assert_eq!(memory % 0x1000, 0);
    assert_eq!(file % 0x200, 0);

    assert_eq!(image[0xf8..0x100], *b".text\0\0\0");
    let text = word(&image, 0x100);
    assert_eq!([word(&image, 0x104), word(&image, 0x108), word(&image, 0x10c)], [0x1000, text, 0x1000]);
    assert_eq!(word(&image, 0x11c), 0x6000_0020, "code, read, execute");

    assert_eq!(image[0x120..0x128], *b".data\0\0\0");
    let data = 0x1000 + text;
    assert_eq!(word(&image, 0x128), memory - data);
    assert_eq!([word(&image, 0x12c), word(&image, 0x130), word(&image, 0x134)], [data, file - data, data]);
    assert_eq!(word(&image, 0x144), 0xc000_0040, "initialised data, read, write");

    assert_eq!(
        [word(&image, 0x5c), word(&image, 0x60), word(&image, 0x64)],
        [text, file - data, memory - file]
    );
    let entry = word(&image, 0x68);
    assert!((0x1000..data).contains(&entry), "the entry point {entry:#x} is code");
    // STP X29, X30, [SP, #-32]!
    assert_eq!(word(&image, entry as usize), 0xa9be_7bfd);
}
