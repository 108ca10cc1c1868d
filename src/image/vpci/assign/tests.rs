use alloc::string::ToString;
use alloc::vec::Vec;

use super::super::fake::{FakeHost, bdf};
use super::super::window::PciWindow;
use super::*;

/// A host bridge whose bus addresses are not those of the CPU, so that a mix-up shows.
fn windows() -> HostWindows {
    let low = PciWindow { cpu: Pa(0x5000_0000), pci: 0x1000_0000, bytes: 0x1000_0000 };
    let high = PciWindow { cpu: Pa(0x80_0000_0000), pci: 0x40_0000_0000, bytes: 0x1000_0000 };
    HostWindows::new(Some(low), Some(high))
}

fn guest() -> Window {
    Window::new(0x2000_0000, 0x1000_0000)
}

fn assigned(host: &FakeHost, bdf: Bdf) -> Result<Vec<BarMapping>, AssignError> {
    Ok(assign(host, &mut windows(), bdf, &mut guest())?.mappings().collect())
}

fn refused(host: &FakeHost, bdf: Bdf) -> alloc::string::String {
    assigned(host, bdf).unwrap_err().to_string()
}

#[test]
fn edu_gets_its_bar_in_both_windows() {
    let (host, edu) = FakeHost::with_edu();
    let bar = BarMapping { ipa: Ipa(0x2000_0000), pa: Pa(0x5000_0000), bytes: 0x10_0000 };
    assert_eq!(assigned(&host, edu), Ok(Vec::from([bar])));
    assert_eq!(host.read32(edu, 0x10), 0x1000_0000);
}

#[test]
fn wide_bar_is_placed_above_4_gib_on_the_bus_and_below_for_the_guest() {
    let (host, nvme) = FakeHost::with_nvme();
    let bar = BarMapping { ipa: Ipa(0x2000_0000), pa: Pa(0x80_0000_0000), bytes: 0x4000 };
    assert_eq!(assigned(&host, nvme), Ok(Vec::from([bar])));
    assert_eq!((host.read32(nvme, 0x10), host.read32(nvme, 0x14)), (0x0000_0004, 0x40));
}

#[test]
fn assigned_function_decodes_memory_and_is_no_bus_master() {
    let (host, edu) = FakeHost::with_edu();
    host.write32(edu, 0x04, 0x0007);
    assigned(&host, edu).unwrap();
    assert_eq!(host.read32(edu, 0x04) & 0xffff, 0x0402);
}

#[test]
fn function_does_not_decode_while_its_bars_are_sized() {
    let (host, edu) = FakeHost::with_edu();
    host.write32(edu, 0x04, 0x0006);
    host.take_writes();
    assigned(&host, edu).unwrap();
    let writes: Vec<(u16, u32)> =
        host.take_writes().into_iter().filter(|w| w.1 <= 0x10).map(|w| (w.1, w.2)).collect();
    let order = [(0x04, 0x0400), (0x10, 0xffff_ffff), (0x10, 0), (0x10, 0x1000_0000), (0x04, 0x0402)];
    assert_eq!(writes, order);
}

#[test]
fn small_bars_are_alone_in_their_pages() {
    let (host, device) = FakeHost::with_bars(&[0xffff_ff00, 0xffff_fff0]);
    let mappings = assigned(&host, device).unwrap();
    let pages = [(0x2000_0000, 0x5000_0000), (0x2000_1000, 0x5000_1000)];
    assert!(mappings.iter().map(|m| (m.ipa.0, m.pa.0)).eq(pages));
    assert!(mappings.iter().all(|m| m.bytes == 0x1000));
    assert_eq!((host.read32(device, 0x10), host.read32(device, 0x14)), (0x1000_0000, 0x1000_1000));
}

#[test]
fn io_bars_and_rom_stay_without_an_address() {
    let (host, device) = FakeHost::with_bars(&[0xffff_ffe1, 0xffff_f000]);
    assert_eq!(assigned(&host, device).unwrap().len(), 1);
    assert_eq!(host.read32(device, 0x10), 1);
    assert_eq!(host.written(device, 0x30), [0]);
    assert_eq!(host.read32(device, 0x04) & 1, 0);
}

#[test]
fn msi_is_switched_off() {
    let (host, edu) = FakeHost::with_edu();
    assigned(&host, edu).unwrap();
    assert_eq!(host.read32(edu, 0x40), 0x0080_0005);
}

#[test]
fn msix_ats_page_requests_pasid_and_virtual_functions_are_switched_off() {
    let (host, nvme) = FakeHost::with_nvme();
    assigned(&host, nvme).unwrap();
    assert_eq!(host.read32(nvme, 0x50), 0x0040_8011);
    assert_eq!(host.read32(nvme, 0x104), 0x0000_0020);
    assert_eq!(host.read32(nvme, 0x144), 0x0100_0000);
    assert_eq!(host.read32(nvme, 0x184), 0x0000_1404);
    assert_eq!(host.read32(nvme, 0x1c8), 0x0000_0000);
}

#[test]
fn phantom_functions_and_no_snoop_are_switched_off_and_no_status_bit_is_written() {
    let (host, nvme) = FakeHost::with_nvme();
    host.set(nvme, 0x88, 0x000f_2a10);
    assigned(&host, nvme).unwrap();
    assert_eq!(host.written(nvme, 0x88), [0x0000_2010]);
    assert_eq!(host.written(nvme, 0x144), [0]);
}

#[test]
fn capability_lists_that_loop_or_lead_nowhere_end() {
    let (host, edu) = FakeHost::with_edu();
    host.set(edu, 0x40, 0x0000_4009);
    assert!(assigned(&host, edu).is_ok());
    host.set(edu, 0x34, 0x0000_003c);
    assert!(assigned(&host, edu).is_ok());
    let (host, nvme) = FakeHost::with_nvme();
    host.set(nvme, 0x100, 0x1001_0001);
    assert!(assigned(&host, nvme).is_ok());
    host.set(nvme, 0x100, 0x0401_0001);
    assert!(assigned(&host, nvme).is_ok());
}

#[test]
fn capability_at_the_end_of_the_space_stays_inside() {
    let (host, nvme) = FakeHost::with_nvme();
    host.set(nvme, 0x100, 0xffc1_0001);
    host.set(nvme, 0xffc, 0x0001_000f);
    assert!(assigned(&host, nvme).is_ok());
}

#[test]
fn extended_space_of_a_conventional_function_is_not_trusted() {
    let (host, edu) = FakeHost::with_edu();
    host.set(edu, 0x100, 0x0001_000f);
    host.take_writes();
    assigned(&host, edu).unwrap();
    assert!(host.take_writes().iter().all(|w| w.1 < 0x100));
}

#[test]
fn absent_function_is_named() {
    let (host, _) = FakeHost::with_edu();
    assert_eq!(refused(&host, bdf("00:02.0")), "no device at 00:02.0");
}

#[test]
fn function_behind_a_bridge_is_refused_untouched() {
    let (host, behind) = (FakeHost::default(), bdf("01:00.0"));
    host.add_edu(behind);
    assert_eq!(refused(&host, behind), "01:00.0 is behind a bridge: not supported yet");
    assert!(host.take_writes().is_empty());
}

#[test]
fn bridge_and_unknown_header_are_refused_untouched() {
    let (host, edu) = FakeHost::with_edu();
    host.set(edu, 0x0c, 0x0081_0000);
    assert!(refused(&host, edu).starts_with("00:01.0 is a bridge"));
    host.set(edu, 0x0c, 0x0002_0000);
    assert_eq!(refused(&host, edu), "00:01.0 has a header of unknown layout 0x2");
    assert!(host.take_writes().is_empty());
}

#[test]
fn multi_function_flag_is_no_part_of_the_layout() {
    let (host, edu) = FakeHost::with_edu();
    host.set(edu, 0x0c, 0x0080_0000);
    assert!(assigned(&host, edu).is_ok());
}

#[test]
fn virtio_that_offers_access_platform_is_assigned() {
    let (host, device) = (FakeHost::default(), bdf("00:04.0"));
    host.add_virtio(device, 1 << 33 | 1 << 32);
    assert_eq!(assigned(&host, device).map(|bars| bars.len()), Ok(1));
}

#[test]
fn virtio_that_would_go_round_the_smmu_is_refused_and_other_devices_of_its_vendor_are_not() {
    let host = FakeHost::default();
    host.add_virtio(bdf("00:04.0"), 1 << 32);
    for (device, ids) in [("00:05.0", 0x1005_1af4), ("00:06.0", 0x107f_1af4), ("00:07.0", 0x1110_1af4)] {
        host.add(bdf(device), ids);
    }
    let text = "00:04.0 is virtio without VIRTIO_F_ACCESS_PLATFORM, it would go round the SMMU: give it \
                disable-legacy=on,iommu_platform=on";
    assert_eq!(refused(&host, bdf("00:04.0")), text);
    assert_eq!(assigned(&host, bdf("00:05.0")), Err(AssignError::VirtioAround(bdf("00:05.0"))));
    let text = "00:06.0 is virtio that doesn't tell its features: it may go round the SMMU";
    assert_eq!(refused(&host, bdf("00:06.0")), text);
    assert_eq!(assigned(&host, bdf("00:07.0")), Ok(Vec::new()));
    assert_eq!(host.read32(bdf("00:04.0"), 0x04) & 0xffff, 0x0400, "what is refused is quiet");
}

#[test]
fn odd_bar_is_refused_with_what_it_reads() {
    let (host, device) = FakeHost::with_bars(&[0xfff0_0000, 0xffff_f002]);
    assert_eq!(refused(&host, device), "00:03.0: BAR 1 can't be sized, it reads 0xfffff002");
}

#[test]
fn bar_without_room_is_refused_and_the_windows_are_as_before() {
    let (host, device) = FakeHost::with_bars(&[0xffff_f000, 0xe000_0000]);
    let (mut windows, mut guest) = (windows(), guest());
    let error = assign(&host, &mut windows, device, &mut guest);
    assert_eq!(error, Err(AssignError::HostWindowFull(device, 1, 0x2000_0000)));
    let mut small = Window::new(0x2000_0000, 0x1000);
    let (tight, device) = FakeHost::with_bars(&[0xffff_f000, 0xffff_f000]);
    let error = assign(&tight, &mut windows, device, &mut small);
    assert_eq!(error, Err(AssignError::GuestWindowFull(device, 1, 0x1000)));
    assert_eq!(small.take(0x1000), Some(0x2000_0000));
    assert_eq!(guest.take(0x1000), Some(0x2000_0000));
    assert_eq!(windows.take(0x1000, false).map(|p| p.pci), Some(0x1000_0000));
    assert_eq!(tight.read32(device, 0x04) & 0xffff, 0x0400);
}

#[test]
fn released_function_leaves_its_window_to_others() {
    let (host, edu) = FakeHost::with_edu();
    let mut windows = windows();
    let function = assign(&host, &mut windows, edu, &mut guest()).unwrap();
    function.release(&mut windows);
    let again = assign(&host, &mut windows, edu, &mut guest()).unwrap();
    assert_eq!(again.mappings().next().map(|m| m.pa), Some(Pa(0x5000_0000)));
}

#[test]
fn two_functions_never_share_a_page() {
    let (host, edu) = FakeHost::with_edu();
    host.add_edu(bdf("00:05.0"));
    let (mut windows, mut guest) = (windows(), guest());
    let first = assign(&host, &mut windows, edu, &mut guest).unwrap();
    let second = assign(&host, &mut windows, bdf("00:05.0"), &mut guest).unwrap();
    let places: Vec<(u64, u64)> =
        first.mappings().chain(second.mappings()).map(|m| (m.ipa.0, m.pa.0)).collect();
    assert_eq!(places, [(0x2000_0000, 0x5000_0000), (0x2010_0000, 0x5010_0000)]);
}
