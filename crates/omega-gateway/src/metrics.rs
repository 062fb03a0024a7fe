//! What is measured, for Prometheus: OpenTelemetry's GenAI names for calls, our own for what OMEGA does to them.
//!
//! Handles are looked up once per call and kept by model; their number is bounded, because the names of models come from
//! callers. What the client counts itself is read when somebody asks (`status.rs`).
//!
//! Source of the `gen_ai.*` names and buckets: OpenTelemetry semantic conventions v1.41.0, read 2026-11-23.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::visit::Record;

/// Pairs of provider and model told apart. More than anybody serves; whatever comes beyond is counted together.
const CALLS_MAX: usize = 1_024;
/// The name under which the rest is counted.
const OTHER: &str = "other";

const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// From 10 µs, where a gateway is hardly there, to a second, where something is wrong.
const OVERHEAD: [f64; 12] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1, 1.0];

/// The handles of one provider's models.
type ByModel = HashMap<Box<str>, Arc<CallMetrics>>;

/// See the module.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    pub(crate) connections: Gauge,
    overhead: Histogram,
    reloads: Family<ReloadLabels, Counter>,
    calls: RwLock<HashMap<&'static str, HashMap<Box<str>, ByModel>>>,
    known: AtomicU64,
    duration: Family<EndLabels, Histogram, fn() -> Histogram>,
    tokens: Family<TokenLabels, Histogram, fn() -> Histogram>,
    first: Family<CallLabels, Histogram, fn() -> Histogram>,
    gap: Family<CallLabels, Histogram, fn() -> Histogram>,
    queued: Family<ProviderLabels, Histogram, fn() -> Histogram>,
    continued: Family<ProviderLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: String,
    gen_ai_request_model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: String,
    gen_ai_request_model: String,
    error_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: String,
    gen_ai_request_model: String,
    gen_ai_token_type: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let this = Self {
            registry: Registry::default(),
            requests: Family::default(),
            connections: Gauge::default(),
            overhead: Histogram::new(OVERHEAD),
            reloads: Family::default(),
            calls: RwLock::default(),
            known: AtomicU64::new(0),
            duration: Family::new_with_constructor(seconds),
            tokens: Family::new_with_constructor(|| Histogram::new(TOKENS)),
            first: Family::new_with_constructor(seconds),
            gap: Family::new_with_constructor(seconds),
            queued: Family::new_with_constructor(seconds),
            continued: Family::default(),
        };
        this.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "omega_requests",
            "Requests answered, by protocol and status",
            self.requests.clone(),
        );
        registry.register("omega_connections", "Connections of callers", self.connections.clone());
        registry.register_with_unit(
            "omega_overhead",
            "Time that OMEGA itself added to an answered call that took one attempt",
            Unit::Seconds,
            self.overhead.clone(),
        );
        registry.register("omega_reloads", "Reloads of the configuration", self.reloads.clone());
        registry.register_with_unit(
            "omega_queued",
            "Time that answered calls waited for quota",
            Unit::Seconds,
            self.queued.clone(),
        );
        registry.register(
            "omega_streams_continued",
            "Streams that broke and that another target went on with",
            self.continued.clone(),
        );
        registry.register_with_unit(
            "gen_ai_client_operation_duration",
            "GenAI operation duration",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "gen_ai_client_token_usage",
            "Number of input and output tokens used",
            self.tokens.clone(),
        );
        registry.register_with_unit(
            "gen_ai_client_operation_time_to_first_chunk",
            "Time to receive the first chunk of a streamed answer",
            Unit::Seconds,
            self.first.clone(),
        );
        registry.register_with_unit(
            "gen_ai_client_operation_time_per_output_chunk",
            "Time between two chunks of a streamed answer",
            Unit::Seconds,
            self.gap.clone(),
        );
        self
    }

    /// What is known here, for somebody who writes it down.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A request was answered.
    pub(crate) fn answered(&self, protocol: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabels { protocol, status }).inc();
    }

    pub(crate) fn overhead(&self, span: Duration) {
        self.overhead.observe(span.as_secs_f64());
    }

    pub(crate) fn reloaded(&self, well: bool) {
        let outcome = if well { "applied" } else { "refused" };
        self.reloads.get_or_create(&ReloadLabels { outcome }).inc();
    }

    /// The handles of this model at this provider.
    pub(crate) fn call(&self, operation: &'static str, provider: &str, model: &str) -> Arc<CallMetrics> {
        let known = self.calls.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = known.get(operation).and_then(|providers| providers.get(provider)?.get(model))
        {
            return Arc::clone(handles);
        }
        drop(known);
        let is_full =
            self.known.load(std::sync::atomic::Ordering::Relaxed) >= CALLS_MAX as u64 && model != OTHER;
        if is_full {
            return self.call(operation, provider, OTHER);
        }
        let mut known = self.calls.write().unwrap_or_else(PoisonError::into_inner);
        let models = known.entry(operation).or_default().entry(provider.into()).or_default();
        let handles = models.entry(model.into()).or_insert_with(|| {
            self.known.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Arc::new(CallMetrics::new(self, operation, provider, model))
        });
        Arc::clone(handles)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The handles of one model at one provider.
pub(crate) struct CallMetrics {
    labels: CallLabels,
    durations: Family<EndLabels, Histogram, fn() -> Histogram>,
    duration: Histogram,
    input: Histogram,
    output: Histogram,
    first: Histogram,
    gap: Histogram,
    queued: Histogram,
    continued: Counter,
}

impl CallMetrics {
    fn new(metrics: &Metrics, operation: &'static str, provider: &str, model: &str) -> Self {
        let labels = CallLabels {
            gen_ai_operation_name: operation,
            gen_ai_provider_name: semantic_name(provider).to_owned(),
            gen_ai_request_model: model.to_owned(),
        };
        let of_provider = ProviderLabels { provider: provider.to_owned() };
        let tokens = |kind| {
            let CallLabels { gen_ai_operation_name, gen_ai_provider_name, gen_ai_request_model } =
                labels.clone();
            let labels = TokenLabels {
                gen_ai_operation_name,
                gen_ai_provider_name,
                gen_ai_request_model,
                gen_ai_token_type: kind,
            };
            metrics.tokens.get_or_create(&labels).clone()
        };
        Self {
            duration: metrics.duration.get_or_create(&ended(&labels, "")).clone(),
            durations: metrics.duration.clone(),
            input: tokens("input"),
            output: tokens("output"),
            first: metrics.first.get_or_create(&labels).clone(),
            gap: metrics.gap.get_or_create(&labels).clone(),
            queued: metrics.queued.get_or_create(&of_provider).clone(),
            continued: metrics.continued.get_or_create(&of_provider).clone(),
            labels,
        }
    }

    /// A call is over.
    pub(crate) fn ended(&self, elapsed: Duration, record: &Record) {
        match &record.error {
            None => self.duration.observe(elapsed.as_secs_f64()),
            Some((code, _)) => {
                self.durations.get_or_create(&ended(&self.labels, code)).observe(elapsed.as_secs_f64());
            }
        }
        if let Some(usage) = record.usage {
            self.input.observe(usage.input_tokens as f64);
            self.output.observe(usage.output_tokens as f64);
        }
        if let Some(first) = record.first {
            self.first.observe(first.as_secs_f64());
        }
        if record.error.is_none() {
            self.queued.observe(record.queued.as_secs_f64());
        }
        if record.continued > 0 {
            self.continued.inc_by(record.continued.into());
        }
    }

    /// Another chunk came, this long after the one before.
    pub(crate) fn gap(&self, span: Duration) {
        self.gap.observe(span.as_secs_f64());
    }
}

fn ended(labels: &CallLabels, error_type: &'static str) -> EndLabels {
    let CallLabels { gen_ai_operation_name, gen_ai_provider_name, gen_ai_request_model } = labels.clone();
    EndLabels { gen_ai_operation_name, gen_ai_provider_name, gen_ai_request_model, error_type }
}

/// OpenTelemetry's word for a provider, where it has one.
pub(crate) fn semantic_name(provider: &str) -> &str {
    match provider {
        "google" => "gcp.gemini",
        "grok" => "x_ai",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn names_that_callers_make_up_cannot_fill_the_memory() {
        let metrics = Metrics::new();
        for at in 0..3 * CALLS_MAX {
            metrics.call("chat", "openai", &format!("made-up-{at}"));
        }
        let known = metrics.calls.read().expect("nobody panicked");
        let models = known["chat"]["openai"].len();
        assert!(models <= CALLS_MAX + 1, "{models}");
        assert!(known["chat"]["openai"].contains_key(OTHER));
    }

    #[test]
    fn a_call_is_written_with_the_names_of_the_conventions() {
        let metrics = Metrics::new();
        let record = Record {
            usage: Some(omega_client::TokenUsage {
                input_tokens: 12,
                cached_input_tokens: 0,
                output_tokens: 3,
            }),
            ..Record::default()
        };
        metrics.call("chat", "google", "gemini-3-pro").ended(Duration::from_millis(30), &record);
        let mut text = String::new();
        encode(&mut text, metrics.registry()).expect("text");
        for line in [
            "gen_ai_client_operation_duration_seconds_bucket{le=\"0.04\",gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"gcp.gemini\",gen_ai_request_model=\"gemini-3-pro\",error_type=\"\"} 1",
            "gen_ai_client_token_usage_sum{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"gcp.gemini\",gen_ai_request_model=\"gemini-3-pro\",gen_ai_token_type=\"input\"} 12.0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
