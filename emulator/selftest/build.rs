//! Links the program as the guests are linked (for the bare target only).

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../linker/guest.ld");
    println!("cargo:rerun-if-changed={script}");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // `notext`: constants that hold addresses stay in read-only sections, and the entry code relocates them there.
    let script = format!("-T{script}");
    for arg in [script.as_str(), "-pie", "-znotext", "--no-dynamic-linker"] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
}
