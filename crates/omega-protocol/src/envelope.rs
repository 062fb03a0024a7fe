//! What a gateway must know of a request it passes on untouched: model, stream, limits, fallbacks, and what it weighs.
//!
//! One pass over the body, which keeps nothing of the conversation. What is to be changed is known by its place, so that
//! [`Envelope::rewrite`] can exchange single spans and leave every other byte as the caller wrote it.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use crate::tokens::Weight;
use crate::{CallerProtocol, InputEstimate, ReasoningEffort, RequestError};

/// Fallbacks one request may name. More are a mistake, and each is tried in turn.
const FALLBACKS_MAX: usize = 16;

/// How much of a conversation decides where it goes, in bytes: well inside the 1,024 tokens from which providers begin
/// to cache a prompt. Source: OpenAI and Anthropic prompt caching guides.
const BEGINNING: usize = 2_048;

/// The envelope of one request.
#[derive(Clone, Debug, Default)]
pub struct Envelope {
    /// The model; empty where the protocol names it elsewhere.
    pub model: String,
    /// Whether the caller wants a stream, as far as the body says it.
    pub stream: bool,
    /// The caller's bound on the output in tokens, over all answers it asks for.
    pub max_output_tokens: Option<u64>,
    /// Models to turn to that the request itself names (`fallbacks`, or `models`).
    pub fallbacks: Option<Vec<String>>,
    /// Whether the caller wants the usage at the end of an OpenAI stream.
    pub include_usage: bool,
    /// The effort asked for, where it is said in words.
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Whether the request asks for thinking, where it is said so.
    pub thinking: Option<bool>,
    /// Stands for the beginning of the conversation: equal for requests that a provider's cache would serve alike.
    pub beginning: u64,
    weight: Weight,
    spans: Spans,
}

/// Where in the body stands what may be exchanged.
#[derive(Clone, Debug, Default)]
struct Spans {
    model: Option<Range<usize>>,
    /// Members of the object that are taken out, each from its key to its value.
    removed: Vec<Range<usize>>,
    stream_options: Option<Range<usize>>,
    /// The `{` of the request.
    open: usize,
    is_empty: bool,
}

impl Envelope {
    /// Reads the envelope of a request in this protocol.
    ///
    /// # Errors
    /// The body is not a JSON object, nests deeper than 127 levels, or has a field of the envelope twice or of the wrong
    /// type. Everything else is left for the provider to judge.
    pub fn read(protocol: CallerProtocol, body: &Bytes) -> Result<Self, RequestError> {
        let mut raw = Raw { protocol, seen: Seen::default(), envelope: Self::default(), body: body.as_ref() };
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let read = deserializer.deserialize_map(&mut raw).and_then(|()| deserializer.end());
        if let Err(error) = read {
            return Err(raw.seen.wrong.take().unwrap_or_else(|| unreadable(&error)));
        }
        raw.finish()
    }

    /// The input that `model` would have to read, by bytes.
    pub fn input(&self, model: &str) -> InputEstimate {
        self.weight.estimate(model)
    }

    /// The body as it goes out: another model, without the fields that are meant for the gateway, and with the usage of
    /// an OpenAI stream asked for.
    ///
    /// - `model`: what to write in its place, if the body names one.
    /// - `ask_usage`: set `stream_options.include_usage`. Does nothing where the caller has set it.
    pub fn rewrite(&self, body: &Bytes, model: &str, ask_usage: bool) -> Bytes {
        let spans = &self.spans;
        let mut edits: Vec<(Range<usize>, Cow<'_, str>)> = Vec::new();
        if let Some(span) = spans.model.clone().filter(|_| self.model != model) {
            edits.push((span, serde_json::to_string(model).unwrap_or_default().into()));
        }
        edits.extend(spans.removed.iter().map(|span| (span.clone(), Cow::Borrowed(""))));
        if ask_usage && !self.include_usage {
            edits.push(self.usage_edit(body));
        }
        if edits.is_empty() {
            return body.clone();
        }
        edits.sort_by_key(|(span, _)| (span.start, span.end));
        let grown: usize = edits.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(body.len() + grown);
        let mut at = 0;
        for (span, text) in edits {
            out.extend_from_slice(&body[at..span.start]);
            out.extend_from_slice(text.as_bytes());
            at = span.end;
        }
        out.extend_from_slice(&body[at..]);
        out.into()
    }

    fn usage_edit(&self, body: &[u8]) -> (Range<usize>, Cow<'static, str>) {
        const USAGE: &str = "\"include_usage\":true";
        let Some(span) = self.spans.stream_options.clone() else {
            let at = self.spans.open + 1;
            let comma = if self.spans.is_empty { "" } else { "," };
            return (at..at, format!("\"stream_options\":{{{USAGE}}}{comma}").into());
        };
        // What the caller said of its stream stays, but for the one word.
        let said: serde_json::Value = serde_json::from_slice(&body[span.clone()]).unwrap_or_default();
        let mut options = said.as_object().cloned().unwrap_or_default();
        options.insert("include_usage".to_owned(), true.into());
        (span, serde_json::Value::Object(options).to_string().into())
    }
}

fn unreadable(error: &serde_json::Error) -> RequestError {
    let message = match error.classify() {
        serde_json::error::Category::Data => format!("the request cannot be read: {error}"),
        _ => format!("the body is not valid JSON: {error}"),
    };
    RequestError { field: None, message }
}

/// What the envelope's fields say, as they come.
#[derive(Default)]
struct Seen {
    fallbacks: Option<Vec<String>>,
    models: Option<Vec<String>>,
    max_tokens: Option<u64>,
    answers: Option<u64>,
    keys: Vec<&'static str>,
    /// The error behind serde's, with the field's name.
    wrong: Option<RequestError>,
    members: usize,
}

struct Raw<'b> {
    protocol: CallerProtocol,
    seen: Seen,
    envelope: Envelope,
    body: &'b [u8],
}

impl<'de> Visitor<'de> for &mut Raw<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            self.seen.members += 1;
            self.member(&key.0, &mut map)?;
        }
        Ok(())
    }
}

impl<'de> Raw<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "model" => {
                let raw = self.once::<A>("model", map)?;
                self.envelope.spans.model = Some(self.span(raw));
                self.envelope.model = self.value::<A, _>("model", "a model's name", raw)?;
            }
            "stream" => {
                let raw = self.once::<A>("stream", map)?;
                self.envelope.stream =
                    self.value::<A, Option<bool>>("stream", "true or false", raw)? == Some(true);
            }
            "fallbacks" | "models" => {
                let name = if key == "models" { "models" } else { "fallbacks" };
                let raw = self.once::<A>(name, map)?;
                let names = self.value::<A, Vec<String>>(name, "a list of models", raw)?;
                if names.len() > FALLBACKS_MAX {
                    return self.wrong::<A, _>(name, &format!("names more than {FALLBACKS_MAX} models"));
                }
                let Some(member) = self.member_span(name, raw) else {
                    return self.wrong::<A, _>(name, "write the field's name without escapes");
                };
                self.envelope.spans.removed.push(member);
                if key == "models" {
                    self.seen.models = Some(names)
                } else {
                    self.seen.fallbacks = Some(names)
                }
            }
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                let raw: &RawValue = map.next_value()?;
                // A value of the wrong type is the provider's to refuse; it says so in its own words.
                let tokens = serde_json::from_str::<Option<u64>>(raw.get()).ok().flatten();
                self.seen.max_tokens = tokens.or(self.seen.max_tokens);
            }
            "n" => self.seen.answers = lenient::<A, u64>(map)?,
            "generationConfig" | "generation_config" => self.generation::<A>(map)?,
            "stream_options" => {
                let raw = self.once::<A>("stream_options", map)?;
                self.envelope.spans.stream_options = Some(self.span(raw));
                let options = serde_json::from_str::<Usage>(raw.get()).unwrap_or_default();
                self.envelope.include_usage = options.include_usage == Some(true);
            }
            "reasoning_effort" => self.envelope.reasoning_effort = lenient::<A, ReasoningEffort>(map)?,
            "reasoning" => {
                let reasoning = lenient::<A, Reasoning>(map)?;
                self.envelope.reasoning_effort = reasoning.and_then(|reasoning| reasoning.effort);
            }
            "thinking" => {
                let thinking = lenient::<A, Thinking>(map)?;
                self.envelope.thinking =
                    thinking.map(|thinking| thinking.kind.as_deref() != Some("disabled"));
            }
            "messages" | "input" | "contents" | "system" | "instructions" | "systemInstruction"
            | "system_instruction" | "tools" | "functions" | "response_format" | "text" | "output_config" => {
                let raw: &RawValue = map.next_value()?;
                self.note_beginning(key, raw.get());
                let part = match key {
                    "tools" | "functions" => Part::Tools,
                    "response_format" | "output_config" => Part::Json,
                    _ => Part::Said,
                };
                let weigh = Weigh { weight: &mut self.envelope.weight, key, part };
                let mut read = serde_json::Deserializer::from_str(raw.get());
                weigh.deserialize(&mut read).map_err(A::Error::custom)?;
            }
            "previous_response_id"
            | "conversation"
            | "prompt"
            | "cachedContent"
            | "cached_content"
            | "search_parameters"
            | "web_search_options" => {
                let said = !matches!(map.next_value::<&RawValue>()?.get(), "null");
                self.envelope.weight.unseen |= said;
            }
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }

    fn generation<A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        let config = lenient::<A, Generation>(map)?.unwrap_or_default();
        self.seen.max_tokens = config.max_output_tokens.or(self.seen.max_tokens);
        self.seen.answers = config.candidate_count.or(self.seen.answers);
        if let Some(thinking) = config.thinking {
            self.envelope.thinking = thinking.budget.map(|budget| budget != 0);
        }
        Ok(())
    }

    /// A field that must not come twice: who reads the first and who reads the last would see two requests in one.
    fn once<A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<&'de RawValue, A::Error> {
        if self.seen.keys.contains(&key) {
            return self.wrong::<A, _>(key, "is there twice");
        }
        self.seen.keys.push(key);
        map.next_value()
    }

    fn value<A: MapAccess<'de>, T: Deserialize<'de>>(
        &mut self,
        key: &'static str,
        expected: &str,
        raw: &'de RawValue,
    ) -> Result<T, A::Error> {
        match serde_json::from_str(raw.get()) {
            Ok(value) => Ok(value),
            Err(_) => self.wrong::<A, _>(key, &format!("must be {expected}")),
        }
    }

    fn wrong<A: MapAccess<'de>, T>(&mut self, key: &'static str, what: &str) -> Result<T, A::Error> {
        self.seen.wrong = Some(RequestError::at(key, what));
        Err(A::Error::custom(what))
    }

    /// Where a value stands. Values are borrowed from the body, so their addresses say it.
    fn span(&self, raw: &RawValue) -> Range<usize> {
        let start = raw.get().as_ptr() as usize - self.body.as_ptr() as usize;
        start..start + raw.get().len()
    }

    /// From the key to the end of the value; `None` if the key is not written plainly.
    fn member_span(&self, key: &str, raw: &RawValue) -> Option<Range<usize>> {
        let value = self.span(raw);
        let before = trim_end(&self.body[..value.start]);
        let before = trim_end(before.strip_suffix(b":")?);
        let before = before.strip_suffix(b"\"")?.strip_suffix(key.as_bytes())?.strip_suffix(b"\"")?;
        Some(before.len()..value.end)
    }

    fn note_beginning(&mut self, key: &str, text: &str) {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.envelope.beginning);
        hasher.write(key.as_bytes());
        hasher.write(&text.as_bytes()[..text.len().min(BEGINNING)]);
        self.envelope.beginning = hasher.finish();
    }

    fn finish(mut self) -> Result<Envelope, RequestError> {
        let seen = &mut self.seen;
        let mut envelope = self.envelope;
        if seen.fallbacks.is_some() && seen.models.is_some() {
            return Err(RequestError::at("models", "is another name for `fallbacks`; use one of them"));
        }
        envelope.fallbacks = seen.fallbacks.take().or(seen.models.take());
        envelope.max_output_tokens =
            seen.max_tokens.map(|tokens| tokens.saturating_mul(seen.answers.unwrap_or(1).max(1)));
        let body = self.body;
        envelope.spans.open = body.iter().position(|byte| *byte == b'{').unwrap_or(0);
        envelope.spans.is_empty = seen.members == envelope.spans.removed.len();
        if self.protocol != CallerProtocol::GenerateContent && envelope.model.trim().is_empty() {
            // A missing model is the client's preferred one; an empty one is a mistake.
            if envelope.spans.model.is_some() {
                return Err(RequestError::at("model", "is empty"));
            }
        }
        take_commas(body, &mut envelope.spans.removed);
        Ok(envelope)
    }
}

/// Members that are taken out take one comma with them: the one behind, or the one in front of the last member.
fn take_commas(body: &[u8], removed: &mut [Range<usize>]) {
    removed.sort_by_key(|span| span.start);
    let mut taken_to = 0;
    for span in removed.iter_mut() {
        let behind = body[span.end..].iter().position(|byte| !byte.is_ascii_whitespace());
        match behind.map(|at| span.end + at) {
            Some(at) if body[at] == b',' => span.end = at + 1,
            _ => {
                let before = trim_end(&body[taken_to..span.start]);
                if before.last() == Some(&b',') {
                    span.start = taken_to + before.len() - 1;
                }
            }
        }
        taken_to = span.end;
    }
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_end()
}

/// A value of this shape, or `None` where it is of another: the provider's to refuse.
fn lenient<'de, A: MapAccess<'de>, T: Deserialize<'de>>(map: &mut A) -> Result<Option<T>, A::Error> {
    let raw: &RawValue = map.next_value()?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// A key; borrowed unless it is written with escapes.
struct Key<'k>(Cow<'k, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E: de::Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E: de::Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[derive(Default, Deserialize)]
struct Usage {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Reasoning {
    effort: Option<ReasoningEffort>,
}

#[derive(Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Default, Deserialize)]
struct Generation {
    #[serde(rename = "maxOutputTokens", alias = "max_output_tokens")]
    max_output_tokens: Option<u64>,
    #[serde(rename = "candidateCount", alias = "candidate_count")]
    candidate_count: Option<u64>,
    #[serde(rename = "thinkingConfig", alias = "thinking_config")]
    thinking: Option<ThinkingConfig>,
}

#[derive(Deserialize)]
struct ThinkingConfig {
    #[serde(rename = "thinkingBudget", alias = "thinking_budget")]
    budget: Option<i64>,
}

/// Walks over a field and adds up what it weighs, without building anything.
pub(crate) struct Weigh<'w, 'k> {
    pub(crate) weight: &'w mut Weight,
    /// The key under which the value stands.
    pub(crate) key: &'k str,
    pub(crate) part: Part,
}

/// What a part of a request is, to the one who counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Something said: text and media, and names around them that cost next to nothing.
    Said,
    /// The list of tools.
    Tools,
    /// A tool of the list.
    Tool,
    /// JSON that the model reads as it stands: schemas, arguments.
    Json,
}

impl Part {
    /// What stands in it under `key`.
    fn under(self, key: &str) -> Self {
        const AS_IT_STANDS: &[&str] = &["args", "input", "json_schema", "response", "schema"];
        match self {
            Self::Said if AS_IT_STANDS.contains(&key) => Self::Json,
            // Gemini lists its functions inside one tool.
            Self::Tool if matches!(key, "functionDeclarations" | "function_declarations") => Self::Tools,
            Self::Tool if matches!(key, "function" | "name" | "description") => Self::Tool,
            Self::Tools | Self::Tool => Self::Json,
            part => part,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Weigh<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigh<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match self.part {
            Part::Said => self.weight.string(self.key, text),
            _ => self.weight.json(text.len() as u64 + 2),
        }
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.scalar();
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.scalar();
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.scalar();
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.scalar();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { weight, key, part } = self;
        let part = if part == Part::Tools { Part::Tool } else { part };
        while seq.next_element_seed(Weigh { weight, key, part })?.is_some() {
            match part {
                Part::Tool => weight.tool(),
                Part::Json => weight.json(1),
                Part::Said | Part::Tools => {}
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { weight, part, .. } = self;
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            match (part, &*key) {
                (Part::Said, "role") => weight.message(),
                (Part::Said, _) => {}
                (Part::Tool, "type") => {
                    let kind: Cow<'de, str> = map.next_value()?;
                    weight.kind_of_tool(&kind);
                    continue;
                }
                (Part::Tool, "googleSearch" | "google_search" | "urlContext" | "url_context") => {
                    weight.unseen = true;
                }
                (Part::Tool | Part::Tools, _) => {}
                (Part::Json, _) => weight.json(key.len() as u64 + 4),
            }
            map.next_value_seed(Weigh { weight, key: &key, part: part.under(&key) })?;
        }
        Ok(())
    }
}

impl Weigh<'_, '_> {
    fn scalar(self) {
        if self.part != Part::Said {
            self.weight.json(4);
        }
    }
}

#[cfg(test)]
mod tests;
