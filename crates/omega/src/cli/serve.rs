//! `omega serve`: the gateway, until Ctrl-C or SIGTERM. Prints where it is and how to point programs at it.

mod banner;

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use clap::Args;
use omega_client::{ErrorKind, UnifiedLLMClient};
use omega_gateway::{Gateway, GatewayError, GatewayOptions};

use crate::cli::interrupt::Stop;
use crate::cli::{Context, Done, Failure};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes any free one [default: gateway.listen, 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Listen where others can reach it although the configuration has no keys for callers
    #[arg(long)]
    allow_anyone: bool,
    /// Threads that serve requests [default: one for each processor]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Take up changes of the configuration on SIGHUP and POST /reload only, not when its file changes
    #[arg(long)]
    no_watch: bool,
    /// Print JSON instead of words
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  OPENAI_API_KEY=... omega serve                        on 127.0.0.1:8080, for programs of this machine
  omega serve --config gateway.yaml --listen 0.0.0.0:8080
  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 python app.py    any OpenAI program, protected
  ANTHROPIC_BASE_URL=http://127.0.0.1:8080 python app.py    any Anthropic program
  omega keys new --name team-a                          a key for callers, needed to listen for others
  omega stats --watch                                   how a running gateway is doing

It answers /health, /ready, /stats, /metrics (Prometheus) and /openapi.json. SIGHUP takes up a changed configuration,
SIGTERM or Ctrl-C lets running requests end (gateway.drain_seconds) and stops. -v shows every request.";

pub(crate) async fn run(arguments: ServeArgs, context: &mut Context) -> Result<Done, Failure> {
    let sources = context.sources();
    #[cfg(feature = "otel")]
    let environment = sources.environment.clone();
    let client = UnifiedLLMClient::builder().sources(sources.clone()).build().map_err(unusable)?;
    let options = GatewayOptions {
        listen: arguments.listen,
        allow_anyone: arguments.allow_anyone,
        workers: arguments.workers,
        sources: Some(sources),
        watch: !arguments.no_watch,
        #[cfg(feature = "otel")]
        traces: traces(&environment)?,
    };
    let gateway = Gateway::start(client, options).await.map_err(refused)?;
    if arguments.json {
        context.output.json(&banner::json(&gateway))?;
    } else {
        context.output.line(&banner::text(&gateway))?;
    }
    let mut interrupt = context.interrupt.clone();
    let mut hangups = Hangups::new()?;
    let stop = loop {
        tokio::select! {
            stop = interrupt.stopped() => break stop,
            () = hangups.next() => {
                // What came of it is in the log.
                let _ = gateway.reload("SIGHUP").await;
            }
        }
    };
    let running = gateway.in_flight();
    if running > 0 {
        context
            .note(&format!("stopping; letting {running} running requests end (Ctrl-C again stops at once)"));
    }
    gateway.shutdown().await;
    context.note("stopped");
    match stop {
        Stop::Interrupted => Ok(Done::Interrupted),
        // Asked to stop by a supervisor, and it did: all is well.
        Stop::Terminated => Ok(Done::Well),
    }
}

/// Where spans go: nowhere, unless OpenTelemetry's variables name a place.
#[cfg(feature = "otel")]
fn traces(environment: &omega_config::Environment) -> Result<Option<omega_gateway::Traces>, Failure> {
    let is_set = |name| environment.text(name).is_some();
    let is_off = environment.text("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
    let wanted = is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    match wanted && !is_off {
        true => omega_gateway::Traces::otlp(None).map(Some).map_err(refused),
        false => Ok(None),
    }
}

fn unusable(error: omega_client::Error) -> Failure {
    match error.kind() {
        ErrorKind::Config => Failure::configuration(error.to_string()),
        _ => Failure::unexpected(error.to_string()),
    }
}

fn refused(error: GatewayError) -> Failure {
    match error {
        GatewayError::Listen { .. } => Failure::unexpected(format!(
            "{error}; choose another address with --listen, or port 0 for any free one"
        )),
        GatewayError::Unprotected { .. } => Failure::usage(error.to_string()),
        GatewayError::Client(error) => unusable(error),
        other => Failure::unexpected(other.to_string()),
    }
}

/// SIGHUP, where there is such a thing.
struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangups {
    #[cfg(unix)]
    fn new() -> Result<Self, Failure> {
        let kind = tokio::signal::unix::SignalKind::hangup();
        let signal = tokio::signal::unix::signal(kind)
            .map_err(|error| Failure::unexpected(format!("cannot listen for SIGHUP: {error}")))?;
        Ok(Self { signal })
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self, Failure> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        std::future::pending().await
    }
}
