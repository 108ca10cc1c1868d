//! Hands the image its linker script. The library needs nothing of this, on whatever target.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=linker/image.ld");
    println!("cargo::rerun-if-env-changed=STRANDLINE_SABOTAGE");
    if let Ok(fault) = env::var("STRANDLINE_SABOTAGE") {
        println!("cargo::warning=this build has the fault '{fault}' in it: for tests only");
        println!("cargo::rustc-cfg=sabotage=\"{fault}\"");
    }
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let args = [
        format!("--script={root}/linker/image.ld"),
        // Linked at 0 and relocated by its own entry code, wherever it was loaded. That runs before the MMU is on, when
        // all of the image can be written: what is constant may hold addresses too (without LTO, core's tables do).
        "-pie".into(),
        "--no-dynamic-linker".into(),
        "-znotext".into(),
        // A bit for most relocations in place of 24 bytes.
        "--pack-dyn-relocs=relr".into(),
        // EL2's own mapping protects what is constant after relocation; see linker/image.ld.
        "-znorelro".into(),
        "--orphan-handling=error".into(),
    ];
    for arg in args {
        println!("cargo::rustc-link-arg-bin=strandline={arg}");
    }
}
