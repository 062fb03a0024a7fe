//! The program. Everything it does is in the library beside it, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    omega_program::main()
}
