//! The gateway beside the upstream itself, nginx, HAProxy and LiteLLM, in one run. See `--help`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use omega_bench::gateway::load::{self, Answers, Protocol, Streams};
use omega_bench::gateway::report::{self, Result as Measured, Round, percentile};
use omega_bench::gateway::subject::{self, Subject};
use omega_bench::gateway::{process, to_its_end, upstream};

/// Measures the gateway beside a plain reverse proxy: throughput, latency, processor time, memory.
#[derive(Debug, Parser)]
#[command(
    name = "gateway",
    after_help = "\
Examples:
  cargo build --release -p omega && cargo run --release -p omega-bench --example gateway
  cargo run --release -p omega-bench --example gateway -- --rounds 1 --seconds 2 --only direct,nginx,omega
  cargo run --release -p omega-bench --example gateway -- --litellm ~/litellm-venv --json out.json

nginx and haproxy are Debian packages (apt-get install nginx haproxy); who is not installed is left out, and said so.
Exit codes: 0 every bar was reached, 1 one was missed."
)]
struct Options {
    /// Rounds in which the subjects take turns; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each phase
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Only these subjects
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The program [default: beside this one]
    #[arg(long)]
    omega: Option<PathBuf>,
    /// Threads of OMEGA that serve requests [default: one for each processor]
    #[arg(long)]
    workers: Option<usize>,
    /// A virtual environment with LiteLLM's proxy
    #[arg(long)]
    litellm: Option<PathBuf>,
    /// Where to write everything as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Be the upstream at this address
    #[arg(long, hide = true)]
    upstream: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    to_its_end("gateway", async {
        match options.upstream {
            Some(address) => upstream::serve(address).await.map(|()| true),
            None => run(&options).await,
        }
    })
}

async fn run(options: &Options) -> std::io::Result<bool> {
    let folder = tempfile::tempdir()?;
    let address = subject::free_address()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--upstream").arg(address.to_string());
    let _upstream = Subject::start("upstream", address, command)?;
    let mut subjects = vec![Subject::direct(address)];
    let program = options.omega.clone().unwrap_or_else(subject::program);
    let path = folder.path();
    let litellm = options.litellm.as_ref();
    let others: [(&str, std::io::Result<Subject>); 4] = [
        ("nginx", wanted(options, "nginx", || subject::nginx(path, address))),
        ("haproxy", wanted(options, "haproxy", || subject::haproxy(path, address))),
        ("omega", wanted(options, "omega", || subject::omega(path, &program, options.workers, address))),
        (
            "litellm",
            wanted(options, "litellm", || match litellm {
                Some(environment) => subject::litellm(path, environment, address),
                None => Err(std::io::Error::other("give its virtual environment with --litellm")),
            }),
        ),
    ];
    for (name, started) in others {
        match started {
            Ok(subject) => subjects.push(subject),
            Err(error) => eprintln!("{name} is left out: {error}"),
        }
    }
    let mut rounds: Vec<Vec<Round>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds {
        for turn in 0..subjects.len() {
            let at = (round + turn) % subjects.len();
            eprint!("\rround {}/{}: {:10}", round + 1, options.rounds, subjects[at].name);
            std::io::stderr().flush()?;
            rounds[at].push(measure(&subjects[at], Duration::from_secs_f64(options.seconds)).await?);
        }
    }
    let mut results = Vec::new();
    for (subject, rounds) in subjects.iter().zip(rounds) {
        eprint!("\r1,000 streams: {:10}", subject.name);
        // Some peers cannot carry as many; theirs is not the question.
        let stall = match subject.name {
            "litellm" => None,
            _ => Some(
                longest(&load::streams(subject.address, Protocol::Chat, 1_000, upstream::GAP * 50, 1).await?)
                    * 1_000.0,
            ),
        };
        let at_rest = subject.at_rest as f64 / (1024.0 * 1024.0);
        results.push(Measured::new(
            subject.name,
            subject.ready.as_secs_f64() * 1_000.0,
            at_rest,
            stall,
            rounds,
        ));
    }
    eprintln!("\r{:40}", "");
    println!("{}", report::table(&results));
    let bars = report::bars(&results);
    for bar in &bars {
        println!(
            "{}  {:44} {:>9.2}  (at most {})",
            if bar.held { "ok  " } else { "MISS" },
            bar.name,
            bar.value,
            bar.bar
        );
    }
    if let Some(file) = &options.json {
        let all = serde_json::json!({"results": results, "bars": bars});
        std::fs::write(file, serde_json::to_vec_pretty(&all)?)?;
    }
    Ok(bars.iter().all(|bar| bar.held))
}

fn wanted(
    options: &Options,
    name: &str,
    start: impl FnOnce() -> std::io::Result<Subject>,
) -> std::io::Result<Subject> {
    match options.only.is_empty() || options.only.iter().any(|only| only == name) {
        true => start(),
        false => Err(std::io::Error::other("not asked for")),
    }
}

async fn measure(subject: &Subject, span: Duration) -> std::io::Result<Round> {
    let address = subject.address;
    let spent = || subject.pid().map(process::cpu).unwrap_or_default();
    let each = |before: Duration, count: usize| (spent() - before).as_secs_f64() * 1e6 / count.max(1) as f64;
    // Connections and everything that is made once.
    load::closed(address, 64, span / 8).await?;
    let before = spent();
    let Answers { seconds, failed, elapsed } = load::closed(address, 64, span).await?;
    let cpu_us = each(before, seconds.len());
    let steady = load::open(address, 400.0, span).await?;
    let before = spent();
    // Followed for as long as the other phases last: one after the other, so that a hundred are under way all the time.
    let length = upstream::GAP * 50;
    let turns = (span.as_secs_f64() / length.as_secs_f64()).round().max(1.0) as usize;
    let hundred = load::streams(address, Protocol::Chat, 100, length, turns).await?;
    let cpu_per_token_us = each(before, hundred.events);
    let more = load::streams(address, Protocol::Chat, 200, length, 1).await?;
    let ms = |numbers: &[f64], share| percentile(numbers, share) * 1_000.0;
    Ok(Round {
        per_second: seconds.len() as f64 / elapsed.as_secs_f64(),
        cpu_us,
        p50_ms: ms(&steady.seconds, 0.5),
        p99_ms: ms(&steady.seconds, 0.99),
        first_p50_ms: ms(&hundred.first, 0.5),
        first_p99_ms: ms(&hundred.first, 0.99),
        cpu_per_token_us,
        first_200_p99_ms: ms(&more.first, 0.99),
        gap_200_p99_ms: ms(&more.gaps, 0.99),
        memory_mib: subject.pid().map_or(0, process::resident) as f64 / (1024.0 * 1024.0),
        failed: failed + steady.failed + hundred.failed + more.failed,
    })
}

fn longest(streams: &Streams) -> f64 {
    streams.gaps.iter().chain(&streams.first).copied().fold(0.0, f64::max)
}
