//! Log lines on stderr: which ones, and how they look. What they say is `omega-client`'s business.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::uptime;

use crate::cli::{Common, Failure, output};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Begins to write log lines.
///
/// - `is_demo`: a demonstration reports its failures itself, in a table; hundreds of expected warnings would hide it.
pub(crate) fn start(common: &Common, is_demo: bool) -> Result<(), Failure> {
    let filter = match common.log.as_deref().map(str::trim).filter(|filter| !filter.is_empty()) {
        Some(filter) => EnvFilter::try_new(filter)
            .map_err(|error| Failure::usage(format!("`{filter}` is no log filter: {error}")))?,
        None => EnvFilter::new(level(common, is_demo)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::colours_on_stderr());
    let started = match common.log_format {
        LogFormat::Text => builder.with_timer(uptime()).with_target(false).try_init(),
        LogFormat::Json => builder.json().with_timer(uptime()).try_init(),
    };
    started.map_err(|error| Failure::unexpected(format!("cannot start logging: {error}")))
}

fn level(common: &Common, is_demo: bool) -> &'static str {
    match (common.quiet, common.verbose) {
        (true, _) => "error",
        (false, 0) if is_demo => "off",
        (false, 0) => "warn",
        (false, 1) => "info",
        // Below the client speak the HTTP libraries, whose debug lines are of no use to most.
        (false, 2) => "info,omega=debug,omega_client=debug,omega_transport=debug,omega_emulator=debug",
        (false, _) => "trace",
    }
}
