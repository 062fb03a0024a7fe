//! From the events of a Messages stream to chunks.
//!
//! The stream is complete when `message_stop` was seen; the finish reason and the usage are held back until then, so
//! that nobody downstream takes a stream cut after `message_delta` for a whole answer.
//!
//! Source: platform.claude.com (streaming), `anthropic` 2.12.0, read 2026-11-23.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::decode::{RawUsage, Stop, kept};
use super::errors;
use super::glance::MoreText;
use crate::provider::{ChatDecoder, Glimpse};
use crate::sse::{Item, SseParser};
use crate::{ChatChunk, ChunkChoice, Delta, Extra, FunctionDelta, ProviderError, Role, ToolCallDelta};

/// The most content blocks taken. Answers have a handful, long chains of server tools some hundreds.
const MAX_BLOCKS: usize = 10_000;

/// The most text kept for the next request's echo. The longest answers, 128,000 tokens, have about 0.5 MB; what is
/// longer is still delivered, only not kept.
const MAX_KEPT_BYTES: usize = 16 * 1024 * 1024;

/// The decoder of one stream.
#[derive(Default)]
pub(super) struct Decoder {
    sse: SseParser,
    answer: Answer,
    failed: Option<ProviderError>,
}

impl ChatDecoder for Decoder {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.answer.is_done {
            return Ok(());
        }
        let answer = &mut self.answer;
        let result = self.sse.push(bytes, |item| match item {
            Item::Event { name, data } => answer.take(name, data, out),
            Item::Stray(line) => answer.stray(line),
        });
        result.map_err(|error| self.fail(error))
    }

    fn glance(&mut self, bytes: &[u8]) -> Result<Glimpse, ProviderError> {
        // Nobody will ask for the echo.
        self.answer.kept_bytes = MAX_KEPT_BYTES + 1;
        let mut chunks = Vec::new();
        self.push(bytes, &mut chunks)?;
        Ok(Glimpse::of(&chunks))
    }

    fn glance_event(&mut self, piece: &[u8]) -> Option<Glimpse> {
        if self.failed.is_some() || self.answer.is_done || !self.sse.is_between_events() {
            return None;
        }
        let more = MoreText::read(piece)?;
        self.answer.find(more.index).ok()?;
        Some(Glimpse::text(more.bytes))
    }

    fn finish(&mut self, out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let answer = &mut self.answer;
        // The last event may lack its blank line; that its JSON is whole is proof enough.
        let result = self.sse.finish(|item| match item {
            Item::Event { name, data } => answer.take(name, data, out),
            Item::Stray(line) => answer.stray(line),
        });
        match result {
            Ok(()) if self.answer.is_done => Ok(()),
            Ok(()) => Err(self.fail(ProviderError::stream_broken("the stream ended before `message_stop`"))),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn is_done(&self) -> bool {
        self.answer.is_done
    }
}

impl Decoder {
    fn fail(&mut self, mut error: ProviderError) -> ProviderError {
        if let Some(usage) = &self.answer.usage {
            error.failure.seen = Some((&usage.normalised()).into());
        }
        self.failed = Some(error.clone());
        error
    }
}

/// The answer so far.
#[derive(Default)]
struct Answer {
    id: String,
    model: String,
    /// `None`: not said, which is not the same as nothing.
    usage: Option<RawUsage>,
    blocks: Vec<Block>,
    kept_bytes: usize,
    calls: u32,
    stop: Option<Stop>,
    is_started: bool,
    is_done: bool,
}

/// A content block that has begun.
struct Block {
    index: u64,
    /// As it began, and what was added to it but for the texts below.
    fields: Extra,
    /// More of `text` or `thinking`.
    text: String,
    /// `input` as JSON text, in pieces; what of it is kept.
    input: String,
    /// Pieces of `input` came, kept or not.
    has_input: bool,
    /// Its number among the calls of this answer.
    call: Option<u32>,
    is_open: bool,
}

#[derive(Deserialize)]
struct Tag<'d> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'d, str>,
}

#[derive(Deserialize)]
struct MessageStart {
    message: StartedMessage,
}

#[derive(Deserialize)]
struct StartedMessage {
    #[serde(default)]
    id: String,
    #[serde(default)]
    model: String,
    usage: Option<RawUsage>,
}

#[derive(Deserialize)]
struct BlockStart {
    index: u64,
    content_block: Extra,
}

#[derive(Deserialize)]
struct BlockDelta<'d> {
    index: u64,
    #[serde(borrow)]
    delta: BlockChange<'d>,
}

/// Every kind of delta at once: telling them apart by the field they carry saves a second pass over the hot events.
#[derive(Deserialize)]
struct BlockChange<'d> {
    #[serde(borrow)]
    text: Option<Cow<'d, str>>,
    #[serde(borrow)]
    partial_json: Option<Cow<'d, str>>,
    #[serde(borrow)]
    thinking: Option<Cow<'d, str>>,
    signature: Option<String>,
    citation: Option<Value>,
}

#[derive(Deserialize)]
struct BlockStop {
    index: u64,
}

#[derive(Deserialize)]
struct MessageDelta {
    delta: MessageChange,
    usage: Option<RawUsage>,
}

#[derive(Deserialize)]
struct MessageChange {
    stop_reason: Option<String>,
    stop_sequence: Option<Value>,
    stop_details: Option<Value>,
}

impl Answer {
    fn take(&mut self, name: &[u8], data: &[u8], out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        if self.is_done {
            return Ok(());
        }
        if self.take_known(name, data, out)? {
            return Ok(());
        }
        // No name, or one of the future: the type may still be known, and the data must at least be JSON.
        let tag: Tag<'_> = read("event", data)?;
        if tag.kind.as_bytes() != name {
            self.take_known(tag.kind.as_bytes(), data, out)?;
        }
        Ok(())
    }

    /// A line that is no field: the standard skips it, and so do Anthropic's SDKs. What something on the way wrote in its
    /// own form instead of an event (an error in JSON, a page) is none to skip.
    fn stray(&self, line: &[u8]) -> Result<(), ProviderError> {
        match line.trim_ascii().first() {
            _ if self.is_done => Ok(()),
            Some(b'{') if errors::is_error(line) => Err(errors::in_a_2xx(line)),
            Some(b'{' | b'[' | b'<') => {
                Err(ProviderError::stream_broken("the stream carries text that is no event"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the event is one of the known ones; if so, it has been taken.
    fn take_known(
        &mut self,
        kind: &[u8],
        data: &[u8],
        out: &mut Vec<ChatChunk>,
    ) -> Result<bool, ProviderError> {
        match kind {
            b"content_block_delta" => {
                self.change_block(read("content_block_delta", data)?, data.len(), out)?;
            }
            b"content_block_start" => {
                self.start_block(read("content_block_start", data)?, data.len(), out)?;
            }
            b"content_block_stop" => {
                let BlockStop { index } = read("content_block_stop", data)?;
                let at = self.find(index)?;
                self.close_block(at, out);
            }
            b"message_start" => self.start(read("message_start", data)?, out),
            b"message_delta" => {
                let MessageDelta { delta, usage } = read("message_delta", data)?;
                self.update_usage(usage);
                if let Some(reason) = delta.stop_reason {
                    self.stop =
                        Some(Stop { reason, sequence: delta.stop_sequence, details: delta.stop_details });
                }
            }
            b"message_stop" => {
                let Tag { .. } = read("message_stop", data)?;
                self.stop(out)?;
            }
            b"error" => return Err(errors::in_a_2xx(data)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn start(&mut self, event: MessageStart, out: &mut Vec<ChatChunk>) {
        let StartedMessage { id, model, usage } = event.message;
        (self.id, self.model) = (id, model);
        self.update_usage(usage);
        if !std::mem::replace(&mut self.is_started, true) {
            let delta =
                Delta { role: Some(Role::Assistant), content: Some(String::new()), ..Delta::default() };
            out.push(self.chunk(delta));
        }
    }

    /// - `size`: of the event, in bytes: results of a server's own tools come whole in it.
    fn start_block(
        &mut self,
        event: BlockStart,
        size: usize,
        out: &mut Vec<ChatChunk>,
    ) -> Result<(), ProviderError> {
        let BlockStart { index, content_block: mut fields } = event;
        if !self.is_started {
            return Err(ProviderError::stream_broken("the stream began without `message_start`"));
        }
        if self.blocks.len() == MAX_BLOCKS {
            return Err(ProviderError::stream_broken(format!(
                "the answer has more than {MAX_BLOCKS} content blocks"
            )));
        }
        let kind = word(&fields, "type").to_owned();
        let begun = match kind.as_str() {
            // Taken out of its place, which it gets back at the end.
            "text" | "thinking" => fields.get_mut(&kind).map(Value::take),
            _ => None,
        };
        let call = (kind == "tool_use").then_some(self.calls);
        let text = begun.and_then(|begun| begun.as_str().map(str::to_owned)).unwrap_or_default();
        if let Some(index) = call {
            self.calls += 1;
            let function = FunctionDelta {
                name: Some(word(&fields, "name").to_owned()),
                arguments: Some(String::new()),
                extra: Extra::new(),
            };
            let id = Some(word(&fields, "id").to_owned());
            let call = ToolCallDelta {
                index,
                id,
                kind: Some("function".to_owned()),
                function: Some(function),
                extra: Extra::new(),
            };
            out.push(self.chunk(Delta { tool_calls: vec![call], ..Delta::default() }));
        }
        if !text.is_empty() {
            let more = Some(text.clone());
            out.push(self.chunk(if kind == "thinking" {
                Delta { reasoning_content: more, ..Delta::default() }
            } else {
                Delta { content: more, ..Delta::default() }
            }));
        }
        self.kept_bytes += size;
        if self.kept_bytes > MAX_KEPT_BYTES {
            // A call may come whole in its beginning; its input is part of the answer and not only of the echo.
            fields.retain(|key, _| call.is_some() && key == "input");
        }
        let input = String::new();
        self.blocks.push(Block { index, fields, text, input, has_input: false, call, is_open: true });
        Ok(())
    }

    /// - `size`: of the event, in bytes.
    fn change_block(
        &mut self,
        event: BlockDelta<'_>,
        size: usize,
        out: &mut Vec<ChatChunk>,
    ) -> Result<(), ProviderError> {
        let at = self.find(event.index)?;
        let BlockChange { text, partial_json, thinking, signature, citation } = event.delta;
        let keep = self.kept_bytes <= MAX_KEPT_BYTES;
        let block = &mut self.blocks[at];
        let mut delta = Delta::default();
        if let Some(more) = text {
            self.kept_bytes += more.len();
            if keep {
                block.text.push_str(&more);
            }
            delta.content = Some(more.into_owned());
        } else if let Some(more) = thinking {
            self.kept_bytes += more.len();
            if keep {
                block.text.push_str(&more);
            }
            delta.reasoning_content = Some(more.into_owned());
        } else if let Some(more) = partial_json.filter(|more| !more.is_empty()) {
            self.kept_bytes += more.len();
            block.has_input = true;
            if keep {
                block.input.push_str(&more);
            }
            // Input of a server's own tool is nothing the caller is to act on.
            let Some(index) = block.call else { return Ok(()) };
            delta.tool_calls = vec![more_arguments(index, more.into_owned())];
        } else {
            self.kept_bytes += size;
            if let Some(signature) = signature.filter(|_| keep) {
                block.fields.insert("signature".to_owned(), signature.into());
            }
            if let Some(citation) = citation.filter(|_| keep) {
                match block.fields.get_mut("citations") {
                    Some(Value::Array(list)) => list.push(citation),
                    _ => drop(block.fields.insert("citations".to_owned(), vec![citation].into())),
                }
            }
            return Ok(());
        }
        out.push(self.chunk(delta));
        Ok(())
    }

    /// Ends a block. A call whose input never came in pieces has the input it began with, mostly `{}`.
    fn close_block(&mut self, at: usize, out: &mut Vec<ChatChunk>) {
        let block = &mut self.blocks[at];
        if !std::mem::replace(&mut block.is_open, false) || block.has_input {
            return;
        }
        let Some(index) = block.call else { return };
        let input =
            block.fields.get("input").filter(|input| input.is_object()).map_or("{}".into(), Value::to_string);
        let call = more_arguments(index, input);
        out.push(self.chunk(Delta { tool_calls: vec![call], ..Delta::default() }));
    }

    fn stop(&mut self, out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        if !self.is_started {
            return Err(ProviderError::stream_broken("the stream ended without `message_start`"));
        }
        let Some(stop) = self.stop.take() else {
            return Err(ProviderError::stream_broken(
                "`message_stop` came without a `stop_reason` before it",
            ));
        };
        for at in 0..self.blocks.len() {
            self.close_block(at, out);
        }
        let delta = Delta { refusal: stop.refusal(), extra: self.echo(), ..Delta::default() };
        let mut last = self.chunk(delta);
        if let Some(choice) = last.choices.first_mut() {
            choice.finish_reason = Some(stop.finish_reason());
            choice.extra = stop.into_extra();
        }
        out.push(last);
        if let Some(usage) = &self.usage {
            let mut last = self.chunk(Delta::default());
            last.choices.clear();
            last.usage = Some(usage.normalised());
            last.service_tier = usage.service_tier();
            out.push(last);
        }
        self.is_done = true;
        Ok(())
    }

    fn update_usage(&mut self, later: Option<RawUsage>) {
        match (&mut self.usage, later) {
            (Some(usage), Some(later)) => usage.update(later),
            (usage @ None, later) => *usage = later,
            (Some(_), None) => {}
        }
    }

    /// What the next request must echo, as a whole answer keeps it.
    fn echo(&mut self) -> Extra {
        let blocks = std::mem::take(&mut self.blocks);
        if self.kept_bytes > MAX_KEPT_BYTES {
            return Extra::new();
        }
        let whole: Option<Vec<Value>> = blocks.into_iter().map(Block::whole).collect();
        whole.map(|blocks| kept(&blocks)).unwrap_or_default()
    }

    fn find(&self, index: u64) -> Result<usize, ProviderError> {
        self.blocks.iter().rposition(|block| block.index == index).ok_or_else(|| {
            ProviderError::stream_broken(format!("an event names content block {index}, which never began"))
        })
    }

    fn chunk(&self, delta: Delta) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            model: self.model.clone(),
            choices: vec![ChunkChoice { delta, ..ChunkChoice::default() }],
            ..ChatChunk::default()
        }
    }
}

impl Block {
    /// The block as a whole answer has it; `None` if its input was cut by the token limit.
    fn whole(self) -> Option<Value> {
        let mut fields = self.fields;
        let kind = word(&fields, "type").to_owned();
        if matches!(kind.as_str(), "text" | "thinking") {
            fields.insert(kind, self.text.into());
        } else if !self.input.is_empty() {
            fields.insert("input".to_owned(), serde_json::from_str(&self.input).ok()?);
        } else if self.call.is_some() && !fields.get("input").is_some_and(Value::is_object) {
            fields.insert("input".to_owned(), Extra::new().into());
        }
        Some(Value::Object(fields))
    }
}

fn more_arguments(index: u32, arguments: String) -> ToolCallDelta {
    let function = FunctionDelta { name: None, arguments: Some(arguments), extra: Extra::new() };
    ToolCallDelta { index, function: Some(function), ..ToolCallDelta::default() }
}

fn word<'f>(fields: &'f Extra, key: &str) -> &'f str {
    fields.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn read<'d, T: Deserialize<'d>>(event: &str, data: &'d [u8]) -> Result<T, ProviderError> {
    serde_json::from_slice(data).map_err(|error| {
        // serde's message may quote a value, and values are prompts and answers.
        let category = if error.is_data() { "does not have its form" } else { "is not valid JSON" };
        ProviderError::stream_broken(format!("the event `{event}` {category}"))
    })
}
