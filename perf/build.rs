//! Builds the calls into DPDK, if asked for.

fn main() {
    println!("cargo::rerun-if-changed=src/lookup/dpdk");
    #[cfg(feature = "dpdk")]
    {
        let found = pkg_config::Config::new().atleast_version("22.11").cargo_metadata(false).probe("libdpdk");
        let found = found.unwrap_or_else(|error| panic!("the feature dpdk needs DPDK's headers (Debian: libdpdk-dev): {error}"));
        cc::Build::new()
            .files(["src/lookup/dpdk/acl.c", "src/lookup/dpdk/fib.c"])
            .includes(&found.include_paths)
            .flag("-include")
            .flag("rte_config.h")
            .flag("-march=corei7")
            .compile("sluice_dpdk");
        for library in ["rte_acl", "rte_fib", "rte_hash", "rte_eal"] {
            println!("cargo::rustc-link-lib={library}");
        }
    }
}
