# What the scripts share. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=aarch64-unknown-none-softfloat
out="$root/target/strandline"
QEMU=${QEMU:-qemu-system-aarch64}

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

# Builds one program for bare metal and makes a raw image of it: build PROGRAM IMAGE CARGO-ARGUMENTS...
build() {
    local program=$1 image=$2
    shift 2
    (cd "$root" && cargo build --quiet --locked --profile image --target "$target" "$@") ||
        die "building $program failed"
    mkdir -p "$(dirname "$image")"
    objcopy -O binary "${CARGO_TARGET_DIR:-$root/target}/$target/image/$program" "$image"
}

build_strandline() { build strandline "${1:-$out/strandline.img}" --features image --bin strandline; }
build_guest() { build "$1" "$out/$1.img" --package "$1"; }
