//! Tells the linker of the box's programs to leave the tables for unwinding out: a panic aborts there, and they are a tenth of the file.
//! Rust's own linker also keeps what is the same code, of several types, once.

fn main() {
    const SCRIPT: &str = "scripts/lib/no-unwind-tables.ld";
    println!("cargo::rerun-if-changed={SCRIPT}");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // In the release profile; cargo does not say here what a panic does there.
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("PROFILE", "release") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
        println!("cargo::rustc-link-arg-bins=-T{folder}/{SCRIPT}");
        if std::env::var("RUSTC_LINKER").is_ok_and(|linker| linker.ends_with("rust-lld")) {
            println!("cargo::rustc-link-arg-bins=--icf=all");
        }
    }
}
