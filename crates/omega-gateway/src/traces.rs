//! Traces: a span for each request and below it one for each attempt, written when the request is over from what was told
//! of it anyway, so that a request that is under way costs nothing more.
//!
//! Names are those of OpenTelemetry's GenAI conventions 1.41.0; what has no name there begins with `omega.`. Where the
//! caller sent a `traceparent`, its trace goes on here. No prompt, answer or key is ever in a span.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use omega_client::{Attempt, AttemptOutcome, ErrorKind};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::access;
use crate::error::GatewayError;
use crate::metrics::semantic_name;
use crate::visit::{Kind, Record, WENT_AWAY};

/// Where spans go.
#[derive(Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Sends spans over OTLP/HTTP (protobuf), in batches, from the Tokio runtime it is called on.
    ///
    /// Where to, with which headers, how many and under which name stands in OpenTelemetry's own variables:
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` (`http://` only: a collector nearby takes it
    /// from there), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, `OTEL_SERVICE_NAME` (default
    /// `omega`), `OTEL_RESOURCE_ATTRIBUTES`.
    ///
    /// - `endpoint`: in the place of the variables', with its path.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn otlp(endpoint: Option<&str>) -> Result<Self, GatewayError> {
        let unusable = |error: &dyn fmt::Display| GatewayError::Traces(error.to_string());
        let exporter = SpanExporter::builder().with_http();
        let exporter = match endpoint {
            Some(endpoint) => exporter.with_endpoint(endpoint),
            None => exporter,
        };
        let exporter = exporter.build().map_err(|error| unusable(&error))?;
        let processor = BatchSpanProcessor::builder(exporter, Tokio).build();
        // The variables win over a name that stands here.
        let named = Resource::builder().build();
        let is_named = named.iter().any(|(key, value)| {
            key.as_str() == "service.name" && !value.as_str().starts_with("unknown_service")
        });
        let resource = match is_named {
            true => named,
            false => Resource::builder().with_service_name("omega").build(),
        };
        let provider =
            SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build();
        let tracer = provider.tracer("omega-gateway");
        Ok(Self { provider, tracer })
    }

    /// Sends what is still here; waits for it, so not on a thread that serves.
    pub(crate) fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!("the last spans could not be sent: {error}");
        }
    }

    /// Tells of a request that is over.
    pub(crate) fn tell(&self, told: &Told<'_>) {
        let Told { kind, record, parent, now, .. } = told;
        let before = |span: Duration| now.checked_sub(span).unwrap_or(*now);
        let name = format!("{} {}", kind.operation(), cut(&record.asked));
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_start_time(before(told.since_begun))
            .with_attributes(of_request(told));
        let mut request = self.tracer.build_with_context(builder, parent);
        if let Some((_, words)) = record.error.as_ref().filter(|_| record.status != WENT_AWAY) {
            request.set_status(Status::error(cut(words)));
        }
        let below = Context::new().with_remote_span_context(request.span_context().clone());
        let called = before(told.since_called);
        for attempt in &record.attempts {
            let builder = SpanBuilder::from_name(format!("{} {}", kind.operation(), cut(&attempt.model)))
                .with_kind(SpanKind::Client)
                .with_start_time(called + attempt.started)
                .with_attributes(of_attempt(*kind, attempt));
            let mut span = self.tracer.build_with_context(builder, &below);
            if let Some(words) = attempt.outcome.message() {
                span.set_status(Status::error(cut(words)));
            }
            span.end_with_timestamp(called + attempt.started + attempt.elapsed);
        }
        request.end_with_timestamp(*now);
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

/// What is told of a request.
pub(crate) struct Told<'v> {
    pub(crate) id: &'v str,
    pub(crate) kind: Kind,
    pub(crate) record: &'v Record,
    pub(crate) parent: &'v Context,
    pub(crate) now: SystemTime,
    pub(crate) since_begun: Duration,
    pub(crate) since_called: Duration,
}

/// The trace that the caller is in; none if it says nothing sensible.
pub(crate) fn parent(headers: &HeaderMap) -> Context {
    struct Headers<'h>(&'h HeaderMap);
    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

fn of_request(told: &Told<'_>) -> Vec<KeyValue> {
    let Told { id, kind, record, .. } = told;
    let mut all = vec![
        KeyValue::new("gen_ai.operation.name", kind.operation()),
        KeyValue::new("gen_ai.request.model", cut(&record.asked)),
        KeyValue::new("gen_ai.request.stream", record.streams),
        KeyValue::new("http.response.status_code", i64::from(record.status)),
        KeyValue::new("omega.protocol", kind.name()),
        KeyValue::new("omega.request.id", (*id).to_owned()),
        KeyValue::new("omega.queued_ms", milliseconds(record.queued)),
        KeyValue::new("omega.continued", i64::from(record.continued)),
    ];
    if let Some(provider) = &record.provider {
        all.push(KeyValue::new("gen_ai.provider.name", semantic_name(provider).to_owned()));
    }
    if let Some(model) = &record.model {
        all.push(KeyValue::new("gen_ai.response.model", cut(model)));
    }
    if let Some(usage) = record.usage {
        all.push(KeyValue::new("gen_ai.usage.input_tokens", tokens(usage.input_tokens)));
        all.push(KeyValue::new("gen_ai.usage.output_tokens", tokens(usage.output_tokens)));
    }
    if let Some(first) = record.first {
        all.push(KeyValue::new("gen_ai.response.time_to_first_chunk", first.as_secs_f64()));
    }
    if let Some(key) = &record.key {
        all.push(KeyValue::new("omega.key", key.name.clone()));
    }
    if let Some((code, _)) = record.error {
        all.push(KeyValue::new("error.type", code));
    }
    all
}

fn of_attempt(kind: Kind, attempt: &Attempt) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("gen_ai.operation.name", kind.operation()),
        KeyValue::new("gen_ai.provider.name", semantic_name(&attempt.provider).to_owned()),
        KeyValue::new("gen_ai.request.model", cut(&attempt.model)),
        KeyValue::new("omega.queued_ms", milliseconds(attempt.queued)),
    ];
    let error = match &attempt.outcome {
        AttemptOutcome::Failed { kind, status, code, .. } => {
            all.extend(status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
            Some(code.as_deref().map_or_else(|| kind.name().to_owned(), cut))
        }
        AttemptOutcome::Refused { kind, .. } => Some(kind.code().to_owned()),
        AttemptOutcome::Skipped { .. } => Some(ErrorKind::Unsupported.code().to_owned()),
        _ => None,
    };
    all.push(KeyValue::new("omega.attempt.outcome", attempt.outcome.name()));
    all.extend(error.map(|error| KeyValue::new("error.type", error)));
    all
}

fn cut(text: &str) -> String {
    access::cut(text, access::ERROR_MAX)
}

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn tokens(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
