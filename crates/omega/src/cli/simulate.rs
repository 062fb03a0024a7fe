//! `omega simulate`: replays a trace against a modelled provider, in virtual time, and says what would have come of it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use omega_config::{Config, FileChoice};
use omega_sim::{
    Charge, Fault, Fleet, Limits, Policy, Progress, Quota, Report, Scenario, Skew, Store, Suggestion, Trace,
    Window,
};
use serde::Serialize;

use crate::cli::interrupt::Stop;
use crate::cli::{Context, Done, Failure, output};

#[derive(Clone, Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct SimulateArgs {
    /// What to replay: csv, csv.gz or JSON lines with arrival_s, input_tokens, output_tokens, and perhaps model, tenant
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Replay it so many times, one after the other
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// Whose decisions: omega, none, sdk, tenacity, windows or oracle; several with commas, to compare
    #[arg(long, value_name = "NAME", value_parser = policy, value_delimiter = ',', default_value = "omega")]
    policy: Vec<Policy>,
    /// The configurations to compare, instead of --config
    #[arg(long, value_name = "FILE", num_args = 2.., conflicts_with = "suggest")]
    compare: Vec<PathBuf>,
    /// The documented defaults with this preset (spec or adaptive); several with commas, to compare. Without --config a
    /// file that merely lies in the working directory is not read, since its values would override the preset
    #[arg(long, value_name = "NAME", value_parser = ["spec", "adaptive"], value_delimiter = ',', conflicts_with = "compare")]
    preset: Vec<String>,
    /// Whose settings to take from the configuration [default: those of a provider it does not name]
    #[arg(long, value_name = "NAME", default_value = "simulated", hide_default_value = true)]
    provider: String,
    /// Where the product's limits come from: mirror (the simulated provider's quota) or configured
    #[arg(long, value_name = "WHENCE", value_parser = limits, default_value = "mirror")]
    limits: Limits,
    /// Share the quota fairly between the trace's tenants; otherwise the product is not told whose a request is
    #[arg(long)]
    fair: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a page with plots there
    #[arg(long, value_name = "OUT.html")]
    report: Option<PathBuf>,
    /// Find the limits with which the goal is reached
    #[arg(long)]
    suggest: bool,
    /// With --suggest: the share of requests to be answered in time
    #[arg(long, value_name = "SHARE", default_value_t = 0.99, requires = "suggest")]
    goal: f64,
    /// Everything that is drawn by chance comes from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Seconds that may be added to a request which still counts as answered in time; also the longest wait
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    deadline: Duration,
    /// The max_tokens callers send [default: the power of two at the 99.9th percentile of the outputs, at least 256]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    #[command(flatten)]
    upstream: UpstreamArgs,
    #[command(flatten)]
    fleet: FleetArgs,
}

/// The modelled provider.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The provider")]
struct UpstreamArgs {
    /// Set its quota so that the trace offers this many times its tokens
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, conflicts_with_all = ["rpm", "tpm"])]
    load: f64,
    /// Its requests per minute
    #[arg(long, value_name = "N", requires = "tpm", value_parser = clap::value_parser!(u64).range(1..))]
    rpm: Option<u64>,
    /// Its tokens per minute
    #[arg(long, value_name = "N", requires = "rpm", value_parser = clap::value_parser!(u64).range(1..))]
    tpm: Option<u64>,
    /// How many seconds of quota it lets pass at once
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    burst_seconds: f64,
    /// What it charges: est (input and max_tokens at once), refund (the unused part comes back), actual
    #[arg(long, value_name = "RULE", value_parser = charge, default_value = "est")]
    charge: Charge,
    /// A rejected call takes no request from the quota
    #[arg(long)]
    free_429: bool,
    /// It shows no limits and no one knows its burst
    #[arg(long)]
    blind: bool,
    /// What goes wrong: down, hang, brown:SHARE or overload:SHARE, then @START+LENGTH in seconds; repeatable
    #[arg(long, value_name = "FAULT")]
    fault: Vec<Fault>,
}

/// Several clients with one quota.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The fleet")]
struct FleetArgs {
    /// How many clients share the quota
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// How: leases (from one account, as with `state: redis://…`), shared (one state, no delays), static (equal parts) or
    /// none (each believes in all of it)
    #[arg(long, value_name = "HOW", value_parser = store, default_value = "leases")]
    store: Store,
    /// From a client to the store with leases, and as long back, in milliseconds
    #[arg(long, value_name = "MS", default_value = "0.5", value_parser = milliseconds)]
    store_delay: u64,
    /// When the store is away: START+LENGTH in seconds
    #[arg(long, value_name = "WHEN")]
    store_down: Option<Window>,
    /// How requests fall to clients: even, zipf or zipf:EXPONENT
    #[arg(long, value_name = "LAW", default_value = "even")]
    skew: Skew,
}

const AFTER_HELP: &str = "\
Examples:
  omega simulate --trace traces/azure2023_demo.csv.gz --load 1.2
  omega simulate --trace mine.csv --rpm 500 --tpm 200000 --report out.html
  omega simulate --trace mine.csv --load 1.2 --policy omega,none,sdk,tenacity,windows,oracle
  omega simulate --trace mine.csv --fault down@600+300 --fault brown:0.3@1200+600 --preset spec,adaptive
  omega simulate --trace mine.csv --clients 64 --store-down 600+300 --skew zipf
  omega simulate --trace mine.csv --repeat 20 --clients 1000
  omega simulate --trace mine.csv --compare a.yaml b.yaml
  omega simulate --trace mine.csv --suggest --goal 0.999

No key and no network are needed, nothing is sent anywhere, and the same inputs and seed print the same bytes.
What is modelled, and what is not, stands in docs/simulator.md.";

/// One row of the result.
struct Planned {
    name: String,
    scenario: Scenario,
}

pub(crate) async fn run(arguments: SimulateArgs, context: &mut Context) -> Result<Done, Failure> {
    let planned = plan(&arguments, context)?;
    let bar = bar(&arguments, context);
    let mut interrupt = context.interrupt.clone();
    let (path, repeat) = (arguments.trace.clone(), arguments.repeat);
    let seek = arguments.suggest.then_some(arguments.goal);
    // It computes for as long as it takes; Ctrl-C must be heard meanwhile.
    let work = tokio::task::spawn_blocking({
        let bar = bar.clone();
        move || simulate(&path, repeat, planned, seek, &bar)
    });
    let result = tokio::select! {
        result = work => result.map_err(|error| Failure::unexpected(format!("the simulation stopped: {error}")))?,
        stop = interrupt.stopped() => return match stop {
            Stop::Interrupted => {
                bar.finish_and_clear();
                output::say("interrupted");
                Ok(Done::Interrupted)
            }
            Stop::Terminated => Err(Failure::with_code(143, "terminated")),
        },
    };
    bar.finish_and_clear();
    match result? {
        Found::Runs(runs) => show(&arguments, &runs, context),
        Found::Suggestion(found) => show_suggestion(&arguments, found.as_deref(), context),
    }
}

enum Found {
    Runs(Vec<(String, Report)>),
    Suggestion(Option<Box<Suggestion>>),
}

/// Every policy with every configuration.
fn plan(arguments: &SimulateArgs, context: &Context) -> Result<Vec<Planned>, Failure> {
    let mut configs = Vec::new();
    if arguments.compare.is_empty() && arguments.preset.is_empty() {
        configs.push((None, load(context.sources())?));
    }
    for preset in &arguments.preset {
        let mut sources = context.sources();
        if !matches!(sources.file, FileChoice::Explicit(_)) {
            sources.file = FileChoice::None;
        }
        sources.arguments.settings.push((String::from("preset"), preset.clone()));
        let name = (arguments.preset.len() > 1).then(|| preset.clone());
        configs.push((name, load(sources)?));
    }
    for path in &arguments.compare {
        let mut sources = context.sources();
        sources.file = FileChoice::Explicit(path.clone());
        configs.push((Some(path.display().to_string()), load(sources)?));
    }
    let mut planned = Vec::new();
    for (file, config) in configs {
        if arguments.provider != "simulated" && config.provider(&arguments.provider).is_none() {
            let known: Vec<&str> = config.providers().map(|provider| provider.name.as_str()).collect();
            return Err(Failure::usage(format!(
                "unknown provider `{}`; the configuration knows {}",
                arguments.provider,
                known.join(", ")
            )));
        }
        for policy in &arguments.policy {
            let name = match (&file, arguments.policy.len()) {
                (Some(file), 1) => file.clone(),
                (Some(file), _) => format!("{file}, {}", policy.name()),
                (None, _) => policy.name().to_owned(),
            };
            planned.push(Planned { name, scenario: scenario(arguments, *policy, config.clone()) });
        }
    }
    if arguments.suggest && planned.len() > 1 {
        return Err(Failure::usage("--suggest looks for the limits of one policy: name one"));
    }
    Ok(planned)
}

fn load(sources: omega_config::Sources) -> Result<Config, Failure> {
    let loaded = Config::load(&sources)
        .map_err(|error| Failure::configuration(format!("the configuration cannot be used:\n{error}")))?;
    Ok(loaded.config)
}

fn scenario(arguments: &SimulateArgs, policy: Policy, config: Config) -> Scenario {
    let SimulateArgs { upstream, fleet, .. } = arguments;
    let quota = match (upstream.rpm, upstream.tpm) {
        (Some(requests), Some(tokens)) => Quota::PerMinute { requests, tokens },
        _ => Quota::Load(upstream.load),
    };
    Scenario {
        policy,
        quota,
        burst_seconds: upstream.burst_seconds,
        charge: upstream.charge,
        free_429: upstream.free_429,
        blind: upstream.blind,
        faults: upstream.fault.clone(),
        fleet: Fleet {
            clients: fleet.clients,
            store: fleet.store,
            store_down: fleet.store_down,
            store_delay: fleet.store_delay,
            skew: fleet.skew,
        },
        deadline: arguments.deadline,
        max_tokens: arguments.max_tokens,
        seed: arguments.seed,
        config,
        provider: arguments.provider.clone(),
        limits: arguments.limits,
        fair: arguments.fair,
        max_concurrent: None,
    }
}

/// Reads the trace and runs everything; on a thread of its own.
fn simulate(
    path: &Path,
    repeat: u32,
    planned: Vec<Planned>,
    goal: Option<f64>,
    bar: &ProgressBar,
) -> Result<Found, Failure> {
    bar.set_message("reading the trace");
    let trace = Trace::read(path).map_err(|error| {
        let text = error.to_string();
        let path = path.display().to_string();
        // A line's error does not know the file; a file's error names it.
        Failure::usage(if text.contains(&path) { text } else { format!("{path}: {text}") })
    })?;
    let trace = Arc::new(trace.repeated(repeat));
    bar.set_length(trace.requests().len() as u64);
    let mut runs = Vec::with_capacity(planned.len());
    for Planned { name, scenario } in planned {
        if let Some(goal) = goal {
            bar.set_message("looking for limits");
            let found = omega_sim::suggest(&scenario, &trace, goal)
                .map_err(|error| Failure::usage(error.to_string()))?;
            return Ok(Found::Suggestion(found.map(Box::new)));
        }
        let report = scenario
            .run(&trace, &mut |progress| {
                let (what, seen) = match progress {
                    Progress::Oracle(seen) => ("oracle", seen),
                    Progress::Policy(seen) => (name.as_str(), seen),
                };
                bar.set_message(what.to_owned());
                bar.set_position(seen as u64);
            })
            .map_err(|error| Failure::usage(error.to_string()))?;
        runs.push((name, report));
    }
    Ok(Found::Runs(runs))
}

/// A run with the name it is shown under.
#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(flatten)]
    report: &'a Report,
}

fn show(arguments: &SimulateArgs, runs: &[(String, Report)], context: &mut Context) -> Result<Done, Failure> {
    match runs {
        [(_, report)] if arguments.json => context.output.json(report)?,
        [(_, report)] => context.output.line(&report.to_table())?,
        _ if arguments.json => {
            let rows: Vec<Named<'_>> = runs.iter().map(|(name, report)| Named { name, report }).collect();
            context.output.json(&rows)?;
        }
        _ => context.output.line(&omega_sim::comparison(runs))?,
    }
    if let Some(path) = &arguments.report {
        write_page(path, &arguments.trace, runs)?;
        context.note(&format!("the report is in {}", path.display()));
    }
    Ok(Done::Well)
}

fn write_page(path: &Path, trace: &Path, runs: &[(String, Report)]) -> Result<(), Failure> {
    let file = trace.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let page = omega_sim::html(&format!("Replay of {file}"), runs)
        .map_err(|error| Failure::unexpected(error.to_string()))?;
    std::fs::write(path, page)
        .map_err(|error| Failure::unexpected(format!("cannot write {}: {error}", path.display())))
}

fn show_suggestion(
    arguments: &SimulateArgs,
    found: Option<&Suggestion>,
    context: &mut Context,
) -> Result<Done, Failure> {
    let Some(found) = found else {
        output::say(
            "omega: no quota reaches this goal: something else stands in the way (a fault, or the deadline)",
        );
        return Ok(Done::NotHeld);
    };
    if arguments.json {
        context.output.json(found)?;
    } else {
        context.output.line(&format!(
            "{} requests and {} tokens per minute answer {:.2} % of {} requests in time (asked for: {:.2} %)\n\n{}",
            found.requests_per_minute,
            found.tokens_per_minute,
            found.report.good as f64 * 100.0 / found.report.requests as f64,
            found.report.requests,
            found.goal * 100.0,
            found.report.to_table()
        ))?;
    }
    if let Some(path) = &arguments.report {
        write_page(path, &arguments.trace, &[(String::from("suggested limits"), found.report.clone())])?;
        context.note(&format!("the report is in {}", path.display()));
    }
    Ok(Done::Well)
}

/// A bar on a terminal; nothing where stderr is a file or a pipe, where a run of seconds needs no word.
fn bar(arguments: &SimulateArgs, context: &Context) -> ProgressBar {
    if context.is_quiet() || arguments.json || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg:16} {bar:40} {pos}/{len}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn policy(text: &str) -> Result<Policy, String> {
    let all = [Policy::Omega, Policy::None, Policy::Sdk, Policy::Tenacity, Policy::Windows, Policy::Oracle];
    let found = all.into_iter().find(|policy| policy.name() == text);
    found.ok_or_else(|| format!("known are {}", all.map(Policy::name).join(", ")))
}

fn charge(text: &str) -> Result<Charge, String> {
    match text {
        "est" => Ok(Charge::Estimate),
        "refund" => Ok(Charge::Refund),
        "actual" => Ok(Charge::Actual),
        _ => Err(String::from("known are est, refund and actual")),
    }
}

fn store(text: &str) -> Result<Store, String> {
    match text {
        "leases" => Ok(Store::Leases),
        "shared" => Ok(Store::Shared),
        "static" => Ok(Store::Static),
        "none" => Ok(Store::None),
        _ => Err(String::from("known are leases, shared, static and none")),
    }
}

/// As nanoseconds.
fn milliseconds(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(delay) if (0.0..=10_000.0).contains(&delay) => Ok((delay * 1e6) as u64),
        _ => Err(String::from("expected milliseconds, 0 to 10000")),
    }
}

fn limits(text: &str) -> Result<Limits, String> {
    match text {
        "mirror" => Ok(Limits::Mirror),
        "configured" => Ok(Limits::Configured),
        _ => Err(String::from("known are mirror and configured")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| String::from("expected seconds"))?;
    if (0.001..=86_400.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(String::from("expected seconds, up to a day"))
    }
}
