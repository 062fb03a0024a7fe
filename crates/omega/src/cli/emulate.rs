//! `omega emulate`: the four providers, pretended, until Ctrl-C. Prints where they are and how to point a program at
//! them, then one line for every request.

mod access;
mod banner;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use omega_emulator::{
    Emulator, EmulatorConfig, EmulatorError, Fault, FaultSpec, Finished, Latency, Provider, Quota, Rule,
    Scenario, Tls,
};
use serde_json::json;

use crate::cli::interrupt::Stop;
use crate::cli::{Context, Done, Failure};
use crate::clock::Stopwatch;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct EmulateArgs {
    /// Where to listen; port 0 takes any free one [default: 127.0.0.1:4010]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Everything an emulator can be told, as YAML; options given beside it win
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// What goes wrong when, as YAML or JSON
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// A fault for every request, or for one provider's; repeat it, the first that fits decides
    #[arg(long = "fault", value_name = "[PROVIDER=]FAULT[:PARAMETER][,times=K]", value_parser = fault_rule)]
    faults: Vec<(Option<Provider>, FaultSpec)>,
    /// Requests per minute, of every provider or of one
    #[arg(long, value_name = "[PROVIDER=]N", value_parser = limit)]
    rpm: Vec<(Option<Provider>, u64)>,
    /// Tokens per minute, of every provider or of one
    #[arg(long, value_name = "[PROVIDER=]N", value_parser = limit)]
    tpm: Vec<(Option<Provider>, u64)>,
    /// How many seconds of quota may be spent at once
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    burst_seconds: Option<f64>,
    /// How long answers take
    #[arg(long, value_enum)]
    latency: Option<LatencyPreset>,
    /// How many times faster than real time everything runs
    #[arg(long, value_name = "N", value_parser = positive)]
    time_scale: Option<f64>,
    /// Where chance begins: the same seed and requests give the same answers
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Serve HTTPS (HTTP/1.1 and HTTP/2) with a certificate of a test authority made at start
    #[arg(long)]
    tls: bool,
    /// Where to write the test authority's certificate, for a client's trust store
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_file: Option<PathBuf>,
    /// Streams that one HTTP/2 connection may carry
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    http2_streams: Option<u32>,
    /// Print the catalogue of faults and end
    #[arg(long)]
    list_faults: bool,
    /// Print JSON instead of words
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LatencyPreset {
    /// About a millisecond
    None,
    /// A hosted model of ordinary speed: first token after about half a second, then 70 a second
    Realistic,
}

const AFTER_HELP: &str = "\
Examples:
  omega emulate                                        four healthy providers
  omega emulate --rpm 60 --tpm 90000 --latency realistic
  omega emulate --fault anthropic=overloaded --fault openai=rate-limited:20,times=3
  omega emulate --scenario outage.yaml --time-scale 10
  omega emulate --tls --ca-file ca.pem
  omega emulate --list-faults

A request can also ask for a fault itself: header `x-emulate-fault: NAME[:PARAMETER]`. What arrived, and when, is at
`GET /__emulator/requests`. Access lines go to stderr; -q switches them off. Ctrl-C lets running requests end.";

pub(crate) async fn run(arguments: EmulateArgs, context: &mut Context) -> Result<Done, Failure> {
    if arguments.list_faults {
        return list_faults(arguments.json, context);
    }
    let config = config(&arguments).await?;
    let time_scale = config.time_scale;
    let emulator = Emulator::start(config).await.map_err(refused)?;
    if let (Some(path), Some(pem)) = (&arguments.ca_file, emulator.ca_pem()) {
        tokio::fs::write(path, pem)
            .await
            .map_err(|error| Failure::unexpected(format!("cannot write {}: {error}", path.display())))?;
    }
    if arguments.json {
        context.output.json(&banner::json(&emulator, arguments.ca_file.as_deref()))?;
    } else {
        context.output.line(&banner::text(&emulator, arguments.ca_file.as_deref()))?;
    }
    let mut interrupt = context.interrupt.clone();
    let mut lines = access::Lines::new();
    let stop = loop {
        tokio::select! {
            stop = interrupt.stopped() => break stop,
            () = lines.pause() => if !context.is_quiet() {
                lines.print(&emulator.requests(), context);
            },
        }
    };
    drain(&emulator, time_scale, context).await;
    if !context.is_quiet() {
        lines.print(&emulator.requests(), context);
    }
    context.note(&format!("stopped after {} requests", emulator.requests().len()));
    emulator.shutdown().await;
    match stop {
        Stop::Interrupted => Ok(Done::Interrupted),
        // Asked to stop by a supervisor, and it did: all is well.
        Stop::Terminated => Ok(Done::Well),
    }
}

/// Lets running requests end, for a while: a request that a fault keeps silent for ever must not keep us here.
async fn drain(emulator: &Emulator, time_scale: f64, context: &Context) {
    /// An ordinary answer ends within this, in trace time.
    const PATIENCE_S: f64 = 10.0;
    let running =
        || emulator.requests().iter().filter(|request| request.finished == Finished::InProgress).count();
    let count = running();
    if count == 0 {
        return;
    }
    context.note(&format!("stopping; waiting for {count} running requests (Ctrl-C again stops at once)"));
    let patience = Duration::from_secs_f64((PATIENCE_S / time_scale).min(PATIENCE_S));
    let watch = Stopwatch::start();
    while running() > 0 && watch.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn config(arguments: &EmulateArgs) -> Result<EmulatorConfig, Failure> {
    let mut config = match &arguments.settings {
        Some(path) => EmulatorConfig::from_yaml(&read(path).await?)
            .map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))?,
        None => EmulatorConfig::default(),
    };
    // The library takes any free port, which suits tests; whoever types a command wants one to remember.
    if config.listen == EmulatorConfig::default().listen {
        config.listen = SocketAddr::from(([127, 0, 0, 1], 4010));
    }
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    if let Some(path) = &arguments.scenario {
        config.scenario = Scenario::parse(&read(path).await?)
            .map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))?;
    }
    let rules = arguments.faults.iter().map(|(provider, fault)| {
        let mut fault = fault.clone();
        // What a request's header calls `times`, a rule calls `first`.
        let times = fault.times.take();
        let mut rule = Rule::new(fault);
        rule.first = times.map(u64::from);
        rule.provider = *provider;
        rule
    });
    config.scenario.rules.splice(0..0, rules);
    for provider in Provider::ALL {
        let settings = &mut config.providers[provider];
        for (limit, given) in
            [(&mut settings.quota.rpm, &arguments.rpm), (&mut settings.quota.tpm, &arguments.tpm)]
        {
            // What names the provider wins over what is said of all.
            let of_all = given.iter().rfind(|(whose, _)| whose.is_none());
            let own = given.iter().rfind(|(whose, _)| *whose == Some(provider));
            *limit = own.or(of_all).map(|(_, limit)| *limit).or(*limit);
        }
        if let Some(burst) = arguments.burst_seconds {
            settings.quota = Quota { burst_seconds: burst, ..settings.quota.clone() };
        }
        match arguments.latency {
            Some(LatencyPreset::None) => settings.latency = Latency::default(),
            Some(LatencyPreset::Realistic) => settings.latency = Latency::realistic(),
            None => {}
        }
    }
    config.time_scale = arguments.time_scale.unwrap_or(config.time_scale);
    config.seed = arguments.seed.unwrap_or(config.seed);
    config.http2_max_concurrent_streams = arguments.http2_streams.or(config.http2_max_concurrent_streams);
    if arguments.tls && config.tls.is_none() {
        config.tls = Some(Tls::default());
    }
    Ok(config)
}

async fn read(path: &std::path::Path) -> Result<String, Failure> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|error| Failure::configuration(format!("cannot read {}: {error}", path.display())))
}

fn refused(error: EmulatorError) -> Failure {
    match error {
        EmulatorError::Listen { .. } => Failure::unexpected(format!(
            "{error}; choose another address with --listen, or port 0 for any free one"
        )),
        other => Failure::configuration(other.to_string()),
    }
}

fn list_faults(json: bool, context: &mut Context) -> Result<Done, Failure> {
    if json {
        let faults: Vec<_> = Fault::ALL
            .iter()
            .map(|fault| {
                json!({
                    "name": fault.name(),
                    "usage": fault.usage(),
                    "default": fault.parameter_default(),
                    "description": fault.description(),
                })
            })
            .collect();
        context.output.json(&faults)?;
    } else {
        let width = Fault::ALL.iter().map(|fault| fault.usage().len()).max().unwrap_or_default();
        let lines: Vec<String> = Fault::ALL
            .iter()
            .map(|fault| format!("{:width$}  {}", fault.usage(), fault.description()))
            .collect();
        context.output.line(&lines.join("\n"))?;
    }
    Ok(Done::Well)
}

/// Splits `PROVIDER=REST`; text without a provider's name before the first `=` is all rest (`times=K` has one too).
fn split_provider(text: &str) -> Result<(Option<Provider>, &str), String> {
    match text.split_once('=') {
        Some((name, rest)) if !name.contains([',', ':']) => match Provider::from_name(name) {
            Some(provider) => Ok((Some(provider), rest)),
            None => Err(format!("unknown provider `{name}`; known are openai, anthropic, google and grok")),
        },
        _ => Ok((None, text)),
    }
}

fn fault_rule(text: &str) -> Result<(Option<Provider>, FaultSpec), String> {
    let (provider, fault) = split_provider(text)?;
    let fault =
        fault.parse::<FaultSpec>().map_err(|error| format!("{error} (see omega emulate --list-faults)"))?;
    Ok((provider, fault))
}

fn limit(text: &str) -> Result<(Option<Provider>, u64), String> {
    let (provider, number) = split_provider(text)?;
    match number.replace('_', "").parse::<u64>() {
        Ok(limit) if limit > 0 => Ok((provider, limit)),
        _ => Err(String::from("expected a whole number per minute, 1 or more")),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err(String::from("expected a number greater than 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_may_name_its_provider_and_its_number_of_times() {
        let (provider, fault) = fault_rule("openai=rate-limited:20,times=3").expect("a fault");
        assert_eq!(
            (provider, fault.to_string().as_str()),
            (Some(Provider::OpenAi), "rate-limited:20,times=3")
        );
        let (provider, fault) = fault_rule("hang,times=2").expect("a fault");
        assert_eq!((provider, fault.to_string().as_str()), (None, "hang,times=2"));
        assert!(fault_rule("openay=hang").expect_err("unknown").contains("unknown provider `openay`"));
        assert!(fault_rule("hangs").expect_err("unknown").contains("did you mean `hang`?"));
    }

    #[test]
    fn a_limit_may_name_its_provider() {
        assert_eq!(limit("90_000"), Ok((None, 90_000)));
        assert_eq!(limit("xai=5"), Ok((Some(Provider::Grok), 5)));
        assert!(limit("0").is_err() && limit("many").is_err() && limit("openai=").is_err());
    }
}
