//! The journal: one record for every request that reached a provider's path, for tests that ask what a client did.
//! Keys and prompts are never written down.

use std::collections::VecDeque;

use serde::Serialize;

use crate::provider::{Endpoint, Provider};

/// What one request asked for and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RequestRecord {
    /// Counts from 1 in the order of arrival.
    pub number: u64,
    /// Which provider was asked.
    pub provider: Provider,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// The model asked for, fault suffix included; empty where the request names none.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The HTTP status that was sent; `None` before there is one, and for connections that got none.
    pub status: Option<u16>,
    /// Seconds of trace time from the start of the emulator to the arrival.
    pub at: f64,
    /// The same moment of the end of the answer; `None` while it lasts.
    pub finished_at: Option<f64>,
    /// The fault that was applied, as `NAME[:PARAMETER]…`; `quota` for a 429 of the emulated quota.
    pub fault: Option<String>,
    /// Headers worth asking about.
    pub headers: SeenHeaders,
    /// Input tokens counted.
    pub input_tokens: u64,
    /// Output tokens sent so far, reasoning included.
    pub output_tokens: u64,
    /// Tokens taken from the token quota, reservation included.
    pub tokens_charged: u64,
    /// Content events sent (streams).
    pub content_events: u64,
    /// How it ended.
    pub finished: Finished,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finished {
    /// It has not ended yet.
    InProgress,
    /// The whole answer was handed to the connection.
    Completed,
    /// A fault broke it.
    Cut,
    /// The client went away first (or the emulator was shut down).
    ClientDisconnected,
}

/// The request headers that tests ask about. Values of credentials are not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SeenHeaders {
    /// `user-agent`.
    pub user_agent: Option<String>,
    /// `x-stainless-retry-count`.
    pub retry_count: Option<String>,
    /// `anthropic-version`.
    pub anthropic_version: Option<String>,
    /// `anthropic-beta`.
    pub anthropic_beta: Option<String>,
    /// `x-client-request-id`.
    pub client_request_id: Option<String>,
    /// `idempotency-key`.
    pub idempotency_key: Option<String>,
    /// The names of the ways a key was sent: `authorization`, `x-api-key`, `x-goog-api-key`, `key` (query).
    pub auth: Vec<String>,
    /// The HTTP version: `HTTP/1.1`, `HTTP/2.0`.
    pub http_version: String,
}

/// The records, bounded.
#[derive(Debug)]
pub(crate) struct Journal {
    records: VecDeque<RequestRecord>,
    next: u64,
    limit: usize,
}

impl Journal {
    pub(crate) fn new(limit: usize) -> Self {
        Self { records: VecDeque::new(), next: 1, limit }
    }

    /// Opens a record and returns its number.
    pub(crate) fn open(&mut self, build: impl FnOnce(u64) -> RequestRecord) -> u64 {
        let number = self.next;
        self.next += 1;
        if self.records.len() >= self.limit {
            self.records.pop_front();
        }
        if self.limit > 0 {
            self.records.push_back(build(number));
        }
        number
    }

    /// Changes a record, unless it has been forgotten.
    pub(crate) fn update(&mut self, number: u64, change: impl FnOnce(&mut RequestRecord)) {
        let Some(first) = self.records.front().map(|record| record.number) else { return };
        // Numbers are consecutive, so the place follows from the number.
        let place = number.checked_sub(first).and_then(|offset| usize::try_from(offset).ok());
        if let Some(record) = place.and_then(|place| self.records.get_mut(place)) {
            change(record);
        }
    }

    pub(crate) fn all(&self) -> Vec<RequestRecord> {
        self.records.iter().cloned().collect()
    }

    pub(crate) fn clear(&mut self) {
        self.records.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64) -> RequestRecord {
        RequestRecord {
            number,
            provider: Provider::OpenAi,
            endpoint: Endpoint::ChatCompletions,
            model: String::new(),
            stream: false,
            status: None,
            at: 0.0,
            finished_at: None,
            fault: None,
            headers: SeenHeaders::default(),
            input_tokens: 0,
            output_tokens: 0,
            tokens_charged: 0,
            content_events: 0,
            finished: Finished::InProgress,
        }
    }

    #[test]
    fn the_oldest_records_are_forgotten_and_late_updates_of_them_ignored() {
        let mut journal = Journal::new(2);
        let numbers: Vec<u64> = (0..3).map(|_| journal.open(record)).collect();
        assert_eq!(numbers, [1, 2, 3]);
        for number in numbers {
            journal.update(number, |record| record.status = Some(200 + number as u16));
        }
        let kept: Vec<_> = journal.all().iter().map(|record| (record.number, record.status)).collect();
        assert_eq!(kept, [(2, Some(202)), (3, Some(203))]);
    }

    #[test]
    fn numbers_go_on_after_a_clear() {
        let mut journal = Journal::new(10);
        journal.open(record);
        journal.clear();
        assert_eq!(journal.open(record), 2);
        journal.update(1, |record| record.status = Some(500));
        assert_eq!(journal.all()[0].status, None);
    }
}
