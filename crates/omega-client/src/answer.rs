//! What a call gives back: the answer, who gave it, and what happened on the way.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use omega_policy::FailureKind;

use crate::ErrorKind;

/// An answer and its story. Dereferences to the response itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// What the provider answered.
    pub response: T,
    /// The provider that really served it.
    pub provider: String,
    /// The model that was asked there, without a `provider/` in front.
    pub model: String,
    /// Every attempt, in order; the last one is the answer.
    pub attempts: Vec<Attempt>,
    /// How long the call waited for quota, over all attempts.
    pub queued: Duration,
}

impl<T> Deref for Answer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.response
    }
}

impl<T> DerefMut for Answer<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.response
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The provider.
    pub provider: String,
    /// The model asked for there.
    pub model: String,
    /// When it began (joined the queue), since the call began.
    pub started: Duration,
    /// How long it took, waiting for quota included.
    pub elapsed: Duration,
    /// How much of that was waiting for quota.
    pub queued: Duration,
    /// What became of it.
    pub outcome: AttemptOutcome,
}

impl Attempt {
    /// Whether the provider was really asked.
    pub fn was_sent(&self) -> bool {
        !matches!(self.outcome, AttemptOutcome::Refused { .. } | AttemptOutcome::Skipped { .. })
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// It was answered; for a stream: its content began.
    Answered,
    /// The provider was asked and did not answer.
    Failed {
        /// Which row of the failure table.
        kind: FailureKind,
        /// The HTTP status.
        status: Option<u16>,
        /// The provider's error code, or its type where it has no code.
        code: Option<String>,
        /// The provider's own words, bounded.
        message: String,
    },
    /// OMEGA did not send it: an open circuit, a limit, a spent quota.
    Refused {
        /// Why.
        kind: ErrorKind,
        /// When it could be different, from the moment of refusal.
        retry_after: Option<Duration>,
        /// In words.
        message: String,
    },
    /// The provider was asked, and left when the other one of a hedged pair decided the call: it began to answer first,
    /// or failed in a way that no other target may answer.
    Cancelled,
    /// This target cannot take the call at all: no key, or a request its protocol cannot express.
    Skipped {
        /// In words.
        message: String,
    },
}

impl AttemptOutcome {
    /// A word for it in records: `answered`, `failed`, `refused`, `cancelled` or `skipped`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed { .. } => "failed",
            Self::Refused { .. } => "refused",
            Self::Cancelled => "cancelled",
            Self::Skipped { .. } => "skipped",
        }
    }

    /// Why it was not answered, in words.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Failed { message, .. } | Self::Refused { message, .. } | Self::Skipped { message } => {
                Some(message)
            }
            Self::Answered | Self::Cancelled => None,
        }
    }
}
