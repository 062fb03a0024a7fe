//! Measures a gateway as its callers and its operator feel it: beside the upstream itself, a plain reverse proxy and a
//! peer, in one run, on one machine, in rounds that take turns.
//!
//! What a machine does besides shows in every subject alike, so what counts are differences from asking the upstream
//! directly, ratios, and the processor time of the subject's own processes, which no neighbour changes much.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock itself")]

use std::future::Future;
use std::io;
use std::process::ExitCode;

pub mod load;
pub mod process;
pub mod report;
pub mod soak;
pub mod subject;
pub mod upstream;

/// Runs a measurement until it ends or Ctrl-C comes: 0 if everything held, 1 if not or if it could not be made.
///
/// # Panics
/// There is no runtime to be had.
pub fn to_its_end(name: &str, measurement: impl Future<Output = io::Result<bool>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ran = runtime.block_on(async {
        tokio::select! {
            ran = measurement => ran,
            _ = tokio::signal::ctrl_c() => Err(io::Error::other("interrupted")),
        }
    });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
