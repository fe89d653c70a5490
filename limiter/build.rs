//! How the library is linked.

fn main() {
    // the limiter's own functions call and name each other directly, and not by way of the loader, which may have found
    // functions of the same names in a library before this one
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    println!("cargo::rerun-if-changed=build.rs");
}
