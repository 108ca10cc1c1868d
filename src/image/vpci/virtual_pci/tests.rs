use proptest::collection::vec;
use proptest::prelude::*;
use strandline::addr::Pa;

use super::super::assign::assign;
use super::super::fake::{FakeHost, bdf};
use super::super::window::{HostWindows, PciWindow, Window};
use super::*;

/// Configuration space of the functions the tests look at.
const EDU: u64 = 0x8000;
const NVME: u64 = 0x1_0000;

fn virtual_pci(host: &FakeHost, functions: &[Bdf]) -> VirtualPci {
    let low = PciWindow { cpu: Pa(0x5000_0000), pci: 0x1000_0000, bytes: 0x1000_0000 };
    let mut windows = HostWindows::new(Some(low), None);
    let mut guest = Window::new(0x2000_0000, 0x1000_0000);
    let assigned = functions.iter().map(|bdf| assign(host, &mut windows, *bdf, &mut guest).unwrap());
    let pci = VirtualPci::new(host, assigned.collect());
    host.take_writes();
    pci
}

fn edu() -> (FakeHost, VirtualPci) {
    let (host, edu) = FakeHost::with_edu();
    let pci = virtual_pci(&host, &[edu]);
    (host, pci)
}

fn nvme() -> (FakeHost, VirtualPci) {
    let (host, nvme) = FakeHost::with_nvme();
    let pci = virtual_pci(&host, &[nvme]);
    (host, pci)
}

#[test]
fn own_function_shows_its_identity() {
    let (host, pci) = edu();
    assert_eq!(pci.read(&host, EDU, Width::Word), 0x11e8_1234);
    assert_eq!(pci.read(&host, EDU + 0x08, Width::Word), 0x00ff_0010);
    assert_eq!(pci.read(&host, EDU + 0x2c, Width::Word), 0x1100_1af4);
}

#[test]
fn functions_of_others_are_not_there() {
    let (host, pci) = edu();
    host.add_edu(bdf("00:05.0"));
    for offset in [0, 0x9000, 5 << 15, 0xf_fffc] {
        assert_eq!(pci.read(&host, offset, Width::Word), 0xffff_ffff, "{offset:#x}");
    }
    assert_eq!(pci.read(&host, 0, Width::Half), 0xffff);
    assert_eq!(pci.read(&host, 0, Width::Double), u64::MAX);
}

#[test]
fn writes_to_functions_of_others_have_no_effect() {
    let (host, mut pci) = edu();
    host.add_edu(bdf("00:05.0"));
    host.take_writes();
    for offset in [4, (5 << 15) + 4, 0x9004] {
        pci.write(&host, offset, Width::Word, 0xffff_ffff);
    }
    assert!(host.take_writes().is_empty());
}

#[test]
fn no_capability_interrupt_or_rom_is_shown() {
    let (host, pci) = edu();
    host.set(bdf("00:01.0"), 0x04, 0xf918_0402);
    assert_eq!(pci.read(&host, EDU + 0x06, Width::Half), 0xf900);
    for offset in (0x30..0x1000).step_by(4) {
        assert_eq!(pci.read(&host, EDU + offset, Width::Word), 0, "{offset:#x}");
    }
}

#[test]
fn structures_of_a_virtio_function_are_shown_and_cannot_be_written() {
    const VIRTIO: u64 = 0x2_0000;
    let (host, device) = (FakeHost::default(), bdf("00:04.0"));
    host.add_virtio(device, 1 << 33 | 1 << 32);
    let mut pci = virtual_pci(&host, &[device]);
    for offset in (0x34..0x100).step_by(4) {
        pci.write(&host, VIRTIO + offset, Width::Word, 0xffff_ffff);
    }
    assert!(host.take_writes().is_empty());
    assert_eq!(pci.read(&host, VIRTIO + 0x06, Width::Half), 0x0010, "there is a list");
    assert_eq!(pci.read(&host, VIRTIO + 0x34, Width::Word), 0x50);
    assert_eq!(pci.read(&host, VIRTIO + 0x50, Width::Word), 0x0110_6009);
    assert_eq!(pci.read(&host, VIRTIO + 0x80, Width::Word), 0x0214_0009, "the last one");
    // MSI-X, and the access to the BARs through configuration space.
    for offset in (0x40..0x50).chain(0x98..0x100).step_by(4) {
        assert_eq!(pci.read(&host, VIRTIO + offset, Width::Word), 0, "{offset:#x}");
    }
}

#[test]
fn unimplemented_registers_of_the_header_read_zero() {
    let (host, pci) = edu();
    for offset in [0x0c, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28] {
        assert_eq!(pci.read(&host, EDU + offset, Width::Word), 0, "{offset:#x}");
    }
}

#[test]
fn narrow_bar_answers_the_sizing_protocol() {
    let (host, mut pci) = edu();
    assert_eq!(pci.read(&host, EDU + 0x10, Width::Word), 0x2000_0000);
    pci.write(&host, EDU + 0x10, Width::Word, 0xffff_ffff);
    assert_eq!(pci.read(&host, EDU + 0x10, Width::Word), 0xfff0_0000);
    pci.write(&host, EDU + 0x10, Width::Word, 0x2000_0000);
    assert_eq!(pci.read(&host, EDU + 0x10, Width::Word), 0x2000_0000);
    assert!(host.take_writes().is_empty(), "the machine's BAR is not touched");
}

#[test]
fn wide_bar_answers_the_sizing_protocol_in_each_half() {
    let (host, mut pci) = nvme();
    assert_eq!(pci.read(&host, NVME + 0x10, Width::Double), 0x0000_0000_2000_0004);
    pci.write(&host, NVME + 0x10, Width::Word, 0xffff_fff0);
    assert_eq!(pci.read(&host, NVME + 0x10, Width::Double), 0x0000_0000_ffff_c004);
    pci.write(&host, NVME + 0x14, Width::Word, 0xffff_ffff);
    assert_eq!(pci.read(&host, NVME + 0x10, Width::Double), 0xffff_ffff_ffff_c004);
    pci.write(&host, NVME + 0x10, Width::Double, 0x2000_0004);
    assert_eq!(pci.read(&host, NVME + 0x10, Width::Double), 0x0000_0000_2000_0004);
}

#[test]
fn bar_cannot_be_moved() {
    let (host, mut pci) = edu();
    pci.write(&host, EDU + 0x10, Width::Word, 0x1800_0000);
    assert_eq!(pci.read(&host, EDU + 0x10, Width::Word), 0x2000_0000);
}

#[test]
fn small_bar_shows_its_own_size() {
    let (host, device) = FakeHost::with_bars(&[0, 0xffff_ff08]);
    let mut pci = virtual_pci(&host, &[device]);
    pci.write(&host, 0x1_8014, Width::Word, 0xffff_ffff);
    assert_eq!(pci.read(&host, 0x1_8014, Width::Word), 0xffff_ff08);
}

#[test]
fn io_bar_is_hidden() {
    let (host, device) = FakeHost::with_bars(&[0xffff_ffe1]);
    let mut pci = virtual_pci(&host, &[device]);
    pci.write(&host, 0x1_8010, Width::Word, 0xffff_ffff);
    assert_eq!(pci.read(&host, 0x1_8010, Width::Word), 0);
}

#[test]
fn bus_master_bit_reaches_the_function() {
    let (host, mut pci) = edu();
    pci.write(&host, EDU + 0x04, Width::Half, 0x0006);
    assert_eq!(pci.read(&host, EDU + 0x04, Width::Half), 0x0006);
    assert_eq!(host.written(bdf("00:01.0"), 0x04), [0x0406]);
    pci.write(&host, EDU + 0x04, Width::Half, 0x0002);
    assert_eq!(host.written(bdf("00:01.0"), 0x04), [0x0406, 0x0402]);
}

#[test]
fn memory_bit_is_the_guests_own_and_the_function_goes_on_decoding() {
    let (host, mut pci) = edu();
    assert_eq!(pci.read(&host, EDU + 0x04, Width::Half), 0x0000);
    pci.write(&host, EDU + 0x04, Width::Half, 0x0002);
    pci.write(&host, EDU + 0x04, Width::Half, 0x0000);
    assert_eq!(pci.read(&host, EDU + 0x04, Width::Half), 0x0000);
    assert_eq!(host.written(bdf("00:01.0"), 0x04), [0x0402, 0x0402]);
}

#[test]
fn other_command_and_status_bits_cannot_be_written() {
    let (host, mut pci) = edu();
    pci.write(&host, EDU + 0x04, Width::Word, 0xffff_ffff);
    assert_eq!(pci.read(&host, EDU + 0x04, Width::Half), 0x0006);
    assert_eq!(host.written(bdf("00:01.0"), 0x04), [0x0406]);
}

#[test]
fn registers_without_writable_bits_stay() {
    let (host, mut pci) = edu();
    for offset in [0x00, 0x08, 0x0c, 0x14, 0x28, 0x2c, 0x30, 0x34, 0x3c, 0x40, 0x44, 0x100, 0xffc] {
        let before = pci.read(&host, EDU + offset, Width::Word);
        pci.write(&host, EDU + offset, Width::Word, 0xffff_ffff);
        assert_eq!(pci.read(&host, EDU + offset, Width::Word), before, "{offset:#x}");
    }
    assert!(host.take_writes().is_empty());
}

#[test]
fn narrow_accesses_reach_their_bytes() {
    let (host, mut pci) = edu();
    let read = |offset, width| pci.read(&host, EDU + offset, width);
    assert_eq!((read(0, Width::Half), read(2, Width::Half)), (0x1234, 0x11e8));
    assert_eq!((read(3, Width::Byte), read(0x0b, Width::Byte)), (0x11, 0x00));
    assert_eq!(read(0, Width::Double), 0x0000_0000_11e8_1234);
    pci.write(&host, EDU + 0x04, Width::Byte, 0x04);
    pci.write(&host, EDU + 0x05, Width::Byte, 0xff);
    assert_eq!(pci.read(&host, EDU + 0x04, Width::Half), 0x0004);
    for byte in 0x10..0x14 {
        pci.write(&host, EDU + byte, Width::Byte, 0xff);
    }
    assert_eq!(pci.read(&host, EDU + 0x10, Width::Word), 0xfff0_0000);
}

#[test]
fn unaligned_accesses_get_the_bytes_they_name() {
    let (host, mut pci) = edu();
    assert_eq!(pci.read(&host, EDU + 1, Width::Word), 0x0011_e812);
    assert_eq!(pci.read(&host, EDU + 3, Width::Double), 0xff00_1000_0000_0011);
    pci.write(&host, EDU + 3, Width::Word, 0x0000_0600);
    assert_eq!(pci.read(&host, EDU + 0x04, Width::Half), 0x0006);
}

#[test]
fn accesses_past_the_end_of_a_function_or_of_the_space_are_harmless() {
    let (host, device) = (FakeHost::default(), bdf("00:1f.7"));
    host.add_edu(bdf("00:1f.0"));
    host.add_edu(device);
    let mut pci = virtual_pci(&host, &[bdf("00:1f.0"), device]);
    // The VM's two functions are 1f.0 and 1f.1: what lies behind the second is nothing.
    assert_eq!(pci.read(&host, 0xf_9ffe, Width::Word), 0xffff_0000);
    for offset in [0xf_fffe, 0x10_0000, 0x10_8004, u64::MAX - 3, u64::MAX] {
        pci.write(&host, offset, Width::Double, u64::MAX);
        assert_eq!(pci.read(&host, offset, Width::Word), 0xffff_ffff, "{offset:#x}");
    }
    assert!(host.take_writes().is_empty());
}

#[test]
fn lone_function_of_a_device_is_function_zero() {
    let host = FakeHost::default();
    host.add_edu(bdf("00:03.2"));
    host.set(bdf("00:03.2"), 0x0c, 0x0080_0000);
    let pci = virtual_pci(&host, &[bdf("00:03.2")]);
    assert_eq!(pci.read(&host, 3 << 15, Width::Word), 0x11e8_1234);
    assert_eq!(pci.read(&host, (3 << 15) + 0x0c, Width::Word), 0);
    assert_eq!(pci.read(&host, (3 << 15) + (2 << 12), Width::Word), 0xffff_ffff);
}

#[test]
fn several_functions_of_a_device_are_found_by_the_multi_function_flag() {
    let host = FakeHost::default();
    for (name, ids) in [("00:03.1", 0x1111_8086), ("00:03.4", 0x4444_8086), ("00:04.0", 0x5555_8086)] {
        host.add(bdf(name), ids);
    }
    let pci = virtual_pci(&host, &[bdf("00:03.4"), bdf("00:04.0"), bdf("00:03.1")]);
    let read = |device: u64, function: u64, register| {
        pci.read(&host, device << 15 | function << 12 | register, Width::Word)
    };
    assert_eq!((read(3, 0, 0), read(3, 1, 0), read(3, 4, 0)), (0x1111_8086, 0x4444_8086, 0xffff_ffff));
    assert_eq!((read(3, 0, 0x0c), read(4, 0, 0x0c)), (0x0080_0000, 0));
}

#[test]
fn functions_are_taken_back_in_order() {
    let (host, edu) = FakeHost::with_edu();
    host.add_edu(bdf("00:00.0"));
    let pci = virtual_pci(&host, &[edu, bdf("00:00.0")]);
    assert!(pci.into_functions().map(|f| f.bdf()).eq([bdf("00:00.0"), edu]));
}

fn any_width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::Byte), Just(Width::Half), Just(Width::Word), Just(Width::Double)]
}

proptest! {
    #[test]
    fn whatever_a_guest_writes_only_command_words_reach_the_machine(
        writes in vec((0..0x10_0008_u64, any_width(), any::<u64>()), 0..64),
        header in vec((0..0x48_u64, any_width(), any::<u64>()), 0..64),
    ) {
        let (host, mut pci) = edu();
        let header = header.into_iter().map(|(offset, width, value)| (EDU + offset, width, value));
        for (offset, width, value) in writes.into_iter().chain(header) {
            pci.write(&host, offset, width, value);
            prop_assert!(pci.read(&host, offset, width) <= width.mask());
        }
        for write in host.take_writes() {
            prop_assert_eq!((write.0, write.1), (bdf("00:01.0"), 0x04));
            prop_assert!(matches!(write.2, 0x0402 | 0x0406));
        }
        let bar = pci.read(&host, EDU + 0x10, Width::Word);
        prop_assert!(matches!(bar, 0x2000_0000 | 0xfff0_0000));
    }
}
