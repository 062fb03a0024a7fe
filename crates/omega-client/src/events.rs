//! What the client tells whoever subscribes: the same happenings as in the log, as data.

use std::time::Duration;

use omega_policy::{BreakerState, Dimension};
use tokio::sync::broadcast;

/// Something that happened. Times are since the client was built.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A circuit changed its state.
    Transition(TransitionEvent),
    /// An episode of limiting began: the first caller had to wait or was refused.
    LimitHit {
        /// Whose limit.
        provider: String,
        /// What ran out.
        dimension: Dimension,
        /// When.
        at: Duration,
    },
    /// That episode ended.
    LimitCleared {
        /// Whose limit.
        provider: String,
        /// When.
        at: Duration,
    },
    /// The provider asked to be left alone.
    Paused {
        /// Who.
        provider: String,
        /// Until then.
        until: Duration,
        /// When it said so.
        at: Duration,
    },
    /// An attempt failed and another one follows at the same target.
    Retrying {
        /// Where.
        provider: String,
        /// The model.
        model: String,
        /// Which attempt failed, counted from 1.
        attempt: u32,
        /// The wait before the next one.
        delay: Duration,
        /// When.
        at: Duration,
    },
    /// A call that was slow to begin was sent to another target as well.
    Hedged {
        /// The slow provider.
        from: String,
        /// The other one.
        to: String,
        /// How long the slow one had been silent.
        waited: Duration,
        /// When.
        at: Duration,
    },
    /// The hedge answers: it began first and the slow provider was left, or that one had failed.
    HedgeWon {
        /// The slow provider.
        from: String,
        /// The one that answers.
        to: String,
        /// When.
        at: Duration,
    },
    /// A call turned to another target.
    FailedOver {
        /// From this provider.
        from: String,
        /// To this one.
        to: String,
        /// When.
        at: Duration,
    },
}

/// One transition of a circuit.
#[derive(Clone, Debug, PartialEq)]
pub struct TransitionEvent {
    /// Whose circuit.
    pub provider: String,
    /// Which model's, where each model has a circuit of its own.
    pub model: Option<String>,
    /// The state before.
    pub from: BreakerState,
    /// The state after.
    pub to: BreakerState,
    /// When, since the client was built.
    pub at: Duration,
}

/// A subscription. It holds the last [`Events::CAPACITY`] events; whoever reads slower loses the oldest and is told
/// how many.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<ClientEvent>);

/// Why there is no next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// The subscriber was too slow; this many events were dropped. The next call goes on after them.
    #[error("{0} events were dropped because they were not read in time")]
    Missed(u64),
    /// The client is gone.
    #[error("the client is gone")]
    Closed,
}

impl Events {
    /// Events held for a slow subscriber: about a minute of a busy outage. They are allocated with the client.
    pub const CAPACITY: usize = 1_024;

    /// The next event.
    ///
    /// # Errors
    /// Events were missed, or the client is gone.
    pub async fn next(&mut self) -> Result<ClientEvent, EventsError> {
        self.0.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => EventsError::Missed(missed),
            broadcast::error::RecvError::Closed => EventsError::Closed,
        })
    }

    /// The next event if there is one already.
    ///
    /// # Errors
    /// Events were missed, or the client is gone.
    pub fn try_next(&mut self) -> Result<Option<ClientEvent>, EventsError> {
        match self.0.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::TryRecvError::Empty) => Ok(None),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Err(EventsError::Missed(missed)),
            Err(broadcast::error::TryRecvError::Closed) => Err(EventsError::Closed),
        }
    }
}
