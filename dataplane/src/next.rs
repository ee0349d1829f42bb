//! The dataplane of an ABI version that nobody ships (`make abi-next`): the program to upgrade to, and back from, in tests.

fn main() -> std::process::ExitCode {
    sluice_dataplane::process::main()
}
