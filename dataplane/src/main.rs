//! The dataplane: see the library for what it does.

fn main() -> std::process::ExitCode {
    sluice_dataplane::process::main()
}
