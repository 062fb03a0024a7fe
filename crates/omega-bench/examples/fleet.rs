//! Many processes, one quota: what they reach together, whatever happens to the store and to them. See `--help`.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock itself")]

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use omega_bench::fleet::link::{self, Mood, SWALLOWS};
use omega_bench::fleet::store::{Redis, signal};
use omega_bench::fleet::tally::{Stretch, overdrawn, percentile, stretch};
use omega_bench::fleet::worker::work;
use omega_bench::fleet::{Met, Orders};
use omega_emulator::{Emulator, EmulatorConfig, Provider, Quota, RequestRecord};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

/// Starts a provider that enforces one quota, a store and processes that share it, lets something go wrong for the
/// middle third of the run, and prints what the provider counted before, during and after.
#[derive(Debug, Parser)]
#[command(
    name = "fleet",
    after_help = "\
Examples:
  cargo run --release -p omega-bench --example fleet
  cargo run --release -p omega-bench --example fleet -- --stores sqlite --processes 16 --fault none
  cargo run --release -p omega-bench --example fleet -- --processes 16 --fault kill,stop,empty,slow,crawl,crash,cut
  cargo run --release -p omega-bench --example fleet -- --processes 4 --load 0.5 --seconds 30

Exit codes: 0 every bar was reached, 1 one was missed."
)]
struct Options {
    /// Processes; `1` also runs alone, without a store, as what the others are measured by
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 64])]
    processes: Vec<usize>,
    /// Where they meet
    #[arg(long, value_delimiter = ',', default_values = ["redis", "sqlite"])]
    stores: Vec<Kind>,
    /// What goes wrong in the middle third
    #[arg(long, value_delimiter = ',', default_values = ["none"])]
    fault: Vec<Fault>,
    /// Calls offered, as a part of the quota
    #[arg(long, default_value_t = 1.2)]
    load: f64,
    /// Calls per second, of all of them
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// How long each run takes
    #[arg(long, default_value_t = 120.0)]
    seconds: f64,
    /// A Python with `omega_resilience`: every fourth process is one of it [default: .venv/bin/python, if it is there]
    #[arg(long)]
    python: Option<PathBuf>,
    /// One process of the fleet (for the program itself)
    #[arg(long, hide = true)]
    worker: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Kind {
    Redis,
    Sqlite,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Fault {
    /// Nothing
    None,
    /// The store is killed, and started again empty at the end
    Kill,
    /// The store is stopped (SIGSTOP), and goes on at the end
    Stop,
    /// The store is emptied (FLUSHALL)
    Empty,
    /// Every byte to and from the store takes 100 ms
    Slow,
    /// Every byte to and from the store takes a second
    Crawl,
    /// A third of the processes are killed
    Crash,
    /// One process is cut off from the store
    Cut,
}

/// How long a call takes at the provider.
const SERVICE_S: f64 = 0.2;
/// How deep the provider's bucket is, in seconds.
const BURST_S: f64 = 2.0;
/// Patience of a call.
const MAX_WAIT_S: f64 = 5.0;

/// What one run came to.
struct Outcome {
    records: Vec<RequestRecord>,
    /// When the workers began, in the provider's time.
    began: f64,
    met: Vec<Met>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    if let Some(orders) = &options.worker {
        return match serde_json::from_str(orders) {
            Ok(orders) => runtime.block_on(obey(&orders)),
            Err(error) => failed(&error),
        };
    }
    match runtime.block_on(run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("fleet: {error}");
    ExitCode::FAILURE
}

async fn obey(orders: &Orders) -> ExitCode {
    match work(orders).await.map(|met| serde_json::to_string(&met)) {
        Ok(Ok(met)) => {
            println!("{met}");
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

async fn run(options: &Options) -> io::Result<bool> {
    let python = options.python.clone().or_else(|| {
        let usual = PathBuf::from(".venv/bin/python");
        usual.exists().then_some(usual)
    });
    println!(
        "{:.0} calls/s offered, {:.2} of the quota; {:.0} s a run, what goes wrong does so in the middle third; Python: {}",
        options.rate,
        options.load,
        options.seconds,
        python.as_deref().map_or("none".into(), |path| path.display().to_string()),
    );
    println!(
        "{:<8} {:<7} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>10} {:>9} {:>9} {:>9}",
        "store",
        "fault",
        "processes",
        "before",
        "during",
        "after",
        "429/1000",
        "overdrawn",
        "asks/call",
        "wait p50",
        "wait p99",
        "failed"
    );
    let alone = measure(options, None, Fault::None, 1, None).await?;
    let reference = report(options, "none", Fault::None, 1, &alone, None);
    let mut held = true;
    for kind in &options.stores {
        for fault in &options.fault {
            // A file has no process that could be stopped, and nobody on the way to it.
            if *kind == Kind::Sqlite && !matches!(fault, Fault::None | Fault::Crash) {
                continue;
            }
            for processes in &options.processes {
                let outcome = measure(options, Some(*kind), *fault, *processes, python.as_deref()).await?;
                let name = if *kind == Kind::Redis { "redis" } else { "sqlite" };
                held &= report(options, name, *fault, *processes, &outcome, Some(reference)) > 0.0;
            }
        }
    }
    Ok(held)
}

/// Prints a line, and says what part of the quota was used before anything went wrong; 0 if a bar was missed.
fn report(
    options: &Options,
    store: &str,
    fault: Fault,
    processes: usize,
    outcome: &Outcome,
    reference: Option<f64>,
) -> f64 {
    let per_second = options.rate / options.load;
    let third = options.seconds / 3.0;
    // The burst at the start belongs to nobody's pace, and the last calls have no successors.
    let stretches: Vec<(Stretch, f64)> = [(0.15, 1.0), (1.0, 2.0), (2.0, 2.95)]
        .into_iter()
        .map(|(from, to)| {
            let (from, to) = (outcome.began + from * third, outcome.began + to * third);
            (stretch(&outcome.records, from, to), (to - from) * per_second)
        })
        .collect();
    let offered = options.load.min(1.0);
    let part = |at: usize| stretches[at].0.admitted as f64 / stretches[at].1 / offered;
    let all = stretch(&outcome.records, 0.0, f64::MAX);
    let throttled = all.throttled as f64 * 1_000.0 / (all.admitted + all.throttled).max(1) as f64;
    let over = overdrawn(&outcome.records, per_second, BURST_S * per_second);
    let mut waits: Vec<f64> =
        outcome.met.iter().flat_map(|met| &met.took_ms).map(|took| took - SERVICE_S * 1e3).collect();
    waits.sort_by(f64::total_cmp);
    let asks: u64 = outcome.met.iter().map(|met| met.exchanges).sum();
    let answered: u64 = outcome.met.iter().map(|met| met.answered).sum();
    let failures: u64 = outcome.met.iter().map(|met| met.failed).sum();
    println!(
        "{store:<8} {:<7} {processes:>9} {:>7.1}% {:>7.1}% {:>7.1}% {throttled:>8.2} {over:>9.1} {:>10.2} {:>6.1} ms {:>6.1} ms {failures:>9}",
        format!("{fault:?}").to_lowercase(),
        part(0) * 100.0,
        part(1) * 100.0,
        part(2) * 100.0,
        asks as f64 / answered.max(1) as f64,
        percentile(&waits, 0.5),
        percentile(&waits, 0.99),
    );
    if let Some(message) = outcome.met.iter().find_map(|met| met.failure.as_ref()) {
        println!("         one of them: {message}");
    }
    let Some(reference) = reference else { return part(1) };
    // Bars: the share of what one process reaches, 429s, and what the provider counted too much. While the store is away
    // shares may be out by what the processes noticed at different moments.
    let (least, most_429) = if fault == Fault::None { (0.99, 1.0) } else { (0.97, 10.0) };
    let is_held = part(1) >= least * reference.min(1.0)
        && part(2) >= 0.97 * reference.min(1.0)
        && throttled <= most_429;
    let over_bar = if fault == Fault::None { 0.5 } else { 2.0 * per_second };
    if is_held && over <= over_bar { part(1) } else { 0.0 }
}

async fn measure(
    options: &Options,
    kind: Option<Kind>,
    fault: Fault,
    processes: usize,
    python: Option<&Path>,
) -> io::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let per_minute = options.rate / options.load * 60.0;
    let emulator = provider(per_minute.round() as u64).await?;
    let mut redis = match kind {
        Some(Kind::Redis) => Some(Redis::start(folder.path(), None)?),
        _ => None,
    };
    let (everybody, one) = (Mood::default(), Mood::default());
    let (to_all, to_one) = match &redis {
        Some(redis) => {
            (link::open(redis.port, everybody.clone()).await?, link::open(redis.port, one.clone()).await?)
        }
        None => (0, 0),
    };
    let state = |number: usize| match kind {
        None => String::from("memory"),
        Some(Kind::Sqlite) => format!("sqlite://{}/state.db", folder.path().display()),
        Some(Kind::Redis) if number == 0 => format!("redis://127.0.0.1:{to_one}"),
        Some(Kind::Redis) => format!("redis://127.0.0.1:{to_all}"),
    };
    let began = emulator.trace_seconds();
    let mut workers = Vec::new();
    for number in 0..processes {
        let orders = Orders {
            base_url: emulator.base_url("openai"),
            state: state(number),
            requests_per_minute: per_minute.round() as u64,
            burst_seconds: BURST_S,
            // Those who live on offer as much together as all did.
            rate: options.rate / processes as f64 * if fault == Fault::Crash { 1.5 } else { 1.0 },
            seconds: options.seconds,
            max_wait_seconds: MAX_WAIT_S,
            seed: 1 + number as u64,
        };
        let python = python.filter(|_| number % 4 == 3);
        workers.push(start(&orders, python)?);
    }
    let third = Duration::from_secs_f64(options.seconds / 3.0);
    let start = Instant::now();
    tokio::time::sleep_until((start + third).into()).await;
    match (fault, &mut redis) {
        (Fault::Kill, Some(redis)) => redis.kill(),
        (Fault::Stop, Some(redis)) => signal(redis.pid(), "STOP"),
        (Fault::Empty, Some(redis)) => drop(redis.command(&["FLUSHALL"])?),
        (Fault::Slow, _) => [&everybody, &one].iter().for_each(|mood| mood.set(50)),
        (Fault::Crawl, _) => [&everybody, &one].iter().for_each(|mood| mood.set(500)),
        (Fault::Cut, _) => one.set(SWALLOWS),
        (Fault::Crash, _) => {
            for worker in workers.iter().skip(1).step_by(3) {
                worker.id().into_iter().for_each(|pid| signal(pid, "KILL"));
            }
        }
        _ => {}
    }
    tokio::time::sleep_until((start + 2 * third).into()).await;
    match (fault, &mut redis) {
        (Fault::Kill, Some(redis)) => *redis = Redis::start(folder.path(), Some(redis.port))?,
        (Fault::Stop, Some(redis)) => signal(redis.pid(), "CONT"),
        _ => [&everybody, &one].iter().for_each(|mood| mood.set(0)),
    }
    let mut met = Vec::new();
    for worker in workers {
        met.extend(hear(worker).await?);
    }
    Ok(Outcome { records: emulator.requests(), began, met })
}

async fn provider(per_minute: u64) -> io::Result<Emulator> {
    let mut config = EmulatorConfig::default();
    let settings = &mut config.providers[Provider::OpenAi];
    settings.quota = Quota { rpm: Some(per_minute), burst_seconds: BURST_S, ..Quota::default() };
    settings.latency.base_s = SERVICE_S;
    Emulator::start(config).await.map_err(io::Error::other)
}

fn start(orders: &Orders, python: Option<&Path>) -> io::Result<Child> {
    let text = serde_json::to_string(orders)?;
    let mut command = match python {
        Some(python) => {
            let mut command = Command::new(python);
            command.args(["crates/omega-python/benches/fleet_worker.py", &text]);
            command
        }
        None => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--worker", &text]);
            command
        }
    };
    command.stdout(Stdio::piped()).env_remove("OMEGA_CONFIG").kill_on_drop(true).spawn()
}

/// What a worker says at its end; nothing, if it was killed.
async fn hear(mut worker: Child) -> io::Result<Option<Met>> {
    let mut said = String::new();
    if let Some(output) = &mut worker.stdout {
        output.read_to_string(&mut said).await?;
    }
    let status = worker.wait().await?;
    if status.code().is_none() {
        return Ok(None);
    }
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last)
        .map(Some)
        .map_err(|_| io::Error::other(format!("a worker ended with {status} and said {last:?}")))
}
