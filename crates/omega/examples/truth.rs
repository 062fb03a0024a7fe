//! Checks the simulator against reality: a slice of a trace in virtual time, and the same slice through
//! `UnifiedLLMClient` against the emulator over HTTP, some times faster than it happened. Prints both and the
//! differences.
//!
//! `cargo run --release -p omega --example truth -- --load 1.2 --scale 25 --charge est --seconds 300`
//!
//! Exit code 0: it ran; what it found is for the reader to judge (`crates/omega/tests/truth.rs` has bounds). 1: it could
//! not run. 2: the arguments are wrong.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use omega_program::truth::{self, Report, Settings};
use omega_sim::{Trace, Window};

/// Replays a slice of a trace twice, simulated and real, and compares.
#[derive(Debug, Parser)]
#[command(name = "truth", max_term_width = 100)]
struct Arguments {
    /// The trace
    #[arg(long, value_name = "FILE", default_value = "traces/azure2023_demo.csv.gz")]
    trace: PathBuf,
    /// Where the slice begins, in seconds of the trace
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    from: f64,
    /// How many seconds of it are replayed
    #[arg(long, value_name = "S", default_value_t = 300.0)]
    seconds: f64,
    /// What the slice offers in tokens, over the quota
    #[arg(long, value_name = "TIMES", default_value_t = 1.2)]
    load: f64,
    /// How many times faster than it happened the real run is
    #[arg(long, value_name = "TIMES", default_value_t = 25.0)]
    scale: f64,
    /// When the provider charges tokens
    #[arg(long, value_enum, default_value = "est")]
    charge: Charge,
    /// Seconds of quota the provider lets pass at once
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    burst_seconds: f64,
    /// Seconds that may be added to a request that still counts as in time
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    deadline: f64,
    /// Let the client send without keeping to the quota: it learns of it by 429s
    #[arg(long)]
    no_rate_limiting: bool,
    /// Seconds of quota the client keeps back from the burst
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    depth_margin: f64,
    /// A rejected call takes no request from the quota
    #[arg(long)]
    free_429: bool,
    /// Everything drawn by chance comes from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Charge {
    Est,
    Refund,
    Actual,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match check(&arguments).await {
        Ok(report) if arguments.json => println!("{:#}", report.json()),
        Ok(report) => println!("{report}"),
        Err(error) => {
            eprintln!("truth: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

async fn check(arguments: &Arguments) -> anyhow::Result<Report> {
    truth::run(&settings(arguments)?).await
}

fn settings(arguments: &Arguments) -> anyhow::Result<Settings> {
    let trace = Trace::read(&arguments.trace).context("--trace")?;
    let seconds =
        |name: &str, seconds: f64| Duration::try_from_secs_f64(seconds).with_context(|| name.to_owned());
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let start = nanos(seconds("--from", arguments.from)?);
    let end = start.saturating_add(nanos(seconds("--seconds", arguments.seconds)?));
    Ok(Settings {
        load: arguments.load,
        burst_seconds: arguments.burst_seconds,
        charge: match arguments.charge {
            Charge::Est => omega_sim::Charge::Estimate,
            Charge::Refund => omega_sim::Charge::Refund,
            Charge::Actual => omega_sim::Charge::Actual,
        },
        free_429: arguments.free_429,
        deadline: seconds("--deadline", arguments.deadline)?,
        rate_limiting: !arguments.no_rate_limiting,
        depth_margin: seconds("--depth-margin", arguments.depth_margin)?,
        time_scale: arguments.scale,
        seed: arguments.seed,
        ..Settings::new(trace.slice(Window { start, end }))
    })
}
