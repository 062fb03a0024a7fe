//! OMEGA for Python: thin classes over `omega-client`, whose futures finish on the event loop that awaits them.
//!
//! A call is made on the caller's thread, runs on the one thread of [`runtime`], and comes back through the [`queue`] of
//! the event loop that awaits it: results gather there, one wake-up hands over all of them, and only the loop's own
//! thread ever touches a Python object. What lives here: crossing between the two languages. What may not: policies,
//! protocols, anything a Rust caller would want too.

mod answer;
mod client;
mod dictionary;
mod emulator;
mod error;
mod flow;
mod notes;
mod policies;
mod queue;
mod relay;
mod runtime;
mod stream;

use pyo3::prelude::*;

/// The native part of `omega_resilience`. Not meant to be used directly.
#[pymodule(gil_used = false)]
mod _omega {
    use super::*;

    #[pymodule_export]
    use super::answer::{Attempt, ChatChunk, ChatResult, Usage};
    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::emulator::{Emulator, faults};
    #[pymodule_export]
    use super::notes::{take_notes, told, wait_for_notes};
    #[pymodule_export]
    use super::policies::{Backoff, Circuit, CircuitPass, Gate, GatePass, GatePlace};
    #[pymodule_export]
    use super::queue::{Queue, Ticket};
    #[pymodule_export]
    use super::relay::{Relay, RelayAnswer};
    #[pymodule_export]
    use super::runtime::{after_fork, shutdown};
    #[pymodule_export]
    use super::stream::Stream;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        notes::listen();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
