//! The four vendors' shapes: requests to prompts, answers to bodies and stream events. One file a protocol.

pub(crate) mod anthropic;
pub(crate) mod chat;
pub(crate) mod google;
pub(crate) mod lists;
pub(crate) mod responses;

use bytes::Bytes;
use serde_json::{Value, json};

/// What a piece of a stream is, as far as faults and pacing are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Before any content: roles, `message_start`, pings.
    Preamble,
    /// Text, reasoning or tool arguments.
    Content,
    /// Between two parts of the content: the end of one block, the start of the next.
    Between,
    /// The reason of the end, and usage.
    Finish,
    /// What closes the stream after that: `[DONE]`, `message_stop`, `response.completed`.
    Terminator,
}

/// One event of a stream, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    /// Output tokens it carries.
    pub(crate) tokens: u32,
    pub(crate) bytes: Bytes,
}

impl Frame {
    pub(crate) fn new(kind: FrameKind, tokens: u32, bytes: impl Into<Bytes>) -> Self {
        Self { kind, tokens, bytes: bytes.into() }
    }

    /// `data: JSON`, as chat completions send it.
    pub(crate) fn data(kind: FrameKind, tokens: u32, value: &Value) -> Self {
        Self::new(kind, tokens, format!("data: {value}\n\n"))
    }

    /// `event: NAME` and `data: JSON`, where the name repeats the JSON's `type`.
    pub(crate) fn named(kind: FrameKind, tokens: u32, value: &Value) -> Self {
        let name = value["type"].as_str().unwrap_or("message");
        Self::new(kind, tokens, format!("event: {name}\ndata: {value}\n\n"))
    }
}

/// Makes identifiers and knows the time of the request.
pub(crate) struct Mint {
    pub(crate) dice: fastrand::Rng,
    /// Unix seconds.
    pub(crate) created: i64,
    pub(crate) request_id: String,
}

impl Mint {
    pub(crate) fn new(seed: u64, created: i64) -> Self {
        let mut mint = Self { dice: fastrand::Rng::with_seed(seed), created, request_id: String::new() };
        mint.request_id = mint.id("req_", 24);
        mint
    }

    /// A prefix and random letters and digits.
    pub(crate) fn id(&mut self, prefix: &str, length: usize) -> String {
        let tail: String = (0..length).map(|_| self.dice.alphanumeric()).collect();
        format!("{prefix}{tail}")
    }

    /// Eight bytes in the form of a UUID.
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.dice.u64(..), self.dice.u64(..));
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    }
}

/// A text content part or a plain string: its text. `None` for parts that are not text.
pub(crate) fn part_text(part: &Value) -> Option<&str> {
    part.as_str()
        .or_else(|| part.get("text").and_then(Value::as_str))
        .or_else(|| part.get("refusal").and_then(Value::as_str))
}

/// The size of tools in a prompt: their compact JSON and ten tokens each.
/// Source: OpenAI does not publish its serialisation; budget recommended by third parties, 2026.
pub(crate) fn tools_tokens(tools: &[Value]) -> u64 {
    tools.iter().map(|tool| crate::text::count(&tool.to_string()) + 10).sum()
}

/// The tokens of an image, whatever its size: a flat number, since the emulator does not decode pictures.
pub(crate) const IMAGE_TOKENS: u64 = 85;

/// An empty parameter schema, for tools that declare none.
pub(crate) fn no_parameters() -> Value {
    json!({"type": "object", "properties": {}})
}
