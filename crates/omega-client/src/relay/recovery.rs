//! What a broken stream is gone on from: the text that was delivered, who could go on, and how to join the two.
//!
//! Only plain text is ever joined. Tool calls and structured output are not: half of a JSON text continued by somebody
//! else is a new text that nobody wrote. A target that takes prefill goes on from the last delivered character; any other
//! begins again, and is believed only if its answer begins with what was delivered.

use std::sync::Arc;

use omega_policy::{Priority, TenantId, Timestamp};
use omega_protocol::{ChatChunk, ChatRequest, Message, ResponseFormat, Streaming, takes_prefill};

use super::Core;
use super::exchange::{Continuation, Joint};
use super::stream::Went;
use crate::answer::Attempt;
use crate::client::Inner;
use crate::driver::{Driver, Plan};
use crate::error::{Error, ErrorKind};
use crate::registry::Target;

/// Bytes per token, to know what is left of a limit on the output. As in [`reader`](crate::reader).
const BYTES_PER_TOKEN: u64 = 4;

/// The state of one stream that may be gone on with.
pub(super) struct Recovery {
    core: Arc<Core>,
    /// Who may go on, in order: those the call has not asked, then the broken one itself.
    targets: Vec<Target>,
    plan: Terms,
    prefill: bool,
    delivered: String,
    /// More than the text of one answer was delivered.
    mixed: bool,
    finished: bool,
}

/// What holds for the call as a whole.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) started: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) max_attempts: u32,
    pub(crate) priority: Priority,
    pub(crate) tenant: TenantId,
}

impl Recovery {
    /// - `targets`: who may go on, in order.
    /// - `prefill`: whether a target may be asked to go on where it takes that.
    pub(super) fn new(core: Arc<Core>, targets: Vec<Target>, plan: Terms, prefill: bool) -> Self {
        Self { core, targets, plan, prefill, delivered: String::new(), mixed: false, finished: false }
    }

    /// What went to the caller.
    pub(super) fn note(&mut self, chunks: &[ChatChunk]) {
        for choice in chunks.iter().flat_map(|chunk| &chunk.choices) {
            let delta = &choice.delta;
            self.delivered.push_str(delta.content.as_deref().unwrap_or_default());
            self.finished |= choice.finish_reason.is_some();
            self.mixed |= choice.index != 0
                || !delta.tool_calls.is_empty()
                || delta.refusal.as_ref().is_some_and(|refusal| !refusal.is_empty())
                || delta.extra.get("audio").is_some_and(|audio| !audio.is_null());
        }
    }

    /// Nothing of the answer is missing but its formal end.
    pub(super) fn is_finished(&self) -> bool {
        self.finished && !self.mixed
    }

    pub(super) fn delivered(&self) -> &str {
        &self.delivered
    }

    /// Whether there is anybody left to go on, and something to go on from.
    pub(super) fn is_possible(&self, now: Timestamp) -> bool {
        let Ok(request) = self.core.typed() else { return false };
        let plain = matches!(request.response_format, None | Some(ResponseFormat::Text));
        plain
            && !self.mixed
            && request.n.unwrap_or(1) <= 1
            && !self.targets.is_empty()
            && now < self.plan.deadline
    }

    /// Asks the remaining targets to go on. Gives itself back, with those that are left after the one that answers.
    pub(super) async fn go_on(mut self, client: Arc<Inner>) -> (Self, Went) {
        loop {
            let exchange = match self.continuation() {
                Ok(exchange) => exchange,
                Err(error) => return (self, Err(error)),
            };
            let plan = Plan {
                targets: self.targets.clone(),
                mates: mates(&self.targets),
                started: self.plan.started,
                deadline: self.plan.deadline,
                max_wait: None,
                max_attempts: self.plan.max_attempts,
                priority: self.plan.priority,
                tenant: self.plan.tenant,
            };
            let asked_prefill = self.prefill;
            match Driver::new(&client, exchange, plan).run().await {
                Ok(served) => {
                    let at = self.targets.iter().position(|target| target.is(&served.target));
                    if let Some(at) = at {
                        self.targets = left(&self.targets, at, &served.attempts).cloned().collect();
                    }
                    let splice = Splice::new(served.answer.1, &self.delivered);
                    return (self, Ok((served, splice)));
                }
                // The table of who takes prefill can be wrong about a model; beginning again is always understood.
                Err(error) if asked_prefill && error.kind() == ErrorKind::InvalidRequest => {
                    self.prefill = false;
                }
                Err(error) => {
                    self.targets.clear();
                    return (self, Err(error));
                }
            }
        }
    }

    fn continuation(&self) -> Result<Continuation, Error> {
        let request = self
            .core
            .typed()
            .map_err(|error| Error::new(ErrorKind::Unsupported, error.message.clone()).about(error.field))?;
        let mut restart = ChatRequest::clone(request);
        restart.stream = Some(self.core.streaming == Streaming::Stream);
        let model = self.targets.first().map_or(&*self.core.envelope.model, |target| &*target.model);
        model.clone_into(&mut restart.model);
        // Thinking models answer in two parts, and refuse a prefill.
        let plain = request.reasoning_effort.is_none() && self.core.envelope.thinking != Some(true);
        let said = self.delivered.trim_end();
        let prefill = (self.prefill && plain && !said.is_empty()).then(|| {
            let mut prefill = restart.clone();
            prefill.messages.push(Message::assistant(said));
            let spent = said.len() as u64 / BYTES_PER_TOKEN;
            prefill.max_tokens = prefill.max_tokens.map(|limit| limit.saturating_sub(spent).max(1));
            prefill
        });
        Ok(Continuation {
            restart,
            prefill,
            takes_prefill: |provider, model| takes_prefill(provider.dialect(), model),
        })
    }
}

/// Of a call's targets, those it has not asked: the ones behind the one that answers, and the ones it passed over because
/// they had no room.
pub(super) fn left<'t>(
    targets: &'t [Target],
    at: usize,
    attempts: &'t [Attempt],
) -> impl Iterator<Item = &'t Target> {
    let asked = |target: &Target| {
        let is_it = |one: &Attempt| one.provider == *target.member.name && one.model == target.model;
        attempts.iter().any(is_it)
    };
    let left = targets.iter().enumerate().filter(move |(place, target)| *place > at || !asked(target));
    left.map(|(_, target)| target)
}

/// How many targets, from the first on, stand beside each other.
fn mates(targets: &[Target]) -> usize {
    let Some(first) = targets.first() else { return 0 };
    let is_mate =
        |target: &&Target| target.member.head() == first.member.head() && target.model == first.model;
    targets.iter().take_while(is_mate).count()
}

/// Joins a new answer to what was delivered.
pub(super) enum Splice {
    /// Nothing to take away any more.
    Joined,
    /// The answer goes on from here: the white space that a prefill may not end with was delivered already.
    Blank(String),
    /// The answer begins again, and must begin with the rest of this.
    Again { expected: String, at: usize },
}

impl Splice {
    fn new(joint: Joint, delivered: &str) -> Self {
        match joint {
            Joint::Prefill => match &delivered[delivered.trim_end().len()..] {
                "" => Self::Joined,
                blank => Self::Blank(blank.to_owned()),
            },
            Joint::Restart if delivered.is_empty() => Self::Joined,
            Joint::Restart => Self::Again { expected: delivered.to_owned(), at: 0 },
        }
    }

    /// Takes from a chunk what the caller has. `false`: this is another answer, and cannot be joined.
    pub(super) fn join(&mut self, chunk: &mut ChatChunk) -> bool {
        for choice in &mut chunk.choices {
            // The caller knows who speaks.
            choice.delta.role = None;
            let text = choice.delta.content.take().unwrap_or_default();
            let rest = match self {
                Self::Joined => Some(text),
                Self::Blank(blank) => {
                    let kept = text.strip_prefix(blank.as_str()).unwrap_or(&text).to_owned();
                    // An empty piece says nothing yet.
                    if !text.is_empty() {
                        *self = Self::Joined;
                    }
                    Some(kept)
                }
                Self::Again { expected, at } => {
                    let common = (expected.len() - *at).min(text.len());
                    if text.as_bytes()[..common] != expected.as_bytes()[*at..*at + common] {
                        return false;
                    }
                    *at += common;
                    let joined = *at == expected.len();
                    if !joined && choice.finish_reason.is_some() || !choice.delta.tool_calls.is_empty() {
                        return false;
                    }
                    choice.delta.reasoning_content = None;
                    let rest = joined.then(|| text[common..].to_owned());
                    if joined {
                        *self = Self::Joined;
                    }
                    rest
                }
            };
            choice.delta.content = rest.filter(|rest| !rest.is_empty());
        }
        true
    }
}

#[cfg(test)]
mod tests;
