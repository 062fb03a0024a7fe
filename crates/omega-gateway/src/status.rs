//! What the gateway says of itself: health, readiness, statistics, metrics, its own description; and the reload.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use omega_client::{CallerProtocol, ProviderDetails, ResilienceStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::json;

use crate::answer::{self, Refusal};
use crate::door::{self, Right};
use crate::process;
use crate::state::Shared;

const PROTOCOL: CallerProtocol = CallerProtocol::ChatCompletions;

/// `GET /health`: the process runs. Asked by whoever would start it again if not; says nothing of providers.
pub(crate) async fn health() -> Response {
    answer::json(StatusCode::OK, r#"{"status":"ok"}"#)
}

/// `GET /ready`: requests are taken. Not while it stops, so that a balancer turns elsewhere first.
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.stopping.is_given() {
        false => answer::json(StatusCode::OK, r#"{"status":"ready"}"#),
        true => answer::json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"stopping"}"#),
    }
}

/// `GET /stats`.
pub(crate) async fn stats(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let current = shared.current();
    if let Err(refusal) = door::let_in(&shared, &current, request.headers(), request.uri(), Right::Look) {
        return refusal.answer(PROTOCOL, "");
    }
    let keys = current.keys.iter().filter_map(|key| {
        let (requests, tokens, in_flight) = key.gate.as_ref()?.usage();
        let usage = json!({
            "requests_last_minute": requests, "tokens_last_minute": tokens, "concurrent_requests": in_flight,
        });
        Some((key.name.clone(), usage))
    });
    let said = Stats {
        resilience: current.client.resilience_stats(),
        gateway: GatewayStats {
            uptime_seconds: shared.started.elapsed().as_secs_f64(),
            requests_in_flight: shared.in_flight(),
            connections: shared.metrics.connections.get(),
            stopping: shared.stopping.is_given(),
            keys: keys.collect(),
        },
    };
    let body = serde_json::to_vec(&said).unwrap_or_default();
    answer::json(StatusCode::OK, body)
}

/// The specification's dictionary with its details, and the gateway beside it.
#[derive(Serialize)]
struct Stats {
    #[serde(flatten)]
    resilience: ResilienceStats,
    gateway: GatewayStats,
}

#[derive(Serialize)]
struct GatewayStats {
    uptime_seconds: f64,
    requests_in_flight: u64,
    connections: i64,
    stopping: bool,
    /// Callers with limits of their own.
    keys: serde_json::Map<String, serde_json::Value>,
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let current = shared.current();
    if let Err(refusal) = door::let_in(&shared, &current, request.headers(), request.uri(), Right::Look) {
        return refusal.answer(PROTOCOL, "");
    }
    let mut asked = Registry::default();
    let now = Now {
        stats: current.client.resilience_stats(),
        in_flight: shared.in_flight(),
        memory: process::resident_bytes(),
        files: process::open_files(),
    };
    asked.register_collector(Box::new(now));
    let mut out = String::new();
    let written = text::encode_registry(&mut out, shared.metrics.registry())
        .and_then(|()| text::encode_registry(&mut out, &asked))
        .and_then(|()| text::encode_eof(&mut out));
    match written {
        Ok(()) => answer::with_type(StatusCode::OK, OPEN_METRICS, out),
        Err(fmt::Error) => {
            let text = "the metrics could not be written";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text).answer(PROTOCOL, "")
        }
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is read when somebody asks.
#[derive(Debug)]
struct Now {
    stats: ResilienceStats,
    in_flight: u64,
    memory: Option<u64>,
    files: Option<u64>,
}

/// A number of a provider's, with its name and help.
type Row = (&'static str, &'static str, fn(&ProviderDetails) -> Option<u64>);

const COUNTERS: [Row; 13] = [
    ("omega_upstream_sent", "Attempts sent", |of| Some(of.sent_total)),
    ("omega_upstream_answered", "Attempts answered completely", |of| Some(of.answered_total)),
    ("omega_upstream_failed", "Attempts that failed", |of| Some(of.failed_total)),
    ("omega_upstream_throttled", "429s among the failed attempts", |of| Some(of.throttled_total)),
    ("omega_upstream_retries", "Retries sent", |of| Some(of.retries_total)),
    ("omega_upstream_retries_refused", "Retries the budget refused", |of| Some(of.budget_refused_total)),
    ("omega_upstream_cancelled", "Attempts whose caller went away", |of| Some(of.cancelled_total)),
    ("omega_upstream_failed_over", "Calls that turned to another target", |of| Some(of.failed_over_total)),
    ("omega_limit_refused", "Calls the limits refused", |of| Some(of.limit_refused_total)),
    ("omega_circuit_refused", "Calls the circuit refused", |of| Some(of.circuit_refused_total)),
    ("omega_circuit_transitions", "Transitions of the circuit", |of| Some(of.transitions_total)),
    ("omega_shared_exchanges", "Questions to the store of shared limits", |of| {
        of.shared.as_ref().map(|shared| shared.exchanges_total)
    }),
    ("omega_shared_lost", "Of these, not answered in time", |of| {
        of.shared.as_ref().map(|shared| shared.lost_total)
    }),
];

const GAUGES: [Row; 8] = [
    ("omega_upstream_in_flight", "Permits held by calls and streams", |of| Some(of.permits_in_flight)),
    ("omega_queued", "Calls waiting for quota", |of| Some(of.queued)),
    ("omega_retry_budget", "Retries the budget would allow now", |of| Some(of.budget_available)),
    ("omega_circuit_probes", "Probes of a half-open circuit in flight", |of| {
        Some(of.probes_in_flight.into())
    }),
    ("omega_burst_requests", "Requests that may be sent at once", |of| of.burst_requests),
    ("omega_burst_tokens", "Tokens that may be spent at once", |of| of.burst_tokens),
    ("omega_shared_processes", "Processes that share the limits, by the store's last answer", |of| {
        of.shared.as_ref().map(|shared| shared.processes.into())
    }),
    ("omega_shared_away", "1 while the store is out of reach and a share is gone on with", |of| {
        of.shared.as_ref().map(|shared| u64::from(shared.standing == "away"))
    }),
];

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let providers = &self.stats.details.providers;
        for (name, help, read) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (provider, details) in providers {
                if let Some(value) = read(details) {
                    let labels = [("provider", provider.as_str())];
                    ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        for (name, help, read) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (provider, details) in providers {
                if let Some(value) = read(details) {
                    let labels = [("provider", provider.as_str())];
                    gauge(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Whether the circuit is in this state";
        let mut family = encoder.encode_descriptor("omega_circuit_state", help, None, MetricType::Gauge)?;
        for (provider, breaker) in &self.stats.circuit_breakers {
            let is = breaker.state.name();
            for state in ["closed", "open", "half_open"] {
                let labels = [("provider", provider.as_str()), ("state", state)];
                gauge(u64::from(is == state)).encode(family.encode_family(&labels)?)?;
            }
        }
        let plain = [
            ("omega_requests_in_flight", "Requests being served", Some(self.in_flight)),
            ("process_resident_memory_bytes", "Resident memory", self.memory),
            ("process_open_fds", "Open file descriptors", self.files),
        ];
        for (name, help, value) in plain {
            if let Some(value) = value {
                let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                gauge(value).encode(metric)?;
            }
        }
        Ok(())
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// `POST /reload`.
pub(crate) async fn reload(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let current = shared.current();
    if let Err(refusal) = door::let_in(&shared, &current, request.headers(), request.uri(), Right::Change) {
        return refusal.answer(PROTOCOL, "");
    }
    match crate::reload::now(&shared, "asked over HTTP").await {
        Ok(()) => answer::json(StatusCode::OK, r#"{"status":"reloaded"}"#),
        Err(error) => {
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration_refused", error.to_string())
                .answer(PROTOCOL, "")
        }
    }
}

/// `GET /openapi.json`.
pub(crate) async fn openapi() -> Response {
    answer::json(StatusCode::OK, include_str!("openapi.json"))
}
