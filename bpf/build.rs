//! Builds the BPF programs with clang, only for the feature that loads them.
//!
//! Three objects: the programs of the dataplane, behind a skeleton; and, for the tests, the parser alone, and the programs
//! of the other ABI version. The tests also load the first one's object file without its skeleton.

#[cfg(feature = "load")]
fn main() {
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    let next = std::env::var_os("CARGO_FEATURE_ABI_NEXT").is_some();
    let compile = |name: &str, object: &str, next: bool| {
        let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("set by cargo");
        let version = if next { "-DSLUICE_ABI_NEXT" } else { "-USLUICE_ABI_NEXT" };
        let mut builder = libbpf_cargo::SkeletonBuilder::new();
        builder
            .source(format!("src/c/{name}.bpf.c"))
            .obj(out.join(format!("{object}.o")))
            .clang(std::env::var_os("CLANG").unwrap_or_else(|| "clang-19".into()))
            .clang_args([
                "-O2",
                "-mcpu=v3",
                "-Wall",
                "-Werror",
                "-Wno-unused-parameter",
                version,
                &format!("-I/usr/include/{arch}-linux-gnu"),
            ])
            .build()
            .expect("the BPF programs compile (needs clang-19 and the kernel's uapi headers)");
        builder
    };
    compile("sluice", "sluice", next).generate(out.join("sluice.skel.rs")).expect("the skeleton is generated");
    compile("parse_probe", "parse_probe", next);
    compile("sluice", "sluice_other", !next);
    println!("cargo::rerun-if-changed=src/c");
    println!("cargo::rerun-if-env-changed=CLANG");
}

#[cfg(not(feature = "load"))]
fn main() {}
