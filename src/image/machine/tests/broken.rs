//! Blobs that are no device trees, or were: never a panic, whatever they are.

use proptest::prelude::*;

use super::*;

#[test]
fn blob_cut_off_anywhere_is_an_error() {
    let blob = virt().blob();
    for length in 0..blob.len() {
        assert!(matches!(read(&blob[..length]), Err(TreeError::Broken { .. })), "cut at {length}");
    }
}

#[test]
fn blob_cut_off_with_the_size_to_match_is_an_error() {
    let blob = virt().blob();
    for length in 8..blob.len() {
        let mut cut = blob[..length].to_vec();
        cut[4..8].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        assert!(read(cut.leak()).is_err(), "cut at {length}");
    }
}

#[test]
fn wrong_magic_is_named() {
    let mut blob = virt().blob().to_vec();
    blob[0] = 0;
    assert_eq!(read(blob.leak()).unwrap_err().to_string(), "device tree: broken at byte 0: no magic number");
}

#[test]
fn tree_nested_deeper_than_anything_real_is_read_without_what_is_down_there() {
    let deep = (0..500).fold(pl011("serial@0", 0), |inner, _| node("bus").flag("ranges").child(inner));
    assert!(virt().add("/", deep).read().is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut blob = virt().blob().to_vec();
        for (index, value) in flips {
            let index = index.index(blob.len());
            blob[index] = value;
        }
        let _ = read(blob.leak());
    }

    #[test]
    fn random_cells_in_any_property_never_panic(
        which in any::<prop::sample::Index>(),
        cells in prop::collection::vec(prop_oneof![any::<u32>(), 0..4_u32, Just(u32::MAX)], 0..16),
    ) {
        let names = [
            ("/", "#address-cells"), ("/", "#size-cells"), ("/memory@40000000", "reg"), ("/timer", "interrupts"),
            ("/intc@8000000", "reg"), ("/intc@8000000", "#interrupt-cells"), ("/intc@8000000", "phandle"),
            ("/intc@8000000", "#redistributor-regions"), ("/smmuv3@9050000", "reg"),
            ("/smmuv3@9050000", "interrupts"), ("/smmuv3@9050000", "interrupt-names"),
            ("/pcie@10000000", "reg"), ("/pcie@10000000", "ranges"), ("/pcie@10000000", "iommu-map"),
            ("/pcie@10000000", "msi-map"), ("/pcie@10000000", "bus-range"), ("/pl011@9000000", "clocks"),
            ("/chosen", "stdout-path"), ("/pcie@10000000", "#address-cells"),
        ];
        let (path, name) = names[which.index(names.len())];
        let _ = virt().set(path, name, cells.as_slice()).read();
    }
}
