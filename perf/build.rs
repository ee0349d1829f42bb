//! Builds the peers that are not written in Rust, each behind its feature: the calls into DPDK, and a BPF program.

fn main() {
    println!("cargo::rerun-if-changed=src/lookup/dpdk");
    println!("cargo::rerun-if-changed=src/lookup/bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    #[cfg(feature = "dpdk")]
    dpdk();
    #[cfg(feature = "bpf")]
    bpf();
}

#[cfg(feature = "dpdk")]
fn dpdk() {
    let found = pkg_config::Config::new().atleast_version("22.11").cargo_metadata(false).probe("libdpdk");
    let found = found.unwrap_or_else(|error| panic!("the feature dpdk needs DPDK's headers (Debian: libdpdk-dev): {error}"));
    cc::Build::new()
        .files(["src/lookup/dpdk/acl.c", "src/lookup/dpdk/fib.c"])
        .includes(&found.include_paths)
        .flag("-include")
        .flag("rte_config.h")
        // what DPDK itself is built for; its vector code chooses at run time
        .flag("-march=corei7")
        .compile("sluice_dpdk");
    for library in ["rte_acl", "rte_fib", "rte_hash", "rte_eal"] {
        println!("cargo::rustc-link-lib={library}");
    }
}

#[cfg(feature = "bpf")]
fn bpf() {
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("set by cargo");
    libbpf_cargo::SkeletonBuilder::new()
        .source("src/lookup/bpf/lookup.bpf.c")
        .obj(out.join("lookup.bpf.o"))
        .clang(std::env::var_os("CLANG").unwrap_or_else(|| "clang-19".into()))
        .clang_args(["-O2", "-Wall", "-Werror", "-Wno-unused-parameter", &format!("-I/usr/include/{arch}-linux-gnu")])
        .build()
        .expect("the BPF program compiles (needs clang-19 and the kernel's uapi headers)");
}
