//! Builds the BPF programs with clang, only for the feature that loads them.
//!
//! Two objects: the programs of the dataplane, behind a skeleton; and the parser alone, for the tests, which also load the
//! first one's object file without its skeleton.

#[cfg(feature = "load")]
fn main() {
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    let compile = |name: &str| {
        let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("set by cargo");
        let mut builder = libbpf_cargo::SkeletonBuilder::new();
        builder
            .source(format!("src/c/{name}.bpf.c"))
            .obj(out.join(format!("{name}.o")))
            .clang(std::env::var_os("CLANG").unwrap_or_else(|| "clang-19".into()))
            .clang_args(["-O2", "-Wall", "-Werror", "-Wno-unused-parameter", &format!("-I/usr/include/{arch}-linux-gnu")])
            .build()
            .expect("the BPF programs compile (needs clang-19 and the kernel's uapi headers)");
        builder
    };
    compile("sluice").generate(out.join("sluice.skel.rs")).expect("the skeleton is generated");
    compile("parse_probe");
    println!("cargo::rerun-if-changed=src/c");
    println!("cargo::rerun-if-env-changed=CLANG");
}

#[cfg(not(feature = "load"))]
fn main() {}
