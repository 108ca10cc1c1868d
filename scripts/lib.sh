# What the scripts share. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=aarch64-unknown-none-softfloat
out="$root/target/strandline"
QEMU=${QEMU:-qemu-system-aarch64}
# Firmware for QEMU's machine, as Debian installs it.
uboot_firmware=/usr/lib/u-boot/qemu_arm64/u-boot.bin
uefi_firmware=/usr/share/qemu-efi-aarch64/QEMU_EFI.fd
# Tools for disks are there, and not in everybody's path.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }

# The first line of standard error that says what went wrong stays visible: quiet means quiet on success only.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

# 1536M, 4G -> MiB
mebibytes() {
    case $1 in
        *[!0-9]*[GgMm] | [GgMm] | '') return 1 ;;
        *[Gg]) echo $((${1%?} * 1024)) ;;
        *[Mm]) echo "${1%?}" ;;
        *) return 1 ;;
    esac
}

# Major and minor of the emulator, as one number to compare: 10.0.2 -> 1000; nothing where there is none.
qemu_version() {
    command -v "$QEMU" >/dev/null || return 0
    "$QEMU" --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | head -n 1 |
        while read -r major minor; do echo $((major * 100 + minor)); done
}

# The objcopy of the Rust toolchain's llvm-tools.
objcopy() {
    local tool
    tool=$(find "$(rustc --print sysroot)/lib/rustlib" -path '*/bin/llvm-objcopy' -type f 2>/dev/null | head -n 1)
    [ -n "$tool" ] || die "llvm-objcopy is missing: run scripts/setup"
    "$tool" "$@"
}

# Flags that leave out of an image where on this machine the sources of its crates lie: it is the same everywhere, and smaller.
remapped_paths() {
    local folder flags=''
    for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
        flags+="'--remap-path-prefix=$folder=',"
    done
    echo "[$flags]"
}

# Builds one program for bare metal and makes a raw image of it: build PROGRAM IMAGE CARGO-ARGUMENTS...
build() {
    local program=$1 image=$2
    shift 2
    (cd "$root" && cargo build --quiet --locked --profile image --target "$target" \
        --config "target.$target.rustflags=$(remapped_paths)" "$@") ||
        die "building $program failed"
    mkdir -p "$(dirname "$image")"
    # In one step: tests boot it while others build.
    objcopy -O binary "${CARGO_TARGET_DIR:-$root/target}/$target/image/$program" "$image.$$"
    mv "$image.$$" "$image"
}

build_strandline() {
    build strandline "${1:-$out/strandline.img}" --package strandline --features image --bin strandline
}
build_guest() {
    case $1 in
        c-probe) build_c_probe ;;
        *) build "$1" "$out/$1.img" --package "$1" ;;
    esac
}

# Makes a bundle: build_bundle OUTPUT {kernel|ramdisk FILE ARGUMENTS}...
build_bundle() {
    (cd "$root" && cargo build --quiet --locked --package strandline-bundle) || die "building mkbundle failed"
    "${CARGO_TARGET_DIR:-$root/target}/debug/mkbundle" "$@" || die "the bundle could not be made (see above)"
}

# The example of an embedder, from the library as it is packaged: of this tree it has its own few sources, and nothing else.
build_embedding() {
    local work=$root/target/packaged target_dir=$root/target/embedding package
    rm -rf "$work" "$root/target/package"
    mkdir -p "$work" "$out"
    (cd "$root" && quietly timeout 300 cargo package --locked --allow-dirty --no-verify \
        --package strandline-abi --package strandline-bundle --package strandline) || die "packaging the library failed"
    for package in "$root"/target/package/*.crate; do tar -x -f "$package" -C "$work"; done
    mkdir "$work/embedding"
    cp -r "$root"/examples/embedding/{Cargo.toml,Cargo.lock,build.rs,link.ld,src} "$work/embedding"
    # Files of packages have the same time always, by which cargo would take them for those of the last run.
    find "$work" -type f -exec touch {} +
    cd "$work/embedding"
    # What a registry would do: where the library is, and the one of our packages that it depends on.
    sed -i "s|path = \"../..\"|path = \"$(echo ../strandline-[0-9]*)\"|" Cargo.toml
    ! grep -q '"\.\./\.\."' Cargo.toml || die "the example does not use the packaged library"
    printf '[patch.crates-io]\nstrandline-abi = { path = "%s" }\n' ../strandline-abi-[0-9]* >>Cargo.toml
    CARGO_TARGET_DIR=$target_dir quietly timeout 600 cargo build --release --target "$target" ||
        die "building the example from the packages failed"
    cp "$target_dir/$target/release/embedding" "$out/embedding.elf"
    cd "$root"
}

# The guest in C, from the C header alone. Without an MMU all memory is device memory: no unaligned accesses.
build_c_probe() {
    local compiler=aarch64-linux-gnu-gcc
    command -v "$compiler" >/dev/null || die "$compiler is missing: run scripts/setup c"
    mkdir -p "$out"
    "$compiler" -std=gnu11 -Os -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-tree-loop-distribute-patterns \
        -mgeneral-regs-only -mstrict-align -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables \
        -nostdlib -static -no-pie -Wl,--build-id=none,--no-warn-rwx-segments -I "$root/abi/include" \
        -T "$root/guests/c-probe/link.ld" -o "$out/c-probe.elf" \
        "$root"/guests/c-probe/start.S "$root"/guests/c-probe/*.c || die "building c-probe failed"
    objcopy -O binary "$out/c-probe.elf" "$out/c-probe.img"
}
