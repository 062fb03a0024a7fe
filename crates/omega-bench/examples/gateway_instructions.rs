//! How many instructions the gateway takes for a request and for an event of a stream: the regression gate of its speed.
//! See `--help`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use omega_bench::gateway::load::{self, Protocol};
use omega_bench::gateway::subject::{self, Subject};
use omega_bench::gateway::{to_its_end, upstream};

/// Counts the gateway's own instructions (what the kernel does for it is not seen), so the numbers repeat on a machine
/// that does other things besides.
#[derive(Debug, Parser)]
#[command(
    name = "gateway_instructions",
    after_help = "\
Examples:
  cargo build --release -p omega && cargo run --release -p omega-bench --example gateway_instructions
  cargo run --release -p omega-bench --example gateway_instructions -- --json

Needs valgrind (Debian package).
Exit codes: 0 all counts are within their limits, 1 one is not."
)]
struct Options {
    /// The program [default: beside this one]
    #[arg(long)]
    omega: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How many a request may take: a twentieth above what was last measured (docs/numbers.md), as all of these.
const REQUEST_AT_MOST: u64 = 116_000;

/// Who streams, and how many an event may take.
const PROTOCOLS: [(&str, Protocol, u64); 4] = [
    ("event, chat completions", Protocol::Chat, 10_700),
    ("event, responses", Protocol::Responses, 15_200),
    ("event, messages", Protocol::Messages, 10_700),
    ("event, generateContent", Protocol::GenerateContent, 19_800),
];

/// Streams at once, each as often as that.
const STREAMS: usize = 20;
const TURNS: usize = 2;
/// How long one caller asks for whole answers, one after the other.
const ASKING: Duration = Duration::from_secs(3);
/// Until valgrind has written what it counted.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let options = Options::parse();
    to_its_end("gateway_instructions", run(&options))
}

async fn run(options: &Options) -> io::Result<bool> {
    let program = options.omega.clone().unwrap_or_else(subject::program);
    let upstream = serve_upstream()?;
    // The same start, the same first calls, the same end: what else was asked for is the difference.
    let idle = counted(&program, upstream, async |_| Ok(1)).await?.instructions;
    let asked = async |address| whole(load::closed(address, 1, ASKING).await?.seconds.len());
    let request = counted(&program, upstream, asked).await?.each(idle);
    let mut counts = vec![Count { what: "request", instructions: request, at_most: REQUEST_AT_MOST }];
    // What begins and ends a stream costs what a request does.
    let begun = idle + request * (STREAMS * TURNS) as u64;
    for (what, protocol, at_most) in PROTOCOLS {
        let streamed = async |address| {
            whole(load::streams(address, protocol, STREAMS, upstream::GAP * 50, TURNS).await?.events)
        };
        let instructions = counted(&program, upstream, streamed).await?.each(begun);
        counts.push(Count { what, instructions, at_most });
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&counts)?);
    } else {
        for Count { what, instructions, at_most } in &counts {
            let verdict = if instructions <= at_most { "ok  " } else { "MISS" };
            println!("{verdict}  instructions for one {what:23} {instructions:>8}  (at most {at_most})");
        }
    }
    Ok(counts.iter().all(|count| count.instructions <= count.at_most))
}

/// One row of the report.
#[derive(serde::Serialize)]
struct Count {
    what: &'static str,
    instructions: u64,
    at_most: u64,
}

/// The upstream, on a thread of its own until the process ends.
fn serve_upstream() -> io::Result<SocketAddr> {
    let address = subject::free_address()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        if let Err(error) = runtime.block_on(upstream::serve(address)) {
            eprintln!("the upstream at {address} ended: {error}");
        }
    });
    Ok(address)
}

fn whole(units: usize) -> io::Result<u64> {
    if units == 0 {
        return Err(io::Error::other("nothing was answered"));
    }
    Ok(units as u64)
}

struct Counted {
    instructions: u64,
    /// Answers or events.
    units: u64,
}

impl Counted {
    /// Instructions for each unit, without these.
    fn each(&self, without: u64) -> u64 {
        self.instructions.saturating_sub(without) / self.units
    }
}

/// Everything the gateway does from its start to its end, with `work` in between.
async fn counted(
    program: &Path,
    upstream: SocketAddr,
    work: impl AsyncFnOnce(SocketAddr) -> io::Result<u64>,
) -> io::Result<Counted> {
    let folder = tempfile::tempdir()?;
    let address = subject::free_address()?;
    let serve = subject::omega_command(folder.path(), program, Some(1), address, upstream)?;
    let counts = folder.path().join("counts");
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts.display()));
    command.arg(serve.get_program()).args(serve.get_args());
    command.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let gateway =
        Subject::start("omega under valgrind", address, command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::other("valgrind is not installed (Debian package valgrind)")
            }
            _ => error,
        })?;
    // Connections, and everything that is made once.
    for (_, protocol, _) in PROTOCOLS {
        load::streams(address, protocol, STREAMS, Duration::ZERO, 1).await?;
    }
    let units = work(address).await?;
    if !gateway.end(WRITTEN_WITHIN) {
        return Err(io::Error::other(format!("the gateway did not end within {WRITTEN_WITHIN:?}")));
    }
    let counts = std::fs::read_to_string(counts)?;
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    let instructions = total.ok_or_else(|| io::Error::other("valgrind wrote no total"))?;
    Ok(Counted { instructions, units })
}
