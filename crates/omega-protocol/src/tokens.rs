//! How many tokens a request will cost, before anyone has counted them.
//!
//! The estimate walks over the request once, without serialising it and without a tokenizer. Text is counted by bytes:
//! 3.5 per token of OpenAI's `o200k_base`, measured as 4.1 to 4.5 for English prose and source code, 4.1 to 4.4 for
//! Chinese and Japanese, 6.5 to 8.8 for Arabic, Russian and Hindi, 3.4 for pretty JSON, 2.9 for dense JSON logs and 1.5
//! for base64. So prose is over-estimated by about a fifth, dense logs are under-estimated by about a sixth, and text that is
//! noise by more than half. The limiter settles with the usage the provider reports, and a [`Calibration`] learns from it
//! what this model's estimates are off by.
//!
//! A [`TokenCounter`] can count text exactly instead, where a model's encoding is public and the build has the cargo
//! feature `tokenizer`. Media, the JSON of tools and the framing of messages are estimated either way.

mod calibration;
#[cfg_attr(not(feature = "tokenizer"), path = "tokens/no_tokenizer.rs")]
mod tokenizer;
mod weight;

use serde_json::Value;
use thiserror::Error;

pub use self::calibration::Calibration;
use self::tokenizer::Exact;
pub(crate) use self::weight::Weight;

use crate::provider::data_url;
use crate::{
    ChatRequest, Content, ContentPart, Dialect, EmbeddingsInput, EmbeddingsRequest, Extra, Message,
    ResponseFormat, ResponsesRequest, route,
};

/// Bytes of text per token, as a fraction: 3.5. Source: measurements in the module's documentation (tiktoken 0.14.0).
const BYTES_PER_TOKEN: (u64, u64) = (7, 2);
/// Tokens around each message, and before the answer. Source: OpenAI cookbook, "How to count tokens with tiktoken".
const PER_MESSAGE: u64 = 3;
/// The role of a message. Among the bytes its place in [`BYTES_PER_TOKEN`]'s surplus is enough; an exact count has no
/// surplus. Source: the same: each value of a message is counted, its role too.
const PER_ROLE: u64 = 1;
/// Tokens around each function beside its JSON. Source: the same; OpenAI does not publish its serialisation.
const PER_TOOL: u64 = 10;
/// An image of ordinary size: between OpenAI's 765 (1024 x 1024, `high`), Gemini's 258 to 1,120 and Anthropic's 1,600 at
/// most. Source: the vendors' vision guides.
const PER_IMAGE: u64 = 1_000;
/// An image with `detail: low`. Source: OpenAI vision guide.
const PER_LOW_DETAIL_IMAGE: u64 = 85;
/// Bytes of base64 per token of sound: mp3 at 128 kbit/s and 32 tokens per second (Gemini's audio guide, the dearest).
const AUDIO_BASE64_BYTES_PER_TOKEN: u64 = 650;
/// Bytes of base64 per token of a file: a PDF page of about 75 KB and 2,000 tokens (Anthropic's PDF guide: 1,500 to
/// 3,000 per page).
const FILE_BASE64_BYTES_PER_TOKEN: u64 = 50;
/// A file or a sound known only by its id or address.
const PER_UNSEEN_FILE: u64 = 2_000;

/// What a request is expected to make its model read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputEstimate {
    /// In tokens of the provider that serves the model.
    pub tokens: u64,
    /// What the estimate rests on.
    pub kind: InputKind,
}

/// What an estimate rests on. Each is wrong in its own way, so each is calibrated by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputKind {
    /// Text by its bytes.
    #[default]
    Text,
    /// Text counted by the model's own tokenizer.
    Counted,
    /// Images, sound or files are among it.
    Media,
    /// The provider adds to it what cannot be seen from here: an earlier turn it keeps, a search of its own.
    Unseen,
}

/// This build cannot count exactly: it lacks the cargo feature `tokenizer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this build has no tokenizer: it was made without the cargo feature `tokenizer`")]
pub struct TokenizerMissing;

/// Counts the input of requests: by bytes, or text exactly where that can be done. Cheap to copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenCounter {
    exact: Option<Exact>,
}

impl TokenCounter {
    /// Counts by bytes. Takes microseconds for whatever is sent.
    pub fn by_bytes() -> Self {
        Self::default()
    }

    /// Counts the text of OpenAI's models exactly.
    ///
    /// - `bytes_max`: a request with more text than this is counted by bytes, as is one with a stretch of more than
    ///   4 KiB without a change between letters, digits, signs and white space; no request may burn time at will.
    ///
    /// Takes some tenths of a second the first time in a process, for the tables; never waits for a network.
    ///
    /// # Errors
    /// [`TokenizerMissing`]: build with the cargo feature `tokenizer`, or count by bytes.
    pub fn exact(bytes_max: u64) -> Result<Self, TokenizerMissing> {
        Ok(Self { exact: Some(Exact::try_new(bytes_max)?) })
    }

    /// The input of a chat request sent to `model`.
    ///
    /// Media parts are recognised and never counted as text bytes.
    pub fn chat(&self, request: &ChatRequest, model: &str) -> InputEstimate {
        let mut tally = self.tally(model);
        tally.tokens += PER_MESSAGE; // the answer's beginning
        for message in &request.messages {
            tally.message(message);
        }
        for tool in &request.tools {
            tally.tokens += PER_TOOL;
            tally.unseen |= is_hosted(&tool.kind);
            if let Some(function) = &tool.function {
                tally.text(&function.name);
                tally.text(function.description.as_deref().unwrap_or_default());
                tally.text_bytes += function.parameters.as_ref().map_or(0, json_length);
            }
            tally.text_bytes += tool.extra.values().map(json_length).sum::<u64>();
        }
        tally.text_bytes += request.extra.get("functions").map_or(0, json_length); // older than `tools`, and still taken
        match &request.response_format {
            Some(ResponseFormat::JsonSchema(format)) => {
                tally.text_bytes += format.schema.as_ref().map_or(0, json_length);
            }
            Some(ResponseFormat::Other(value)) => tally.text_bytes += json_length(value),
            _ => {}
        }
        tally.unseen |= says_any(&request.extra, &["search_parameters", "web_search_options"]);
        self.total(tally, model)
    }

    /// The input of an embeddings request sent to `model`; token lists are counted as they are.
    pub fn embeddings(&self, request: &EmbeddingsRequest, model: &str) -> InputEstimate {
        let mut tally = self.tally(model);
        match &request.input {
            EmbeddingsInput::Text(text) => tally.text(text),
            EmbeddingsInput::Texts(texts) => texts.iter().for_each(|text| tally.text(text)),
            EmbeddingsInput::Tokens(tokens) => return counted(tokens.len()),
            EmbeddingsInput::TokenLists(lists) => return counted(lists.iter().map(Vec::len).sum()),
        }
        self.total(tally, model)
    }

    /// The input of a Responses request sent to `model`. What earlier turns on the provider's side add
    /// (`previous_response_id`, `conversation`) cannot be seen from here.
    pub fn responses(&self, request: &ResponsesRequest, model: &str) -> InputEstimate {
        let mut tally = self.tally(model);
        tally.tokens += PER_MESSAGE;
        tally.value(&request.input, "");
        for field in ["instructions", "text"] {
            if let Some(value) = request.extra.get(field) {
                tally.value(value, "");
            }
        }
        if let Some(Value::Array(tools)) = request.extra.get("tools") {
            tally.tokens += PER_TOOL * tools.len() as u64;
            tally.text_bytes += tools.iter().map(json_length).sum::<u64>();
            tally.unseen |= tools.iter().any(|tool| tool["type"].as_str().is_some_and(is_hosted));
        }
        tally.unseen |= says_any(&request.extra, &["previous_response_id", "conversation", "prompt"]);
        self.total(tally, model)
    }

    /// Whether it counts the text of `model` exactly.
    pub fn is_exact(&self, model: &str) -> bool {
        self.exact.is_some_and(|exact| exact.knows(model))
    }

    fn tally<'a>(&self, model: &str) -> Tally<'a> {
        let texts = self.exact.filter(|exact| exact.knows(model)).map(|_| Vec::new());
        Tally { texts, ..Tally::default() }
    }

    fn total(&self, tally: Tally<'_>, model: &str) -> InputEstimate {
        let counted = match (&self.exact, &tally.texts) {
            (Some(exact), Some(texts)) => exact.count(model, texts),
            _ => None,
        };
        let bytes = match (counted, &tally.texts) {
            (Some(_), Some(texts)) => {
                tally.text_bytes - texts.iter().map(|text| text.len() as u64).sum::<u64>()
            }
            _ => tally.text_bytes,
        };
        let framing = tally.tokens + counted.map_or(0, |tokens| tokens + PER_ROLE * tally.messages);
        let kind = match counted {
            _ if tally.unseen => InputKind::Unseen,
            _ if tally.media => InputKind::Media,
            Some(_) => InputKind::Counted,
            None => InputKind::Text,
        };
        InputEstimate { tokens: tokens_of_bytes(bytes, model) + framing, kind }
    }
}

/// Estimates the input tokens of a chat request by bytes, in the tokens of the provider that serves its model. See
/// [`TokenCounter::chat`].
pub fn estimate_input_tokens(request: &ChatRequest) -> u64 {
    TokenCounter::by_bytes().chat(request, &request.model).tokens
}

/// Estimates the input tokens of an embeddings request by bytes; token lists are counted exactly. See
/// [`TokenCounter::embeddings`].
pub fn estimate_embeddings_tokens(request: &EmbeddingsRequest) -> u64 {
    TokenCounter::by_bytes().embeddings(request, &request.model).tokens
}

/// Estimates the input tokens of a Responses request by bytes. See [`TokenCounter::responses`].
pub fn estimate_responses_tokens(request: &ResponsesRequest) -> u64 {
    TokenCounter::by_bytes().responses(request, &request.model).tokens
}

#[derive(Default)]
struct Tally<'a> {
    text_bytes: u64,
    tokens: u64,
    messages: u64,
    media: bool,
    unseen: bool,
    /// The texts behind a part of `text_bytes`, kept where they will be counted exactly.
    texts: Option<Vec<&'a str>>,
}

impl<'a> Tally<'a> {
    fn text(&mut self, text: &'a str) {
        self.text_bytes += text.len() as u64;
        if let Some(texts) = &mut self.texts {
            texts.push(text);
        }
    }

    fn media(&mut self, tokens: u64) {
        self.tokens += tokens;
        self.media = true;
    }

    fn message(&mut self, message: &'a Message) {
        self.tokens += PER_MESSAGE;
        self.messages += 1;
        match &message.content {
            Content::None => {}
            Content::Text(text) => self.text(text),
            Content::Parts(parts) => parts.iter().for_each(|part| self.part(part)),
        }
        self.text(message.name.as_deref().unwrap_or_default());
        self.text(message.refusal.as_deref().unwrap_or_default());
        for call in &message.tool_calls {
            self.tokens += PER_MESSAGE;
            self.text(call.name());
            self.text(call.arguments());
        }
    }

    fn part(&mut self, part: &'a ContentPart) {
        match part {
            ContentPart::Text { text, .. } => self.text(text),
            ContentPart::Refusal { refusal, .. } => self.text(refusal),
            ContentPart::ImageUrl { detail, .. } => self.media(image_tokens(detail.as_deref())),
            ContentPart::InputAudio { data, .. } => {
                self.media(data.len() as u64 / AUDIO_BASE64_BYTES_PER_TOKEN);
            }
            ContentPart::File { file, .. } => self.media(file_tokens(file.get("file_data"))),
            ContentPart::Other(value) => self.value(value, ""),
        }
    }

    /// Walks over JSON of a shape this crate does not know: strings are text unless their place and form say media.
    fn value(&mut self, value: &'a Value, key: &str) {
        match value {
            // Whatever a text begins with, it is text.
            Value::String(text)
                if matches!(key, "" | "arguments" | "content" | "instructions" | "output" | "text") =>
            {
                self.text(text);
            }
            Value::String(text) if matches!(key, "type" | "role" | "id" | "status" | "detail") => {
                self.text_bytes += text.len() as u64 / 2;
            }
            Value::String(_) if key == "image_url" => self.media(PER_IMAGE),
            Value::String(text) if matches!(key, "file_data" | "data") || data_url(text).is_some() => {
                self.media(inline_tokens(data_url(text).map_or("", |(media_type, _)| media_type), text));
            }
            Value::String(text) if matches!(key, "encrypted_content" | "signature") => {
                self.tokens += text.len() as u64 / 4;
            }
            Value::String(_) if matches!(key, "file_id" | "file_url") => self.media(PER_UNSEEN_FILE),
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter().for_each(|item| self.value(item, key)),
            Value::Object(fields) => {
                if fields.contains_key("role") {
                    self.tokens += PER_MESSAGE;
                }
                if let Some(tokens) = media_tokens(fields) {
                    self.media(tokens);
                    return;
                }
                fields.iter().for_each(|(key, value)| self.value(value, key));
            }
            Value::Null | Value::Bool(_) => {}
            Value::Number(_) => self.text_bytes += 3,
        }
    }
}

/// Text of this many bytes, in tokens of the provider that serves `model`.
fn tokens_of_bytes(text_bytes: u64, model: &str) -> u64 {
    let (bytes, tokens) = BYTES_PER_TOKEN;
    let text = (text_bytes * tokens).div_ceil(bytes);
    // In tenths of an o200k token. Source: Anthropic's migration guide, July 2026 (tiktoken undercounts Claude by 15
    // to 20 %, the newer tokenizer takes up to 1.35 times more); Gemini's and Grok's are a cautious guess.
    let tenths = match route(model).map(|route| route.dialect) {
        Some(Dialect::Anthropic) => 16,
        Some(Dialect::Google | Dialect::Grok) => 12,
        Some(Dialect::OpenAi) | None => 10,
    };
    (text * tenths).div_ceil(10)
}

/// A list of tokens is its own count.
fn counted(tokens: usize) -> InputEstimate {
    InputEstimate { tokens: tokens as u64, kind: InputKind::Counted }
}

/// Whether a tool of this kind runs on the provider's side, whose findings become input.
fn is_hosted(kind: &str) -> bool {
    !matches!(kind, "" | "function" | "custom")
}

fn says_any(fields: &Extra, keys: &[&str]) -> bool {
    keys.iter().any(|key| fields.get(*key).is_some_and(|value| !value.is_null()))
}

fn image_tokens(detail: Option<&str>) -> u64 {
    if detail == Some("low") { PER_LOW_DETAIL_IMAGE } else { PER_IMAGE }
}

fn file_tokens(data: Option<&Value>) -> u64 {
    match data.and_then(Value::as_str) {
        Some(data) => inline_tokens(data_url(data).map_or("", |(media_type, _)| media_type), data),
        None => PER_UNSEEN_FILE,
    }
}

/// Media given as base64, by what it is.
fn inline_tokens(media_type: &str, data: &str) -> u64 {
    let size = data.len() as u64;
    match media_type.split('/').next().unwrap_or_default() {
        "image" => PER_IMAGE,
        "audio" => size / AUDIO_BASE64_BYTES_PER_TOKEN,
        _ => size / FILE_BASE64_BYTES_PER_TOKEN,
    }
}

/// The tokens of an object that holds media and says of what kind: Anthropic's `source`, Gemini's `inlineData`, OpenAI's
/// `input_audio`, `input_image` of its Responses API, and images by address.
fn media_tokens(fields: &Extra) -> Option<u64> {
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    if text("image_url").is_some() {
        return Some(image_tokens(text("detail"))); // a part of the Responses API
    }
    let media_type = text("media_type").or_else(|| text("mimeType")).or_else(|| text("mime_type"));
    match (text("data"), media_type, text("format")) {
        (Some(data), Some(media_type), _) => Some(inline_tokens(media_type, data)),
        (Some(data), None, Some("wav" | "mp3")) => Some(inline_tokens("audio/", data)),
        _ if text("type") == Some("url") && text("url").is_some() => Some(PER_UNSEEN_FILE),
        _ => None,
    }
}

/// The length of compact JSON, near enough (escapes are not counted).
pub(crate) fn json_length(value: &Value) -> u64 {
    match value {
        Value::Null => 4,
        Value::Bool(_) => 5,
        Value::Number(_) => 4,
        Value::String(text) => text.len() as u64 + 2,
        Value::Array(items) => 2 + items.iter().map(|item| json_length(item) + 1).sum::<u64>(),
        Value::Object(fields) => {
            2 + fields.iter().map(|(key, value)| key.len() as u64 + 4 + json_length(value)).sum::<u64>()
        }
    }
}
