//! The library's own name, by which the loader knows it, is the driver's.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    // and it calls itself directly, as the driver does: not by way of whoever stands in for it
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    println!("cargo::rerun-if-changed=build.rs");
}
