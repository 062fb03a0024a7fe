//! The gateway under random faults, callers that leave and reloads, for minutes. See `--help`.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock itself")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use omega_bench::gateway::soak::{House, Look, Met, caller, sum};
use omega_bench::gateway::{subject, to_its_end};

/// Runs the gateway in front of an emulator that fails in every way of its catalogue, with callers that leave in the
/// middle and a configuration that keeps changing; fails if anything was lost.
#[derive(Debug, Parser)]
#[command(
    name = "soak",
    after_help = "\
Examples:
  cargo build --release -p omega && cargo run --release -p omega-bench --example soak
  cargo run --release -p omega-bench --example soak -- --minutes 1 --callers 8

Exit codes: 0 nothing was lost, 1 something was."
)]
struct Options {
    /// How long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Callers at once
    #[arg(long, default_value_t = 48)]
    callers: u64,
    /// Where chance begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program [default: beside this one]
    #[arg(long)]
    omega: Option<PathBuf>,
}

/// Between two changes of the configuration.
const RELOAD_EVERY: Duration = Duration::from_secs(7);
/// Lines that are printed, and looks for each of them.
const LINES: u32 = 20;
const LOOKS_PER_LINE: u32 = 10;
/// What the floor of memory may grow by from the second fifth of the run to the last: pages that an allocator has not
/// given back.
const GROWTH_MAX: f64 = 1.15;
/// How long what runs may take to end when the callers are gone.
const SETTLE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let options = Options::parse();
    to_its_end("soak", run(&options))
}

async fn run(options: &Options) -> std::io::Result<bool> {
    let folder = tempfile::tempdir()?;
    let program = options.omega.clone().unwrap_or_else(subject::program);
    let mut house = House::start(folder.path(), &program)?;
    let rest = house.look(0.0, Met::default());
    let (began, span) = (Instant::now(), Duration::from_secs_f64(options.minutes * 60.0));
    let met = Cell::new(Met::default());
    let seeds = (0..options.callers).map(|number| options.seed.wrapping_mul(1_000).wrapping_add(number));
    let callers = seeds.map(|seed| caller(house.address(), seed, began + span, &met));
    let calling = futures_util::future::join_all(callers.collect::<Vec<_>>());
    tokio::pin!(calling);
    let mut looks = Vec::new();
    let mut next_look = tokio::time::interval(span / (LINES * LOOKS_PER_LINE));
    let mut next_reload = tokio::time::interval(RELOAD_EVERY);
    next_look.tick().await;
    println!(
        "{:>8} {:>10} {:>7} {:>8} {:>10} {:>8} {:>8} {:>8}",
        "second", "MiB", "files", "threads", "answered", "refused", "left", "broken"
    );
    loop {
        tokio::select! {
            _ = &mut calling => break,
            _ = next_look.tick() => {
                let look = house.look(began.elapsed().as_secs_f64(), met.get());
                looks.push(look);
                if looks.len().is_multiple_of(LOOKS_PER_LINE as usize) {
                    show(&look);
                }
                if !house.is_alive() {
                    println!("MISS  the gateway has ended");
                    return Ok(false);
                }
            }
            _ = next_reload.tick() => house.reload()?,
        }
    }
    let settled = settled(&house).await?;
    let end = house.look(began.elapsed().as_secs_f64(), met.get());
    show(&end);
    let metrics = house.metrics().await?;
    let [applied, refused] = ["applied", "refused"]
        .map(|outcome| sum(&metrics, &format!("omega_reloads_total{{outcome=\"{outcome}\"}}")));
    let part = looks.len() / 5;
    // The floor: what an answer of many megabytes takes for its moment is no leak, what stays below all of them is.
    let floor = |looks: &[Look]| looks.iter().map(|look| look.memory).fold(f64::INFINITY, f64::min);
    let (early, late) = (floor(&looks[part..2 * part]), floor(&looks[looks.len() - part..]));
    let threads = |looks: &[Look]| looks.iter().map(|look| look.threads).max().unwrap_or_default();
    // Reading a file borrows a thread now and then, from a pool that is as large as what is read at once.
    let few = threads(&looks[looks.len() - part..]) <= threads(&looks[..2 * part]) + 1;
    println!("{applied} reloads applied, {refused} refused");
    let bars = [
        ("everything that ran has ended", settled),
        ("no permit is held", held(&metrics) == 0.0),
        ("no request is being served", sum(&metrics, "omega_requests_in_flight") <= 1.0),
        (
            "no socket but idle ones to the providers is left",
            end.files <= rest.files + options.callers as usize,
        ),
        ("no more threads than before", few),
        ("the floor of memory is flat", late <= early * GROWTH_MAX),
        ("no answer broke off without a word", end.met.broken == 0),
        ("answers were given", end.met.answered > 0),
        ("reloads were taken up", applied > 0.0),
        ("no panic", house.panics() == 0),
    ];
    for (name, held) in bars {
        println!("{}  {name}", if held { "ok  " } else { "MISS" });
    }
    println!(
        "memory: {:.1} MiB at rest, floor {early:.1} MiB early and {late:.1} MiB late, {:.1} MiB after",
        rest.memory, end.memory
    );
    Ok(bars.iter().all(|(_, held)| *held))
}

fn show(look: &Look) {
    let Met { answered, refused, left, broken } = look.met;
    println!(
        "{:>8.0} {:>10.1} {:>7} {:>8} {answered:>10} {refused:>8} {left:>8} {broken:>8}",
        look.at, look.memory, look.files, look.threads
    );
}

/// Permits and places in queues that are taken.
fn held(metrics: &BTreeMap<String, f64>) -> f64 {
    sum(metrics, "omega_upstream_in_flight{") + sum(metrics, "omega_queued{")
}

/// Waits until nothing runs any more; false if something still does.
async fn settled(house: &House) -> std::io::Result<bool> {
    let began = Instant::now();
    while began.elapsed() < SETTLE {
        let metrics = house.metrics().await?;
        // The request for the metrics is one itself, and so is its connection.
        let serving = sum(&metrics, "omega_requests_in_flight");
        let connections = sum(&metrics, "omega_connections");
        if held(&metrics) == 0.0 && serving <= 1.0 && connections <= 1.0 {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(false)
}
