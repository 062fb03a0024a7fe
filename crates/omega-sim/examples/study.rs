//! Replays traces at several loads through every policy and prints one table: goodput as a share of the oracle's, and
//! 429s per 1,000 requests.
//!
//! `cargo run --release -p omega-sim --example study -- [key=value ...] TRACE...`
//!
//! Keys: `charge=est|refund|actual`, `loads=0.9,1.0`, `policies=omega,sdk`, `burst=60`, `blind=1`, `free=1`, `fault=...`,
//! `seed=1`, `deadline=60`, `clients=64`, `store=leases|shared|static|none`, `delay=0.5` (ms),
//! `down=600+300`, `skew=zipf`; and any `OMEGA_...=value` of the configuration, for instance
//! `OMEGA_CIRCUIT_BREAKER_ENABLED=false` to see what the breaker contributes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use omega_config::{Config, Environment, FileChoice, Sources};
use omega_sim::{Charge, Fleet, Policy, Quota, Scenario, Skew, Store, Trace};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("study: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut scenario = Scenario::default();
    let mut fleet = Fleet::default();
    let mut loads = vec![0.5, 0.9, 1.0, 1.2, 2.0];
    let mut policies = vec![Policy::None, Policy::Sdk, Policy::Tenacity, Policy::Windows, Policy::Omega];
    let mut traces: Vec<PathBuf> = Vec::new();
    let mut settings: Vec<(String, String)> = Vec::new();
    for argument in std::env::args().skip(1) {
        let Some((key, value)) = argument.split_once('=') else {
            traces.push(PathBuf::from(argument));
            continue;
        };
        match key {
            "charge" => scenario.charge = charge(value)?,
            "loads" => loads = value.split(',').map(number).collect::<Result<_, _>>()?,
            "policies" => policies = value.split(',').map(policy).collect::<Result<_, _>>()?,
            "burst" => scenario.burst_seconds = number(value)?,
            "blind" => scenario.blind = value == "1",
            "free" => scenario.free_429 = value == "1",
            "fair" => scenario.fair = value == "1",
            "fault" => scenario.faults.push(value.parse()?),
            "seed" => scenario.seed = number(value)? as u64,
            "deadline" => scenario.deadline = std::time::Duration::from_secs_f64(number(value)?),
            _ if key.starts_with("OMEGA_") => settings.push((key.to_owned(), value.to_owned())),
            "clients" => fleet.clients = number(value)? as u32,
            "store" => fleet.store = store(value)?,
            "delay" => fleet.store_delay = (number(value)? * 1e6) as u64,
            "down" => fleet.store_down = Some(value.parse()?),
            "skew" => fleet.skew = value.parse::<Skew>()?,
            other => return Err(format!("unknown key {other:?}")),
        }
    }
    scenario.fleet = fleet;
    let environment = Environment::from_pairs(settings);
    let sources = Sources { file: FileChoice::None, environment, ..Sources::default() };
    scenario.config = Config::load(&sources).map_err(|error| error.to_string())?.config;
    println!(
        "{:<24} {:>5} {:<9} {:>9} {:>9} {:>7} {:>8} {:>9} {:>9} {:>8}",
        "trace",
        "load",
        "policy",
        "% oracle",
        "429/1000",
        "calls",
        "refused",
        "wait p50",
        "wait p99",
        "wasted"
    );
    for path in &traces {
        let trace = Trace::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for load in &loads {
            for policy in &policies {
                scenario.quota = Quota::Load(*load);
                scenario.policy = *policy;
                let report = scenario.run(&trace, &mut |_| {}).map_err(|error| error.to_string())?;
                let recovery = report
                    .recovery_first_s
                    .map_or_else(String::new, |after| format!("  recovered after {after:.1} s"));
                println!(
                    "{:<24} {:>5} {:<9} {:>8.2}  {:>9.2} {:>7.3} {:>7.2}% {:>8.2}s {:>8.2}s {:>8}{recovery}",
                    stem(path),
                    load,
                    policy.name(),
                    report.goodput_of_oracle * 100.0,
                    report.rate_limited_per_1000,
                    report.upstream_calls_per_request,
                    report.refused_share * 100.0,
                    report.wait_p50_s,
                    report.wait_p99_s,
                    report.wasted_calls,
                );
            }
        }
    }
    Ok(())
}

fn stem(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn charge(text: &str) -> Result<Charge, String> {
    match text {
        "est" => Ok(Charge::Estimate),
        "refund" => Ok(Charge::Refund),
        "actual" => Ok(Charge::Actual),
        other => Err(format!("unknown charge rule {other:?}; known: est, refund, actual")),
    }
}

fn store(text: &str) -> Result<Store, String> {
    match text {
        "leases" => Ok(Store::Leases),
        "shared" => Ok(Store::Shared),
        "static" => Ok(Store::Static),
        "none" => Ok(Store::None),
        other => Err(format!("unknown store {other:?}; known: leases, shared, static, none")),
    }
}

fn policy(text: &str) -> Result<Policy, String> {
    let all = [Policy::Omega, Policy::None, Policy::Sdk, Policy::Tenacity, Policy::Windows, Policy::Oracle];
    let found = all.into_iter().find(|policy| policy.name() == text);
    found
        .ok_or_else(|| format!("unknown policy {text:?}; known: omega, none, sdk, tenacity, windows, oracle"))
}
