//! `omega stats`: how a running gateway is doing, once or again and again.

mod fleet;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use omega_client::FleetReport;
use omega_transport::{HttpTransport, Transport as _, TransportConfig};
use serde_json::Value;

use crate::cli::{Context, Done, Failure};
use fleet::Fleet;

/// Statistics are some kilobytes for each provider.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A gateway answers this from memory.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct StatsArgs {
    /// Where the gateway is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A key with `admin: true`, for a gateway that other machines can reach
    #[arg(long, value_name = "SECRET", env = "OMEGA_GATEWAY_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Look again every second, or every so many
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = pause)]
    watch: Option<Duration>,
    /// Everybody who shares the limits through the store that `state` names, instead of one gateway
    #[arg(long, conflicts_with = "url")]
    fleet: bool,
    /// Print the gateway's own JSON; with --watch one object a line
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  omega stats                                   once
  omega stats --watch                           every second, until Ctrl-C
  omega stats --json | jq .circuit_breakers     for programs
  omega stats --fleet --config config/resilience.yaml
  OMEGA_GATEWAY_KEY=omk_... omega stats --url https://llm.example.com

Exit codes: 0 it answered, 5 it refused, 6 it could not be reached.";

pub(crate) async fn run(arguments: StatsArgs, context: &mut Context) -> Result<Done, Failure> {
    let source = match arguments.fleet {
        true => Source::Fleet(Fleet::of(context)?),
        false => Source::Gateway(Box::new(gateway()?)),
    };
    let mut interrupt = context.interrupt.clone();
    loop {
        let stats = tokio::select! {
            stats = source.ask(&arguments) => stats,
            _ = interrupt.stopped() => return Ok(Done::Interrupted),
        };
        let Some(every) = arguments.watch else {
            show(&stats?, arguments.json, context)?;
            return Ok(Done::Well);
        };
        match stats {
            Ok(stats) => {
                if context.output.is_terminal() && !arguments.json {
                    // To the top, and everything below it away.
                    context.output.write("\x1b[H\x1b[2J")?;
                }
                show(&stats, arguments.json, context)?;
            }
            // It may be starting again; whoever watches wants to see it come back.
            Err(failure) => context.note(&failure.message),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            // Watching ends no other way: this is how it is meant to.
            _ = interrupt.stopped() => return Ok(Done::Well),
        }
    }
}

/// Whom to ask.
enum Source {
    Gateway(Box<HttpTransport>),
    Fleet(Fleet),
}

/// What it said.
enum Said {
    Gateway(Value),
    Fleet(BTreeMap<String, FleetReport>),
}

impl Source {
    async fn ask(&self, arguments: &StatsArgs) -> Result<Said, Failure> {
        match self {
            Self::Gateway(transport) => ask(transport, arguments).await.map(Said::Gateway),
            Self::Fleet(fleet) => fleet.ask().await.map(Said::Fleet),
        }
    }
}

fn gateway() -> Result<HttpTransport, Failure> {
    HttpTransport::new(TransportConfig::default()).map_err(|error| Failure::unexpected(error.to_string()))
}

fn show(said: &Said, as_json: bool, context: &mut Context) -> Result<(), Failure> {
    match (said, as_json) {
        (Said::Gateway(stats), true) => context.output.json(stats)?,
        (Said::Gateway(stats), false) => context.output.line(&table::text(stats))?,
        (Said::Fleet(reports), true) => context.output.json(&fleet::json(reports))?,
        (Said::Fleet(reports), false) => context.output.line(&fleet::text(reports))?,
    }
    Ok(())
}

async fn ask(transport: &HttpTransport, arguments: &StatsArgs) -> Result<Value, Failure> {
    let url = format!("{}/stats", arguments.url.trim_end_matches('/'));
    let mut request = http::Request::get(&url);
    if let Some(key) = &arguments.key {
        request = request.header("authorization", format!("Bearer {}", key.trim()));
    }
    let request = request.body(bytes::Bytes::new()).map_err(|error| {
        Failure::usage(format!("`{}` is no address of a gateway: {error}", arguments.url))
    })?;
    let unreachable = |why: String| {
        let text = format!("no gateway answers at {url}: {why}; is `omega serve` running there? (--url)");
        Failure::with_code(6, text)
    };
    let asked = async {
        let mut response = transport.send(request).await?;
        let body = response.body.collect(ANSWER_BYTES_MAX).await?;
        Ok::<_, omega_transport::TransportError>((response.head.status, body))
    };
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    let (status, body) = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable(format!("nothing came within {} s", PATIENCE.as_secs()))),
    };
    let said: Option<Value> = serde_json::from_slice(&body).ok();
    match said {
        Some(stats) if status.is_success() && stats.get("circuit_breakers").is_some() => Ok(stats),
        Some(refused) if !status.is_success() => {
            let why = refused["error"]["message"].as_str().unwrap_or("it did not say why").to_owned();
            Err(Failure::with_code(5, format!("{url} answered {status}: {why}")))
        }
        _ => Err(Failure::with_code(
            5,
            format!("{url} answered {status}, but not with a gateway's statistics"),
        )),
    }
}

fn pause(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(String::from("expected seconds, 0.1 to 3600")),
    }
}
