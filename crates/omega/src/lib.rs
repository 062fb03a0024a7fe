//! The program `omega`: protected calls to LLM providers from the shell, and everything to try them without one.
//!
//! Each command is a room under `cli`; the demonstration, the table of faults and the check of the simulator are rooms
//! of their own, callable without a terminal. Data goes to stdout, everything else to stderr. No decision about
//! retries, limits or circuits is made here: those are `omega-policy`'s, reached through `omega-client`.

mod cli;
mod clock;
mod compressed;
pub mod demo;
pub mod faults;
pub mod truth;

pub use cli::{Cli, main};
