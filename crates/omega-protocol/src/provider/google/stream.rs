//! From the events of `streamGenerateContent?alt=sse` to chunks.
//!
//! There is no terminator: the stream is complete when every candidate has given its `finishReason` and the body has
//! ended. Finish reasons and usage are therefore held back until the end, where the last of the running totals counts.
//! Errors come as events, or as bare JSON over several lines that no SSE parser looks at.
//!
//! Source: ai.google.dev, `google-genai` 3.4.0, and streams recorded by third parties, read 2026-11-23.

use serde_json::Value;

use super::decode::{self, Answer, CallIds, Candidate, End, MAX_CANDIDATES, Pieces, RawUsage};
use super::errors;
use super::glance::PlainEvent;
use crate::provider::plain::{data_line, read};
use crate::provider::{ChatDecoder, Glimpse};
use crate::sse::{Item, SseParser};
use crate::{
    ChatChunk, ChunkChoice, Delta, Extra, FunctionDelta, ProviderError, Role, ToolCall, ToolCallDelta,
};

/// The longest error taken outside an event. Real ones have 0.1 to 3 KB.
const MAX_BARE_BYTES: usize = 1024 * 1024;

/// The most kept of fields this crate has no name for, which are held back until the end. Citations and safety ratings of
/// a long answer have some 0.1 MB.
const MAX_KEPT_BYTES: u64 = 4 * 1024 * 1024;

/// The decoder of one stream.
#[derive(Default)]
pub(super) struct Decoder {
    sse: SseParser,
    progress: Progress,
    failed: Option<ProviderError>,
    is_finished: bool,
}

impl ChatDecoder for Decoder {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.is_finished {
            return Ok(());
        }
        let progress = &mut self.progress;
        let result = self.sse.push(bytes, |item| progress.take(item, out));
        result.map_err(|error| self.fail(error))
    }

    fn glance_event(&mut self, piece: &[u8]) -> Option<Glimpse> {
        let progress = &mut self.progress;
        let is_between = self.sse.is_between_events() && !progress.bare.is_open();
        if self.failed.is_some() || self.is_finished || !is_between {
            return None;
        }
        let event = read::<PlainEvent<'_>>(data_line(piece)?)?;
        progress.candidates.iter().find(|begun| begun.index == event.index())?;
        progress.usage = event.usage().or(progress.usage.take());
        Some(Glimpse::text(event.content()))
    }

    fn finish(&mut self, out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if std::mem::replace(&mut self.is_finished, true) {
            return Ok(());
        }
        let progress = &mut self.progress;
        // The last event may lack its blank line; that its JSON is whole is proof enough.
        let result = self.sse.finish(|item| progress.take(item, out)).and_then(|()| self.progress.end(out));
        result.map_err(|error| self.fail(error))
    }

    /// Never: only the end of the body ends the stream.
    fn is_done(&self) -> bool {
        false
    }
}

impl Decoder {
    fn fail(&mut self, mut error: ProviderError) -> ProviderError {
        if let Some(usage) = &self.progress.usage {
            error.failure.seen = Some((&usage.normalised()).into());
        }
        self.failed = Some(error.clone());
        error
    }
}

/// The answer so far.
#[derive(Default)]
struct Progress {
    id: String,
    model: String,
    usage: Option<RawUsage>,
    candidates: Vec<Begun>,
    calls: Option<CallIds>,
    extra: Kept,
    bare: BareJson,
}

/// Fields held back, the latest of each name. What would not fit is dropped: it is beside the answer.
#[derive(Default)]
struct Kept {
    fields: Extra,
    bytes: u64,
}

impl Kept {
    fn extend(&mut self, later: Extra) {
        let size = |key: &str, value: &Value| key.len() as u64 + crate::tokens::json_length(value);
        for (key, value) in later {
            let new = size(&key, &value);
            let old = self.fields.get(&key).map_or(0, |old| size(&key, old));
            if self.bytes - old + new <= MAX_KEPT_BYTES {
                self.bytes = self.bytes - old + new;
                self.fields.insert(key, value);
            }
        }
    }
}

/// A candidate that has begun.
#[derive(Default)]
struct Begun {
    index: u32,
    calls: u32,
    finish_reason: Option<String>,
    /// Of the text; the last one counts.
    signature: Option<String>,
    extra: Kept,
}

impl Progress {
    fn take(&mut self, item: Item<'_>, out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        match item {
            Item::Event { .. } if self.bare.is_open() => {
                Err(ProviderError::stream_broken("JSON outside an event was cut off by an event"))
            }
            Item::Event { data, .. } => self.event(data, out),
            Item::Stray(line) if !self.bare.is_open() && line.trim_ascii_start().starts_with(b"<") => {
                Err(ProviderError::stream_broken("the stream carries an HTML page"))
            }
            Item::Stray(line) => match self.bare.add(line)? {
                None => Ok(()),
                Some(whole) if errors::is_error(&whole) => Err(errors::in_a_2xx(&whole)),
                Some(_) => Err(ProviderError::stream_broken(
                    "the stream carried JSON that is neither event nor error",
                )),
            },
        }
    }

    fn event(&mut self, data: &[u8], out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        let answer: Answer = match serde_json::from_slice(data) {
            Ok(answer) => answer,
            Err(_) if errors::is_error(data) => return Err(errors::in_a_2xx(data)),
            Err(error) => {
                // serde's message may quote a value, and values are prompts and answers.
                let what =
                    if error.is_data() { "does not have the form of an answer" } else { "is not valid JSON" };
                return Err(ProviderError::stream_broken(format!("an event of the stream {what}")));
            }
        };
        if answer.error.is_some() {
            return Err(errors::in_a_2xx(data));
        }
        if let Some(usage) = answer.usage {
            self.usage = Some(usage);
        }
        for (ours, theirs) in [(&mut self.id, answer.id), (&mut self.model, answer.model)] {
            if !theirs.is_empty() {
                *ours = theirs;
            }
        }
        self.extra.extend(answer.extra);
        if answer.candidates.is_empty() && decode::block_reason(answer.prompt_feedback.as_ref()).is_some() {
            return Err(decode::no_candidates(answer.prompt_feedback.as_ref()));
        }
        for candidate in answer.candidates {
            self.candidate(candidate, out)?;
        }
        Ok(())
    }

    fn candidate(&mut self, candidate: Candidate, out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        let Candidate { content, finish_reason, index, extra } = candidate;
        let calls = self.calls.get_or_insert_with(|| CallIds::new(&self.id));
        let Pieces { text, reasoning, calls, own, signature } = Pieces::of(content, calls);
        let known = self.candidates.iter().position(|begun| begun.index == index);
        if known.is_none() && self.candidates.len() == MAX_CANDIDATES {
            return Err(ProviderError::stream_broken(format!(
                "the answer has more than {MAX_CANDIDATES} candidates"
            )));
        }
        let at = known.unwrap_or_else(|| {
            self.candidates.push(Begun { index, ..Begun::default() });
            self.candidates.len() - 1
        });
        let begun = &mut self.candidates[at];
        begun.finish_reason = finish_reason.or(begun.finish_reason.take());
        begun.signature = signature.or(begun.signature.take());
        begun.extra.extend(extra);
        let tool_calls = calls
            .into_iter()
            .map(|call| {
                let index = begun.calls;
                begun.calls += 1;
                whole_call(index, call)
            })
            .collect();
        let delta = Delta {
            role: known.is_none().then_some(Role::Assistant),
            content: text.or(known.is_none().then(String::new)),
            refusal: None,
            reasoning_content: reasoning,
            tool_calls,
            extra: decode::keep(own).into_iter().collect(),
        };
        if delta != Delta::default() {
            out.push(self.chunk(ChunkChoice { index, delta, ..ChunkChoice::default() }));
        }
        Ok(())
    }

    /// The body has ended: judges the whole, and gives what was held back.
    fn end(&mut self, out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        if self.bare.is_open() {
            return Err(ProviderError::stream_broken("the stream ended inside JSON that is no event"));
        }
        if self.candidates.is_empty() || self.candidates.iter().any(|begun| begun.finish_reason.is_none()) {
            return Err(ProviderError::stream_broken("the stream ended before a `finishReason`"));
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.sort_by_key(|begun| begun.index);
        let end_of =
            |begun: &Begun| End::of(begun.finish_reason.as_deref().unwrap_or_default(), begun.calls > 0);
        let ends: Vec<End> = candidates.iter().map(end_of).collect();
        if let Some(error) = decode::failed_end(&ends) {
            return Err(error);
        }
        for (begun, end) in candidates.into_iter().zip(ends) {
            let Begun { index, finish_reason, signature, extra: Kept { fields: mut extra, .. }, .. } = begun;
            extra.extend(finish_reason.map(|reason| ("finishReason".to_owned(), reason.into())));
            let delta = Delta {
                extra: signature.map(|signature| decode::signed_field(&signature)).into_iter().collect(),
                ..Delta::default()
            };
            let finish_reason = Some(end.finish_reason());
            out.push(self.chunk(ChunkChoice { index, delta, finish_reason, logprobs: None, extra }));
        }
        let mut last = self.chunk(ChunkChoice::default());
        last.choices.clear();
        last.usage = self.usage.as_ref().map(RawUsage::normalised);
        last.service_tier = self.usage.as_ref().and_then(RawUsage::service_tier);
        last.extra = std::mem::take(&mut self.extra.fields);
        if last.usage.is_some() || !last.extra.is_empty() {
            out.push(last);
        }
        Ok(())
    }

    fn chunk(&self, choice: ChunkChoice) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            model: self.model.clone(),
            choices: vec![choice],
            ..ChatChunk::default()
        }
    }
}

/// Google's calls come whole.
fn whole_call(index: u32, call: ToolCall) -> ToolCallDelta {
    let ToolCall { id, kind, function, extra } = call;
    let function = function.map(|function| FunctionDelta {
        name: Some(function.name),
        arguments: Some(function.arguments),
        extra: function.extra,
    });
    ToolCallDelta { index, id: Some(id), kind: Some(kind), function, extra }
}

/// JSON over several lines outside any event: collects lines until its brackets balance.
#[derive(Default)]
struct BareJson {
    text: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl BareJson {
    fn is_open(&self) -> bool {
        !self.text.is_empty()
    }

    /// Adds a line; returns the text when it is whole. Lines that cannot begin an object or a list are skipped, as the
    /// SSE standard has it: only what is whole can complete an answer, so nothing is lost by it.
    fn add(&mut self, line: &[u8]) -> Result<Option<Vec<u8>>, ProviderError> {
        if !self.is_open() && !matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return Ok(None);
        }
        if self.text.len() + line.len() > MAX_BARE_BYTES {
            let message = format!("the stream carried more than {MAX_BARE_BYTES} bytes outside an event");
            return Err(ProviderError::stream_broken(message));
        }
        for byte in line {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
        let is_whole = self.depth == 0 && !self.in_string;
        Ok(is_whole.then(|| std::mem::take(&mut self.text)))
    }
}
