//! What the encoders of vendors that do not speak like OpenAI share: which of OpenAI's request fields can be left out
//! there, which cannot, and how media and tool arguments are taken apart. What only one vendor does stands in its file.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{ChatRequest, Content, ContentPart, Dialect, EncodeError, Extra, Tool, ToolCall, ToolChoice};

/// OpenAI's request fields that can be left out without changing what is answered: bookkeeping, cache hints, speed
/// hints, and what the caller asked of its own connection.
///
/// Source: the request type of `openai` 3.54.0, read 2026-11-23.
const HARMLESS: &[&str] = &[
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
    "user",
    "verbosity",
];

/// OpenAI's request fields that promise something no other vendor gives: data in the answer, or another kind of answer.
const PROMISES: &[(&str, &str)] = &[
    ("audio", "the answer would have no sound; leave it out or ask OpenAI"),
    ("function_call", "this form is older than `tools`; use `tool_choice`"),
    ("functions", "this form is older than `tools`; use `tools`"),
    ("logit_bias", "its token numbers mean something to OpenAI's tokenizers only; leave it out"),
    ("logprobs", "the answer would have no log probabilities; leave it out or ask OpenAI"),
    ("modalities", "only text can be answered; leave it out"),
    ("moderation", "nothing would be moderated; leave it out or ask OpenAI"),
    ("top_logprobs", "the answer would have no log probabilities; leave it out or ask OpenAI"),
    ("web_search_options", "offer the vendor's own search tool in `tools` instead"),
];

/// The fields of `extra` that go on to the vendor as they came.
///
/// - `not_ours`: fields that mean something to another vendor, or that the caller of this function handles itself. A
///   conversation may move between providers with its request unchanged, so these are left out, not refused.
///
/// # Errors
/// A field that promises what this vendor cannot give is set to more than its neutral value.
pub(super) fn passed_on<'a>(
    dialect: Dialect,
    request: &'a ChatRequest,
    not_ours: &[&str],
) -> Result<Fields<'a>, EncodeError> {
    let mut fields = Vec::new();
    for (key, value) in &request.extra {
        if HARMLESS.contains(&key.as_str()) || not_ours.contains(&key.as_str()) || value.is_null() {
            continue;
        }
        match PROMISES.iter().find(|(name, _)| name == key) {
            Some(_) if is_neutral(key, value) => {}
            Some((name, reason)) => return Err(EncodeError::field(dialect, *name, *reason)),
            None => fields.push((key.as_str(), value)),
        }
    }
    Ok(Fields(fields))
}

/// Whether a promise is not asked for after all: `false`, `0`, empty, or the vendor's only choice.
fn is_neutral(key: &str, value: &Value) -> bool {
    match value {
        Value::Bool(asked) => !asked,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(list) => list.iter().all(|item| key == "modalities" && item == "text"),
        Value::Object(object) => object.is_empty() && key != "web_search_options",
        Value::String(word) => word == "none" || word == "auto",
        Value::Null => true,
    }
}

/// Borrowed fields of an open object, for `#[serde(flatten)]`.
#[derive(Default)]
pub(super) struct Fields<'a>(Vec<(&'a str, &'a Value)>);

impl<'a> Fields<'a> {
    /// The fields of `extra` but for these.
    pub(super) fn except(extra: &'a Extra, not: &[&str]) -> Self {
        Self(
            extra
                .iter()
                .map(|(key, value)| (key.as_str(), value))
                .filter(|(key, _)| !not.contains(key))
                .collect(),
        )
    }

    /// These fields of `extra`.
    pub(super) fn only(extra: &'a Extra, names: &[&str]) -> Self {
        Self(
            extra
                .iter()
                .map(|(key, value)| (key.as_str(), value))
                .filter(|(key, _)| names.contains(key))
                .collect(),
        )
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// The media type and the base64 of a `data:` URL. `None` for another URL, and for data that are not base64.
pub(crate) fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = strip_prefix_ignore_case(url, "data:")?.split_once(',')?;
    let mut parameters = head.split(';');
    let media_type = parameters.next().unwrap_or_default().trim();
    parameters
        .any(|parameter| parameter.trim().eq_ignore_ascii_case("base64"))
        .then_some((if media_type.is_empty() { "text/plain" } else { media_type }, data))
}

/// Whether a URL is one a provider can fetch.
pub(super) fn is_web(url: &str) -> bool {
    strip_prefix_ignore_case(url, "https://").or_else(|| strip_prefix_ignore_case(url, "http://")).is_some()
}

pub(super) fn strip_prefix_ignore_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// Text that is a JSON object, to be written as it stands.
pub(super) fn json_object(text: &str) -> Option<&RawValue> {
    let text = text.trim();
    if text.starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// The arguments of a call as the JSON object that vendors other than OpenAI want. No arguments are `{}`.
///
/// # Errors
/// The model wrote something else, and the caller sent it back unrepaired.
pub(super) fn arguments(
    dialect: Dialect,
    call: &ToolCall,
    message: usize,
    index: usize,
) -> Result<&RawValue, EncodeError> {
    let text = call.arguments().trim();
    json_object(if text.is_empty() { "{}" } else { text }).ok_or_else(|| {
        let field = format!("messages[{message}].tool_calls[{index}].function.arguments");
        EncodeError::field(dialect, field, "they must be a JSON object; repair or remove the call")
    })
}

/// JSON as it was written but for the white space between its tokens: order and digits stay, an answer's indentation
/// does not travel on inside a call's arguments.
pub(super) fn compact(json: &RawValue) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let is_kept = |letter: &char| {
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        in_string || !letter.is_ascii_whitespace()
    };
    json.get().chars().filter(is_kept).collect()
}

/// The plain texts of a message, or the index of the first part that is none.
pub(super) fn texts(content: &Content) -> Result<Vec<(&str, Option<&Extra>)>, usize> {
    match content {
        Content::None => Ok(Vec::new()),
        Content::Text(text) => Ok(vec![(text, None)]),
        Content::Parts(parts) => parts
            .iter()
            .enumerate()
            .map(|(at, part)| match part {
                ContentPart::Text { text, extra } => Ok((text.as_str(), Some(extra))),
                ContentPart::Refusal { refusal, extra } => Ok((refusal.as_str(), Some(extra))),
                _ => Err(at),
            })
            .collect(),
    }
}

/// What `tool_choice` asks, in words every vendor has, and the tools that remain.
pub(super) struct Choice<'a> {
    pub(super) mode: Mode<'a>,
    pub(super) tools: Vec<(usize, &'a Tool)>,
}

/// Whether the model must, may or must not call something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode<'a> {
    /// Not said.
    Unsaid,
    None,
    Auto,
    Required,
    Function(&'a str),
    /// A vendor's own object, to be checked by its encoder.
    Own(&'a Value),
}

/// Takes `tools` and `tool_choice` apart. OpenAI's `allowed_tools` has no equivalent elsewhere, but offering only the
/// tools that are allowed says the same.
pub(super) fn choice(request: &ChatRequest) -> Choice<'_> {
    let tools = request.tools.iter().enumerate().collect();
    let mode = match &request.tool_choice {
        None => Mode::Unsaid,
        Some(ToolChoice::None) => Mode::None,
        Some(ToolChoice::Auto) => Mode::Auto,
        Some(ToolChoice::Required) => Mode::Required,
        Some(ToolChoice::Function(name)) => Mode::Function(name),
        Some(ToolChoice::Other(value)) if value["type"] == "allowed_tools" => return allowed(value, tools),
        Some(ToolChoice::Other(value)) => Mode::Own(value),
    };
    Choice { mode, tools }
}

fn allowed<'a>(value: &'a Value, tools: Vec<(usize, &'a Tool)>) -> Choice<'a> {
    // Chat Completions nests the list under the type's name; the Responses API does not.
    let list = value.get("allowed_tools").filter(|nested| nested.is_object()).unwrap_or(value);
    let names: Vec<&str> = list["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|tool| tool.pointer("/function/name").or_else(|| tool.get("name"))?.as_str())
        .collect();
    let is_allowed =
        |tool: &Tool| tool.function.as_ref().is_some_and(|function| names.contains(&function.name.as_str()));
    let tools = tools.into_iter().filter(|(_, tool)| is_allowed(tool)).collect();
    Choice { mode: if list["mode"] == "required" { Mode::Required } else { Mode::Auto }, tools }
}

/// A file part's content: `file_data` as a `data:` URL, or the vendor's own `file_id`.
pub(super) enum FileSource<'a> {
    Inline { media_type: &'a str, data: &'a str },
    Stored(&'a str),
}

/// Where the content of a file part is; `None` if it says neither or in another form.
pub(super) fn file_source(file: &Extra) -> Option<FileSource<'_>> {
    if let Some(id) = file.get("file_id").and_then(Value::as_str) {
        return Some(FileSource::Stored(id));
    }
    let (media_type, data) = data_url(file.get("file_data")?.as_str()?)?;
    Some(FileSource::Inline { media_type, data })
}

/// `messages[3].content[1]`, as errors name a part.
pub(super) fn part_field(message: usize, part: usize) -> Cow<'static, str> {
    format!("messages[{message}].content[{part}]").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_are_taken_apart_and_other_urls_left_alone() {
        assert_eq!(data_url("data:image/png;base64,AAAA"), Some(("image/png", "AAAA")));
        assert_eq!(data_url("DATA:text/plain;charset=utf-8;BASE64,QQ=="), Some(("text/plain", "QQ==")));
        assert_eq!(data_url("data:;base64,QQ=="), Some(("text/plain", "QQ==")));
        assert_eq!(data_url("data:text/plain,hello"), None, "percent-encoded, not base64");
        assert_eq!(data_url("https://example.com/a.png"), None);
        assert_eq!(data_url("data:"), None);
        assert_eq!(data_url("dätä"), None);
    }

    #[test]
    fn white_space_goes_between_tokens_and_stays_in_texts() {
        for (written, compacted) in [
            (
                "{\n  \"b\" : [ 1.0,\t2e5 ] ,\r\n \"a b\":\" x \\\" y \\\\\" }",
                r#"{"b":[1.0,2e5],"a b":" x \" y \\"}"#,
            ),
            ("{ }", "{}"),
            ("null", "null"),
        ] {
            let raw: &RawValue = serde_json::from_str(written).expect("it is JSON");
            assert_eq!(compact(raw), compacted);
        }
    }

    #[test]
    fn neutral_promises_are_left_out_and_real_ones_refused() {
        let dialect = Dialect::Anthropic;
        let neutral = ChatRequest::new("m", [])
            .extra("logprobs", false)
            .extra("top_logprobs", 0)
            .extra("logit_bias", serde_json::json!({}))
            .extra("modalities", serde_json::json!(["text"]))
            .extra("store", true);
        assert!(passed_on(dialect, &neutral, &[]).expect("nothing is asked").is_empty());
        for (field, value) in [
            ("logprobs", serde_json::json!(true)),
            ("logit_bias", serde_json::json!({"50256": -100})),
            ("modalities", serde_json::json!(["text", "audio"])),
            ("audio", serde_json::json!({"voice": "alloy"})),
            ("web_search_options", serde_json::json!({})),
            ("functions", serde_json::json!([{"name": "f"}])),
            ("function_call", serde_json::json!({"name": "f"})),
        ] {
            let request = ChatRequest::new("m", []).extra(field, value);
            let error = passed_on(dialect, &request, &[]).err().expect(field).to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }
}
