//! What sharing a quota costs: questions to the store, the store's CPU time, and how much later a call goes. See `--help`.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock itself")]

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use omega_bench::fleet::store::Redis;
use omega_bench::fleet::tally::percentile;
use omega_client::{FileChoice, Gate, GateLimits, Priority, Sources, TokenUsage, UnifiedLLMClient};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

/// Lets calls through a limit that several clients share, without any HTTP, at several rates: with the limit in each
/// client's own memory, with leases of a Redis server, and with the usual design of one script for each call.
#[derive(Debug, Parser)]
#[command(
    name = "store",
    after_help = "\
Examples:
  cargo run --release -p omega-bench --example store
  cargo run --release -p omega-bench --example store -- --rates 1000 --clients 16 --seconds 30
  cargo run --release -p omega-bench --example store -- --json

Needs redis-server (apt-get install redis-server).
Exit codes: 0 with leases a call goes at most 0.1 ms later (p99) than without a store, 1 it does not."
)]
struct Options {
    /// Calls per second, of all clients together
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    rates: Vec<u32>,
    /// Clients that share the limit
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// How long each round of each design takes
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds, the designs in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Calls, as a part of the limit
    #[arg(long, default_value_t = 0.8)]
    load: f64,
    /// One JSON object for each line of the table
    #[arg(long)]
    json: bool,
}

/// What a call costs, in tokens.
const TOKENS: u64 = 100;
/// How long a call takes.
const SERVICE: Duration = Duration::from_millis(200);
/// Calls are begun so often: tokio's timers are no finer.
const TICK: Duration = Duration::from_millis(1);
/// Of each round the first second is not counted: clients that rested find out how much they use.
const WARM_S: f64 = 1.0;
/// How much later than without a store a call may go, in microseconds.
const ADDED_MAX_US: f64 = 100.0;

/// The usual design: a bucket of requests and one of tokens for all, taken from by each call.
const SCRIPT: &str = "
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local kept = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'at')
local requests, tokens = tonumber(kept[1] or ARGV[1]), tonumber(kept[2] or ARGV[2])
local gone = now - tonumber(kept[3] or now)
requests = math.min(ARGV[1] + 0, requests + gone * ARGV[1] / 60)
tokens = math.min(ARGV[2] + 0, tokens + gone * ARGV[2] / 60)
local goes = requests >= 1 and tokens >= ARGV[3] + 0
if goes then requests, tokens = requests - 1, tokens - ARGV[3] end
redis.call('HSET', KEYS[1], 'requests', requests, 'tokens', tokens, 'at', now)
redis.call('PEXPIRE', KEYS[1], 120000)
return goes and 1 or 0
";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Design {
    Memory,
    Leases,
    Script,
}

const DESIGNS: [(Design, &str); 3] =
    [(Design::Memory, "no store"), (Design::Leases, "leases"), (Design::Script, "one script for each call")];

/// One client's way to its next call.
#[derive(Clone)]
enum Way {
    Gate(Gate),
    Script(MultiplexedConnection, redis::Script, GateLimits),
}

/// What the rounds of one design came to.
#[derive(Default)]
struct Sum {
    calls: usize,
    refused: usize,
    asked: u64,
    cpu_s: f64,
    /// How long each call waited to go, in microseconds.
    waits: Vec<f64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(run(&options)));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("store: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> io::Result<bool> {
    if !options.json {
        println!(
            "{} clients share a limit of which they use {:.2}; {} rounds of {} s each",
            options.clients, options.load, options.rounds, options.seconds
        );
        println!(
            "{:>8}  {:<24} {:>12} {:>14} {:>10} {:>10} {:>9}",
            "calls/s", "design", "ops/1000", "CPU ms/1000", "wait p50", "wait p99", "refused"
        );
    }
    let mut held = true;
    for rate in &options.rates {
        let mut sums: [Sum; 3] = Default::default();
        for _ in 0..options.rounds {
            for ((design, _), sum) in DESIGNS.iter().zip(&mut sums) {
                round(options, *design, f64::from(*rate), sum).await?;
            }
        }
        let alone = percentile(sorted(&mut sums[0].waits), 0.99);
        for ((design, name), sum) in DESIGNS.iter().zip(&mut sums) {
            let waits = sorted(&mut sum.waits);
            let (p50, p99) = (percentile(waits, 0.5), percentile(waits, 0.99));
            held &= *design != Design::Leases || p99 - alone <= ADDED_MAX_US;
            let thousands = sum.calls as f64 / 1e3;
            let (ops, cpu) = (sum.asked as f64 / thousands, sum.cpu_s * 1e3 / thousands);
            if options.json {
                let line = serde_json::json!({
                    "rate": rate, "design": name, "calls": sum.calls, "refused": sum.refused,
                    "store_ops_per_1000": ops, "store_cpu_ms_per_1000": cpu, "wait_us_p50": p50, "wait_us_p99": p99,
                });
                println!("{line}");
            } else {
                println!(
                    "{rate:>8}  {name:<24} {ops:>12.1} {cpu:>14.2} {p50:>7.1} us {p99:>7.1} us {:>9}",
                    sum.refused
                );
            }
        }
    }
    Ok(held)
}

/// One design, for a while, with a server of its own.
async fn round(options: &Options, design: Design, rate: f64, sum: &mut Sum) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = match design {
        Design::Memory => None,
        _ => Some(Redis::start(folder.path(), None)?),
    };
    let state =
        server.as_ref().map_or(String::from("memory"), |server| format!("redis://127.0.0.1:{}", server.port));
    // Without a store each has its part.
    let parts = if design == Design::Memory { options.clients as f64 } else { 1.0 };
    let per_minute = (rate / options.load * 60.0 / parts) as u64;
    let limits = GateLimits {
        requests_per_minute: Some(per_minute),
        tokens_per_minute: Some(per_minute * TOKENS),
        max_concurrent: None,
    };
    let mut clients = Vec::new();
    for number in 0..options.clients {
        let way = match design {
            Design::Script => {
                let client = redis::Client::open(state.as_str()).map_err(io::Error::other)?;
                let connection = client.get_multiplexed_async_connection().await.map_err(io::Error::other)?;
                Way::Script(connection, redis::Script::new(SCRIPT), limits.clone())
            }
            _ => Way::Gate(gate(&state, &limits)?),
        };
        let (rate, seconds) = (rate / options.clients as f64, options.seconds);
        clients.push((number as u64, way, rate, seconds));
    }
    let mut load = JoinSet::new();
    for (seed, way, rate, seconds) in clients {
        load.spawn(calls(seed, way, rate, WARM_S + seconds));
    }
    tokio::time::sleep(Duration::from_secs_f64(WARM_S)).await;
    let before = server.as_ref().map(spent).transpose()?.unwrap_or_default();
    while let Some(done) = load.join_next().await {
        let (waits, refused): (Vec<f64>, usize) = done.map_err(io::Error::other)??;
        sum.calls += waits.len() + refused;
        sum.refused += refused;
        sum.waits.extend(waits);
    }
    let after = server.as_ref().map(spent).transpose()?.unwrap_or_default();
    sum.asked += after.0 - before.0;
    sum.cpu_s += after.1 - before.1;
    Ok(())
}

fn gate(state: &str, limits: &GateLimits) -> io::Result<Gate> {
    let yaml = serde_json::json!({ "state": state }).to_string();
    let sources =
        Sources { file: FileChoice::Text { name: "store.yaml".into(), yaml }, ..Sources::default() };
    let client = UnifiedLLMClient::builder().sources(sources).openai_api_key("sk-store".to_owned()).build();
    Ok(client.map_err(io::Error::other)?.gate("store", limits))
}

/// The calls of one client, at random moments: how long each waited to go, and how many were refused.
async fn calls(seed: u64, way: Way, rate: f64, seconds: f64) -> io::Result<(Vec<f64>, usize)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut under_way, mut waits, mut refused) = (JoinSet::new(), Vec::new(), 0);
    let mut count = |done: Result<io::Result<(Option<f64>, bool)>, tokio::task::JoinError>| {
        match done.map_err(io::Error::other)?? {
            (Some(wait), true) => waits.push(wait),
            (None, true) => refused += 1,
            (_, false) => {}
        }
        io::Result::Ok(())
    };
    let began = Instant::now();
    let mut at = 0.0;
    while at < seconds {
        tokio::time::sleep(TICK).await;
        while at < began.elapsed().as_secs_f64() {
            // Exponential gaps: arrivals that know nothing of each other.
            at += -(1.0 - rng.f64()).ln() / rate;
            let (way, counts) = (way.clone(), at >= WARM_S);
            under_way.spawn(async move { go(&way).await.map(|wait| (wait, counts)) });
        }
        while let Some(done) = under_way.try_join_next() {
            count(done)?;
        }
    }
    while let Some(done) = under_way.join_next().await {
        count(done)?;
    }
    Ok((waits, refused))
}

/// One call: how long it waited to go, in microseconds; `None`: it was refused.
async fn go(way: &Way) -> io::Result<Option<f64>> {
    let began = Instant::now();
    let wait = || began.elapsed().as_secs_f64() * 1e6;
    match way {
        Way::Gate(gate) => {
            let entered = gate.enter(TOKENS, Some(0), Priority::default(), Duration::from_secs(5)).await;
            let Ok(pass) = entered else { return Ok(None) };
            let wait = wait();
            tokio::time::sleep(SERVICE).await;
            pass.settle(Some(TokenUsage { input_tokens: TOKENS, ..TokenUsage::default() }));
            Ok(Some(wait))
        }
        Way::Script(connection, script, limits) => {
            let mut script = script.key("limit");
            script
                .arg(limits.requests_per_minute.unwrap_or_default())
                .arg(limits.tokens_per_minute.unwrap_or_default())
                .arg(TOKENS);
            let goes: u8 = script.invoke_async(&mut connection.clone()).await.map_err(io::Error::other)?;
            Ok((goes == 1).then(wait))
        }
    }
}

/// What a server has spent: scripts it has run, and seconds of CPU time.
fn spent(server: &Redis) -> io::Result<(u64, f64)> {
    let number = |text: &str, after: &str| -> f64 {
        let rest = text.split_once(after).map_or("", |(_, rest)| rest);
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        rest[..end].parse().unwrap_or_default()
    };
    let scripts = server.command(&["INFO", "commandstats"])?;
    let cpu = server.command(&["INFO", "cpu"])?;
    let used = number(&cpu, "used_cpu_user:") + number(&cpu, "used_cpu_sys:");
    Ok((number(&scripts, "cmdstat_evalsha:calls=") as u64, used))
}

fn sorted(values: &mut [f64]) -> &[f64] {
    values.sort_by(f64::total_cmp);
    values
}
