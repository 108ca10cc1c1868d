//! Machines, configurations and modules that can't be used: one clear line that names what is missing or wrong, then a
//! clean stop.

use std::fs;

use qemu_tests::tree::Tree;
use qemu_tests::{Boot, ScratchFile, built, root};

/// A boot whose guest would succeed at once.
fn good() -> Boot {
    Boot::case("smc", "")
}

fn refused(boot: Boot, why: &str) {
    let _ = boot.run().failure(why);
}

/// A boot with a device tree that was changed.
fn refused_tree(change: impl FnOnce(Tree) -> Tree, why: &str) {
    let file = change(Tree::of(good())).file();
    refused(good().qemu(&["-dtb", &file.name()]), why);
}

#[test]
fn a_tree_that_was_not_changed_boots() {
    let file = Tree::of(good()).file();
    let _ = good().qemu(&["-dtb", &file.name()]).run().success();
}

#[test]
fn a_machine_without_an_smmu_is_refused() {
    refused(good().qemu(&["-machine", "iommu=none"]), "no SMMUv3 (compatible = \"arm,smmu-v3\")");
}

#[test]
fn an_smmu_with_stage_1_only_is_refused() {
    refused(good().qemu(&["-machine", "virt-9.1"]), "SMMU at 0x9050000: the SMMU has no stage 2 translation");
}

#[test]
fn a_machine_entered_at_el1_says_what_it_needs() {
    refused(good().qemu(&["-machine", "virtualization=off"]), "needs EL2");
}

#[test]
fn a_machine_with_a_gicv2_is_refused() {
    refused(good().qemu(&["-machine", "gic-version=2"]), "not supported: GICv2 (a GICv3 is needed)");
}

#[test]
fn too_little_memory_is_named_with_how_much_there_is() {
    refused(good().qemu(&["-m", "512M"]), "VM vm0: too little memory: its 1024 MiB of RAM");
    refused(good().qemu(&["-m", "128M"]), "module@0x50000000: reg: 0x50000000..");
    refused(good().option("--memory", "10M"), "'memory=10M': a VM needs at least 32M");
}

#[test]
fn a_tier_the_machine_does_not_have_is_refused_by_name() {
    refused(good().option("--config", "dma=hardware"), "dma=hardware: the SMMU keeps no dirty state");
    refused(good().option("--config", "dma=stall"), "dma=stall: not supported yet");
}

#[test]
fn configuration_words_that_cannot_be_used_are_named() {
    refused(good().option("--config", "flavour=sweet"), "unknown word 'flavour=sweet'");
    refused(good().option("--config", "memory=1G"), "'memory=1G': given twice");
    refused(good().option("--config", "device=00:01.0"), "'device=00:01.0': given twice");
    refused(good().option("--config", "device=1"), "'device=1'");
    refused(good().option("--config", "name=Zoë"), "'name=Zoë'");
}

#[test]
fn a_device_that_cannot_be_given_away_is_named() {
    refused(good().option("--config", "device=00:05.0"), "no device at 00:05.0");
    let bridge = ["-device", "pcie-root-port,addr=04.0,id=rp"];
    refused(good().option("--config", "device=00:04.0").qemu(&bridge), "00:04.0 is a bridge");
    refused(good().option("--config", "device=01:00.0").qemu(&bridge), "01:00.0");
    let virtio = ["-device", "virtio-rng-pci,addr=06.0"];
    let around = "00:06.0 is virtio without VIRTIO_F_ACCESS_PLATFORM, it would go round the SMMU: give it \
                  disable-legacy=on,iommu_platform=on";
    refused(good().option("--config", "device=00:06.0").qemu(&virtio), around);
    let modern = ["-device", "virtio-rng-pci,addr=06.0,disable-legacy=on"];
    refused(good().option("--config", "device=00:06.0").qemu(&modern), around);
}

#[test]
fn two_vms_that_claim_one_device_are_refused() {
    let second = format!(
        "guest-loader,addr=0x60000000,kernel={},bootargs=memory=64M name=second device=00:01.0 -- case=smc",
        built("cases.img").display()
    );
    refused(good().qemu(&["-device", &second]), "VM second: 00:01.0 belongs to VM 0 already");
}

#[test]
fn a_module_that_is_no_kernel_is_refused() {
    refused(Boot::guest(root().join("README.md")), "not a kernel: neither arm64 Image nor AArch64 ELF");
    let packed = ScratchFile::with("gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    refused(Boot::guest(packed.path()), "the kernel is compressed (gzip): unpack it first");
}

#[test]
fn a_kernel_too_large_for_its_vm_is_refused() {
    let ramdisk = ScratchFile::with("ramdisk", &vec![0; 33 << 20]);
    let boot = good().option("--memory", "32M").option("--ramdisk", &ramdisk.name());
    refused(boot, "too little memory: the ramdisk needs");
}

#[test]
fn a_ramdisk_without_a_kernel_is_refused() {
    let lock = root().join("Cargo.lock");
    let ramdisk = format!("guest-loader,addr=0x48800000,initrd={}", lock.display());
    refused(good().qemu(&["-device", &ramdisk]), "a ramdisk without a kernel before it");
}

#[test]
fn a_tree_without_what_el2_needs_is_refused_by_name() {
    refused_tree(|t| t.without("/smmuv3@9050000"), "no SMMUv3");
    refused_tree(|t| t.without("/intc@8000000"), "no GICv3");
    refused_tree(|t| t.without("/timer"), "no generic timer");
    refused_tree(|t| t.without("/chosen/module@0x50000000"), "no boot module is a kernel");
    refused_tree(|t| t.without("/pcie@10000000"), "device 00:01.0: this machine has no PCIe host");
}

#[test]
fn a_tree_with_wrong_contents_is_refused_by_node_and_property() {
    let be = |words: &[u32]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
    let small = "smmuv3@9050000: reg: is smaller than the two register pages of an SMMUv3";
    refused_tree(|t| t.with("/smmuv3@9050000", "reg", &be(&[0, 0x905_0000, 0, 0x1000])), small);
    refused_tree(|t| t.with("/smmuv3@9050000", "reg", &be(&[0, 0x4000_0000, 0, 0x2_0000])), "overlap");
    refused_tree(|t| t.with("/smmuv3@9050000", "interrupts", &be(&[0, 0x4a])), "smmuv3@9050000: interrupts");
    refused_tree(|t| t.with("/pcie@10000000", "iommu-map", &be(&[0, 0x7777, 0, 0x1_0000])), "iommu-map");
    let module = "/chosen/module@0x50000000";
    refused_tree(|t| t.with(module, "reg", &be(&[0, 0x5000_0000, 0xf, 0])), "module@0x50000000");
    refused_tree(|t| t.with(module, "compatible", b"multiboot,module\0"), "module@0x50000000: compatible");
}

#[test]
fn a_device_without_an_smmu_in_front_is_never_given_away() {
    refused_tree(|t| t.with("/pcie@10000000", "iommu-map", &[]), "device 00:01.0");
}

#[test]
fn an_elf_kernel_boots_as_an_image_does() {
    let code = fs::read(built("cases.img")).expect("it was built");
    let file = ScratchFile::with("elf", &qemu_tests::elf::executable(&code, 0x4020_0000, 1 << 20));
    let outcome = Boot::guest(file.path()).option("--cmdline", "case=smc").run().success();
    assert!(outcome.says("case smc: ok"), "{}", outcome.show());
}

#[test]
fn an_elf_kernel_that_wants_to_lie_outside_ram_is_refused() {
    let file = ScratchFile::with("elf", &qemu_tests::elf::executable(&[0; 64], 0x1000, 0));
    refused(Boot::guest(file.path()), "the kernel wants");
}
