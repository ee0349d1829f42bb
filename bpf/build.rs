//! Builds the BPF programs with clang, only for the feature that loads them.

#[cfg(feature = "load")]
fn main() {
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo")).join("sluice.skel.rs");
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("set by cargo");
    libbpf_cargo::SkeletonBuilder::new()
        .source("src/c/sluice.bpf.c")
        .clang(std::env::var_os("CLANG").unwrap_or_else(|| "clang-19".into()))
        .clang_args(["-O2", "-Wall", "-Werror", "-Wno-unused-parameter", &format!("-I/usr/include/{arch}-linux-gnu")])
        .build_and_generate(&out)
        .expect("the BPF programs compile (needs clang-19 and the kernel's uapi headers)");
    println!("cargo::rerun-if-changed=src/c");
    println!("cargo::rerun-if-env-changed=CLANG");
}

#[cfg(not(feature = "load"))]
fn main() {}
