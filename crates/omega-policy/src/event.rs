//! What happened, as data. No words and no logging: `omega-client/src/telemetry.rs` writes the words.

use std::collections::VecDeque;

use crate::{Dimension, ModelId, Timestamp};

/// Something an operator may want to know, in the order it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The circuit opened.
    Opened {
        /// Whose, with breaker scope `model`.
        model: Option<ModelId>,
        /// The failures that opened it: consecutive ones, or those in the window.
        failures: u32,
        /// When recovery will be tested.
        until: Timestamp,
        /// When it happened.
        at: Timestamp,
    },
    /// The circuit lets probes through.
    HalfOpened {
        /// Whose, with breaker scope `model`.
        model: Option<ModelId>,
        /// When it happened.
        at: Timestamp,
    },
    /// The circuit recovered.
    Closed {
        /// Whose, with breaker scope `model`.
        model: Option<ModelId>,
        /// When it happened.
        at: Timestamp,
    },
    /// An episode of limiting began: the first caller had to wait or was refused.
    LimitHit {
        /// What ran out.
        dimension: Dimension,
        /// Requests sent in the last minute.
        requests_last_minute: u64,
        /// Tokens sent in the last minute.
        tokens_last_minute: u64,
        /// When it happened.
        at: Timestamp,
    },
    /// The episode ended: nobody waits any more.
    LimitCleared {
        /// When it happened.
        at: Timestamp,
    },
    /// The provider asked to be left alone.
    Paused {
        /// Until then.
        until: Timestamp,
        /// When it happened.
        at: Timestamp,
    },
    /// The provider's headers show at least twice the configured limit. Said once per dimension.
    LimitLooksLow {
        /// Which limit.
        dimension: Dimension,
        /// What is configured, per minute.
        configured: u64,
        /// What the provider showed, per minute.
        observed: u64,
    },
    /// One model's own quota is spent.
    ModelBlocked {
        /// Which model.
        model: ModelId,
        /// Until then.
        until: Timestamp,
    },
}

/// Events nobody has read are kept up to this many; beyond it the oldest go, so that a caller who never asks does not
/// grow.
const EVENTS_MAX: usize = 1_024;

/// What happened and has not been read.
#[derive(Debug, Default)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    pub(crate) fn push(&mut self, event: Event) {
        if self.0.len() >= EVENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
