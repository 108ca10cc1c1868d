use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::*;

/// 64 MiB of RAM from 1 GiB.
fn ram() -> IpaRange {
    IpaRange::new(Ipa(0x4000_0000), 0x400_0000).unwrap()
}

fn refused(module: &[u8]) -> String {
    plan(module, ram()).unwrap_err().to_string()
}

/// Puts `value` at `at`.
fn put<const N: usize>(module: &mut [u8], at: usize, value: [u8; N]) {
    module[at..at + N].copy_from_slice(&value);
}

mod image {
    use super::*;

    /// An Image of 4 KiB that needs 0x6000 bytes.
    fn image() -> Vec<u8> {
        let mut image = vec![0xaa; 0x1000];
        put(&mut image, 0x08, 0x8_0000_u64.to_le_bytes());
        put(&mut image, 0x10, 0x6000_u64.to_le_bytes());
        put(&mut image, 0x18, 0xa_u64.to_le_bytes());
        put(&mut image, 0x38, *b"ARM\x64");
        image
    }

    #[test]
    fn image_stands_at_its_offset_and_is_entered_there() {
        let segment = Segment { to: Ipa(0x4008_0000), from: 0..0x1000, zeros: 0x5000 };
        let expected = LoadPlan {
            entry: Ipa(0x4008_0000),
            segments: vec![segment],
            start: Ipa(0x4008_0000),
            end: Ipa(0x4008_6000),
        };
        assert_eq!(plan(&image(), ram()), Ok(expected));
    }

    #[test]
    fn image_is_offset_from_a_multiple_of_2_mib() {
        let ram = IpaRange::new(Ipa(0x4010_0000), 0x400_0000).unwrap();
        assert_eq!(plan(&image(), ram).unwrap().entry, Ipa(0x4028_0000));
    }

    #[test]
    fn image_longer_than_it_says_is_loaded_whole() {
        let mut image = image();
        put(&mut image, 0x10, 0x800_u64.to_le_bytes());
        let plan = plan(&image, ram()).unwrap();
        assert_eq!((plan.end, plan.segments[0].zeros), (Ipa(0x4008_1000), 0));
    }

    #[test]
    fn big_endian_image_is_refused() {
        let mut image = image();
        put(&mut image, 0x18, 1_u64.to_le_bytes());
        assert_eq!(plan(&image, ram()), Err(LoadError::BigEndian));
    }

    #[test]
    fn image_without_a_size_is_refused() {
        let mut image = image();
        put(&mut image, 0x10, 0_u64.to_le_bytes());
        assert_eq!(refused(&image), "the Image's header says no image_size: not supported");
    }

    #[test]
    fn image_with_an_odd_offset_is_refused() {
        let mut image = image();
        put(&mut image, 0x08, 2_u64.to_le_bytes());
        assert_eq!(refused(&image), "the kernel's entry point 0x40000002 is no multiple of 4");
    }

    #[test]
    fn image_that_needs_more_than_ram_is_refused() {
        let mut image = image();
        put(&mut image, 0x10, 0x400_0000_u64.to_le_bytes());
        let text = "too little memory: the kernel needs 0x4080000 bytes, the VM has 0x4000000 for it";
        assert_eq!(refused(&image), text);
        put(&mut image, 0x10, 0x3f8_0000_u64.to_le_bytes());
        assert_eq!(plan(&image, ram()).unwrap().end, ram().end());
    }

    #[test]
    fn numbers_that_wrap_are_refused() {
        let mut huge = image();
        put(&mut huge, 0x10, u64::MAX.to_le_bytes());
        assert!(refused(&huge).starts_with("too little memory"));
        let mut far = image();
        put(&mut far, 0x08, u64::MAX.to_le_bytes());
        assert!(refused(&far).starts_with("too little memory"));
    }

    #[test]
    fn header_alone_is_an_image_and_less_is_none() {
        assert!(plan(&image()[..0x40], ram()).is_ok());
        assert!(refused(&image()[..0x3f]).starts_with("not a kernel"));
    }
}

mod elf {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    struct Load {
        flags: u32,
        offset: u64,
        virt: u64,
        phys: u64,
        filesz: u64,
        memsz: u64,
    }

    const TEXT: Load =
        Load { flags: 5, offset: 0x1000, virt: 0, phys: 0x4008_0000, filesz: 0x800, memsz: 0x800 };
    const DATA: Load =
        Load { flags: 6, offset: 0x1800, virt: 0x1000, phys: 0x4008_1000, filesz: 0x100, memsz: 0x3000 };

    /// An ELF file of 8 KiB, laid out by hand (System V ABI, chapter 4 and 5): an entry point and loadable segments.
    fn elf(entry: u64, loads: &[Load]) -> Vec<u8> {
        let mut file = Vec::from([0; 0x2000]);
        put(&mut file, 0x00, *b"\x7fELF\x02\x01\x01");
        put(&mut file, 0x10, 2_u16.to_le_bytes()); // ET_EXEC
        put(&mut file, 0x12, 183_u16.to_le_bytes()); // EM_AARCH64
        put(&mut file, 0x14, 1_u32.to_le_bytes());
        put(&mut file, 0x18, entry.to_le_bytes());
        put(&mut file, 0x20, 0x40_u64.to_le_bytes()); // e_phoff
        put(&mut file, 0x34, 64_u16.to_le_bytes());
        put(&mut file, 0x36, 56_u16.to_le_bytes()); // e_phentsize
        put(&mut file, 0x38, u16::try_from(loads.len()).unwrap().to_le_bytes());
        for (at, load) in (0x40..).step_by(56).zip(loads) {
            put(&mut file, at, 1_u32.to_le_bytes()); // PT_LOAD
            put(&mut file, at + 4, load.flags.to_le_bytes());
            let fields = [load.offset, load.virt, load.phys, load.filesz, load.memsz, 0x1000];
            for (at, field) in (at + 8..).step_by(8).zip(fields) {
                put(&mut file, at, field.to_le_bytes());
            }
        }
        file
    }

    #[test]
    fn segments_go_to_their_physical_addresses() {
        let text = Segment { to: Ipa(0x4008_0000), from: 0x1000..0x1800, zeros: 0 };
        let data = Segment { to: Ipa(0x4008_1000), from: 0x1800..0x1900, zeros: 0x2f00 };
        let expected = LoadPlan {
            entry: Ipa(0x4008_0040),
            segments: Vec::from([text, data]),
            start: Ipa(0x4008_0000),
            end: Ipa(0x4008_4000),
        };
        assert_eq!(plan(&elf(0x40, &[DATA, TEXT]), ram()), Ok(expected));
    }

    #[test]
    fn entry_point_is_translated_by_its_segment() {
        let high = Load { virt: 0xffff_8000_0000_0000, ..TEXT };
        let plan = plan(&elf(0xffff_8000_0000_0100, &[high]), ram()).unwrap();
        assert_eq!(plan.entry, Ipa(0x4008_0100));
    }

    #[test]
    fn entry_point_outside_code_is_refused() {
        let text = "the ELF file is damaged: the entry point is in no executable segment (0x1000)";
        assert_eq!(refused(&elf(0x1000, &[TEXT, DATA])), text);
        assert!(refused(&elf(0x800, &[TEXT])).contains("no executable segment (0x800)"));
        assert!(refused(&elf(0x42, &[TEXT])).contains("0x40080042 is no multiple of 4"));
    }

    #[test]
    fn segment_outside_ram_is_refused() {
        let below = Load { phys: 0x3fff_f000, ..DATA };
        let text = "the kernel wants 0x3000 bytes at 0x3ffff000, the VM's RAM is 0x40000000..0x44000000";
        assert_eq!(refused(&elf(0, &[TEXT, below])), text);
        let across_the_end = Load { phys: 0x43ff_e000, ..DATA };
        assert!(refused(&elf(0, &[TEXT, across_the_end])).starts_with("the kernel wants"));
        let wrapping = Load { memsz: u64::MAX, ..DATA };
        assert!(refused(&elf(0, &[TEXT, wrapping])).starts_with("the kernel wants"));
        let last = Load { phys: 0x43ff_d000, ..DATA };
        assert_eq!(plan(&elf(0, &[TEXT, last]), ram()).unwrap().end, ram().end());
    }

    #[test]
    fn segment_outside_the_file_is_refused() {
        let text = "the ELF file is damaged: a segment goes on behind the end of the file (0x1f01)";
        assert_eq!(refused(&elf(0, &[TEXT, Load { offset: 0x1f01, ..DATA }])), text);
        assert!(refused(&elf(0, &[TEXT, Load { offset: u64::MAX, ..DATA }])).contains("behind the end"));
        assert!(plan(&elf(0, &[TEXT, Load { offset: 0x1f00, ..DATA }]), ram()).is_ok());
    }

    #[test]
    fn segment_larger_in_the_file_than_in_memory_is_refused() {
        assert!(
            refused(&elf(0, &[TEXT, Load { memsz: 0xff, ..DATA }]))
                .contains("larger in the file than in memory")
        );
    }

    #[test]
    fn overlapping_segments_are_refused() {
        let data = Load { phys: 0x4008_07ff, ..DATA };
        let text = "the kernel's segments at 0x40080000 and 0x400807ff overlap";
        assert_eq!(refused(&elf(0, &[data, TEXT])), text);
    }

    #[test]
    fn segments_without_memory_and_of_other_kinds_are_left_out() {
        let empty = Load { filesz: 0, memsz: 0, phys: 0, ..DATA };
        let mut file = elf(0, &[TEXT, empty, DATA]);
        put(&mut file, 0x40 + 2 * 56, 4_u32.to_le_bytes()); // PT_NOTE
        assert_eq!(plan(&file, ram()).unwrap().segments.len(), 1);
        assert!(refused(&elf(0, &[])).contains("it has no"));
    }

    #[test]
    fn executables_of_other_machines_are_refused() {
        let mut x86 = elf(0, &[TEXT]);
        put(&mut x86, 0x12, 62_u16.to_le_bytes());
        assert_eq!(refused(&x86), "the ELF file can't be started: it is not for 64-bit Arm");
        let mut narrow = elf(0, &[TEXT]);
        put(&mut narrow, 0x04, [1]);
        assert!(plan(&narrow, ram()).is_err());
        let mut big = elf(0, &[TEXT]);
        put(&mut big, 0x05, [2]);
        assert_eq!(plan(&big, ram()), Err(LoadError::BigEndian));
    }

    #[test]
    fn objects_and_position_independent_files_are_refused() {
        let mut object = elf(0, &[TEXT]);
        put(&mut object, 0x10, 1_u16.to_le_bytes());
        assert!(refused(&object).contains("no executable"));
        put(&mut object, 0x10, 3_u16.to_le_bytes());
        assert!(refused(&object).contains("position-independent"));
    }

    #[test]
    fn file_cut_anywhere_is_refused_or_loaded_but_never_read_past() {
        let file = elf(0x40, &[TEXT, DATA]);
        for bytes in 0..file.len() {
            if let Ok(plan) = plan(&file[..bytes], ram()) {
                assert!(plan.segments.iter().all(|s| s.from.end <= bytes), "{bytes}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_the_headers_say_a_plan_stays_in_module_and_ram(
            changes in vec(((0..0xb0_usize), any::<u8>()), 1..6),
        ) {
            let mut file = elf(0x40, &[TEXT, DATA]);
            for (at, byte) in changes {
                file[at] = byte;
            }
            if let Ok(plan) = plan(&file, ram()) {
                for segment in &plan.segments {
                    prop_assert!(segment.from.end <= file.len());
                    let bytes = segment.from.len() as u64 + segment.zeros;
                    prop_assert!(segment.to >= plan.start && segment.to.offset(bytes) <= plan.end);
                }
                prop_assert!(plan.start >= ram().start() && plan.end <= ram().end());
                prop_assert!(plan.entry >= plan.start && plan.entry < plan.end);
            }
        }
    }

    #[test]
    fn sixty_fifth_segment_is_refused() {
        let loads = |count: u64| -> Vec<Load> {
            let load = |i| Load { phys: 0x4008_0000 + i * 0x1000, virt: i * 0x1000, ..TEXT };
            (0..count).map(load).collect()
        };
        assert!(plan(&elf(0, &loads(64)), ram()).is_ok());
        assert!(refused(&elf(0, &loads(65))).contains("more than 64"));
    }

    #[test]
    fn headers_that_point_nowhere_are_refused() {
        let mut file = elf(0, &[TEXT]);
        put(&mut file, 0x20, u64::MAX.to_le_bytes());
        assert!(plan(&file, ram()).is_err());
        put(&mut file, 0x20, 0x1ff0_u64.to_le_bytes());
        assert!(refused(&file).contains("it ends before this offset"));
        let mut odd = elf(0, &[TEXT]);
        put(&mut odd, 0x36, 57_u16.to_le_bytes());
        assert!(refused(&odd).contains("table entries of a wrong size (0x39)"));
    }
}

mod other {
    use super::*;

    #[test]
    fn other_files_are_no_kernels_and_their_first_bytes_are_named() {
        let text =
            "not a kernel: neither arm64 Image nor AArch64 ELF (first bytes 23 21 2f 62, 10 bytes in all)";
        assert_eq!(refused(b"#!/bin/sh\n"), text);
        assert!(refused(b"\x01").contains("(first bytes 01 00 00 00, 1 bytes in all)"));
        assert!(refused(b"").contains("0 bytes in all"));
    }

    #[test]
    fn compressed_kernels_are_named_as_such() {
        assert_eq!(refused(b"\x1f\x8b\x08\0"), "the kernel is compressed (gzip): unpack it first");
        assert!(refused(b"\x28\xb5\x2f\xfd\x04").contains("(zstd)"));
        assert!(refused(b"\xfd7zXZ\0").contains("(xz)"));
    }
}

mod placing {
    use super::*;

    fn kernel(start: u64, end: u64) -> LoadPlan {
        LoadPlan { entry: Ipa(start), segments: Vec::new(), start: Ipa(start), end: Ipa(end) }
    }

    fn placed(start: u64, bytes: u64) -> Placed {
        Placed { start: Ipa(start), bytes }
    }

    #[test]
    fn device_tree_and_ramdisk_follow_the_kernel() {
        let placement = place(&kernel(0x4008_0000, 0x4123_4567), ram(), Some(0x12_3457)).unwrap();
        let expected =
            Placement { dtb: placed(0x4140_0000, 0x20_0000), ramdisk: Some(placed(0x4160_0000, 0x12_3457)) };
        assert_eq!(placement, expected);
    }

    #[test]
    fn they_go_below_a_kernel_at_the_end_of_ram() {
        let placement = place(&kernel(0x4380_0000, 0x4400_0000), ram(), Some(1)).unwrap();
        let expected =
            Placement { dtb: placed(0x4000_0000, 0x20_0000), ramdisk: Some(placed(0x4020_0000, 1)) };
        assert_eq!(placement, expected);
    }

    #[test]
    fn large_ramdisk_goes_below_when_only_the_device_tree_fits_above() {
        let placement = place(&kernel(0x4300_0000, 0x43e0_0000), ram(), Some(0x200_0000)).unwrap();
        let expected =
            Placement { dtb: placed(0x43e0_0000, 0x20_0000), ramdisk: Some(placed(0x4000_0000, 0x200_0000)) };
        assert_eq!(placement, expected);
    }

    #[test]
    fn ramdisk_may_end_with_ram() {
        let kernel = kernel(0x4000_0000, 0x4020_0000);
        assert_eq!(
            place(&kernel, ram(), Some(0x3c0_0000)).unwrap().ramdisk,
            Some(placed(0x4040_0000, 0x3c0_0000))
        );
        let error = place(&kernel, ram(), Some(0x3c0_0001)).unwrap_err();
        let text = "too little memory: the ramdisk needs 0x3c00001 bytes, the VM has 0x3c00000 for it";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn kernel_that_leaves_no_room_is_refused() {
        let error = place(&kernel(0x4000_0000, 0x43f0_0000), ram(), None).unwrap_err();
        let text = "too little memory: the device tree needs 0x200000 bytes, the VM has 0x0 for it";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn room_that_alignment_loses_is_not_counted() {
        let error = place(&kernel(0x4000_0000, 0x43d0_0000), ram(), Some(0x1000)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("too little memory: the ramdisk needs 0x1000 bytes, the VM has 0x0")
        );
        let error = place(&kernel(0x400f_f001, 0x43e0_1000), ram(), None).unwrap_err();
        assert_eq!(
            error,
            LoadError::TooLittleMemory { what: "device tree", needs: 0x20_0000, has: 0xf_f001 }
        );
    }

    #[test]
    fn absurd_ramdisk_is_refused() {
        let kernel = kernel(0x4000_0000, 0x4020_0000);
        assert!(matches!(place(&kernel, ram(), Some(u64::MAX)), Err(LoadError::TooLittleMemory { .. })));
    }
}
