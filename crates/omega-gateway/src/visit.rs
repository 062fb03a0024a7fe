//! One request from its head to the last byte of its answer: what is told of it when it is over, however it ends.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use omega_client::{Attempt, CallerProtocol, Error, TokenUsage};

use crate::access;
use crate::answer::REQUEST_ID;
use crate::clock::Moment;
use crate::keys::Key;
use crate::metrics::CallMetrics;
use crate::state::{Inside, Shared};

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat(CallerProtocol),
    Embeddings,
    CountTokens(CallerProtocol),
}

impl Kind {
    /// The protocol in which its errors are written.
    pub(crate) fn protocol(self) -> CallerProtocol {
        match self {
            Self::Chat(protocol) | Self::CountTokens(protocol) => protocol,
            Self::Embeddings => CallerProtocol::ChatCompletions,
        }
    }

    /// Its name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat(CallerProtocol::ChatCompletions) => "chat_completions",
            Self::Chat(CallerProtocol::Responses) => "responses",
            Self::Chat(CallerProtocol::Messages) => "messages",
            Self::Chat(CallerProtocol::GenerateContent) => "generate_content",
            Self::Embeddings => "embeddings",
            Self::CountTokens(_) => "count_tokens",
        }
    }

    /// OpenTelemetry's `gen_ai.operation.name`.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Chat(CallerProtocol::GenerateContent) => "generate_content",
            Self::Chat(_) => "chat",
            Self::Embeddings => "embeddings",
            Self::CountTokens(_) => "count_tokens",
        }
    }
}

/// See the module. Dropped before it is finished, it tells that the caller went away.
pub(crate) struct Visit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: String,
    pub(crate) kind: Kind,
    began: Moment,
    /// When the body had come: what takes time before is the caller's own.
    received: Moment,
    /// Where its spans belong, if anybody collects them.
    #[cfg(feature = "otel")]
    tracing: Option<Tracing>,
    pub(crate) record: Record,
    _inside: Option<Inside>,
    told: bool,
}

/// What only spans want to know.
#[cfg(feature = "otel")]
struct Tracing {
    traces: crate::Traces,
    /// The trace that the caller is in.
    parent: opentelemetry::Context,
    /// When the call began: after its caller's own turn.
    called: Moment,
}

/// What is told of a request.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) key: Option<Arc<Key>>,
    pub(crate) asked: String,
    pub(crate) streams: bool,
    pub(crate) status: u16,
    pub(crate) provider: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) queued: Duration,
    pub(crate) first: Option<Duration>,
    pub(crate) usage: Option<TokenUsage>,
    pub(crate) continued: u32,
    /// Why there is no whole answer.
    pub(crate) error: Option<(&'static str, String)>,
}

/// The status under which a caller that went away is counted. nginx's own, and so known to dashboards.
pub(crate) const WENT_AWAY: u16 = 499;

impl Visit {
    pub(crate) fn begin(
        shared: Arc<Shared>,
        kind: Kind,
        headers: &HeaderMap,
        inside: Option<Inside>,
    ) -> Self {
        let began = Moment::now();
        Self {
            #[cfg(feature = "otel")]
            tracing: shared.traces.clone().map(|traces| {
                let parent = crate::traces::parent(headers);
                Tracing { traces, parent, called: began }
            }),
            shared,
            id: request_id(headers),
            kind,
            began,
            received: began,
            record: Record::default(),
            _inside: inside,
            told: false,
        }
    }

    /// The body has come.
    pub(crate) fn received(&mut self) {
        self.received = Moment::now();
    }

    /// The call begins.
    #[cfg(feature = "otel")]
    pub(crate) fn calling(&mut self) {
        if let Some(tracing) = &mut self.tracing {
            tracing.called = Moment::now();
        }
    }

    /// The call begins; nobody asks when.
    #[cfg(not(feature = "otel"))]
    #[expect(clippy::unused_self, clippy::needless_pass_by_ref_mut, reason = "spans want to know")]
    pub(crate) fn calling(&mut self) {}

    /// The first content has come.
    pub(crate) fn first_content(&mut self) {
        self.record.first = Some(self.received.elapsed());
    }

    /// Who answers.
    pub(crate) fn served_by(&mut self, provider: &str, model: &str, attempts: &[Attempt], queued: Duration) {
        let record = &mut self.record;
        record.provider = Some(provider.to_owned());
        record.model = Some(model.to_owned());
        record.attempts = attempts.to_vec();
        record.queued = queued;
    }

    /// What an error says of how it came to it.
    pub(crate) fn failed(&mut self, error: &Error) {
        let record = &mut self.record;
        record.provider = error.provider().map(str::to_owned).or(record.provider.take());
        record.model = error.model().map(str::to_owned).or(record.model.take());
        record.attempts = error.attempts().to_vec();
        record.queued = record.attempts.iter().map(|attempt| attempt.queued).sum();
        record.error = Some((error.kind().code(), error.to_string()));
    }

    /// It is over.
    pub(crate) fn finish(mut self, status: StatusCode) {
        self.record.status = status.as_u16();
        self.tell();
    }

    /// The handles of whoever answers.
    pub(crate) fn metrics(&self) -> Arc<CallMetrics> {
        let record = &self.record;
        let provider = record.provider.as_deref().unwrap_or_default();
        // What nobody serves is whatever callers make up.
        let model = record.model.as_deref().filter(|_| record.provider.is_some()).unwrap_or_default();
        self.shared.metrics.call(self.kind.operation(), provider, model)
    }

    fn tell(&mut self) {
        self.told = true;
        let elapsed = self.received.elapsed();
        self.shared.metrics.answered(self.kind.name(), self.record.status);
        let metrics = self.metrics();
        metrics.ended(elapsed, &self.record);
        if let Some(overhead) = self.overhead(elapsed) {
            self.shared.metrics.overhead(overhead);
        }
        #[cfg(feature = "otel")]
        if let Some(Tracing { traces, parent, called }) = &self.tracing {
            traces.tell(&crate::traces::Told {
                id: &self.id,
                kind: self.kind,
                record: &self.record,
                parent,
                now: crate::clock::wall_now(),
                since_begun: self.began.elapsed(),
                since_called: called.elapsed(),
            });
        }
        access::tell(&self.id, self.kind, &self.record, self.began.elapsed());
    }

    /// What of an answered call's time was ours: all of it but the attempt. With several attempts there are waits in
    /// between that are no cost of the gateway's.
    fn overhead(&self, elapsed: Duration) -> Option<Duration> {
        match self.record.attempts.as_slice() {
            [only] if only.was_sent() && self.record.error.is_none() => {
                // A stream's attempt ends where its content begins.
                let until = if self.record.streams { self.record.first? } else { elapsed };
                Some(until.saturating_sub(only.elapsed))
            }
            _ => None,
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        self.record.status = WENT_AWAY;
        self.record.error.get_or_insert_with(|| ("client_disconnected", "the caller went away".to_owned()));
        self.tell();
    }
}

/// The caller's own id if it sends a sensible one, so that both logs can be read side by side; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    /// Longer than every usual kind of id (UUIDs have 36).
    const LONGEST: usize = 128;
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_sensible = |id: &&str| {
        !id.is_empty()
            && id.len() <= LONGEST
            && id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':'))
    };
    match given.filter(is_sensible) {
        Some(id) => id.to_owned(),
        None => format!("req_{:024x}", fastrand::u128(..) >> 32),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_sensible_id_is_kept_and_any_other_replaced() {
        let with = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(id));
            request_id(&headers)
        };
        assert_eq!(with("3f2a-4b:c.d_e"), "3f2a-4b:c.d_e");
        for wrong in ["", "a b", "\"x\"", "<script>"] {
            assert!(with(wrong).starts_with("req_"), "{wrong}");
        }
        let made = request_id(&HeaderMap::new());
        assert!(made.starts_with("req_") && made.len() == 28, "{made}");
        assert_ne!(made, request_id(&HeaderMap::new()));
    }
}
