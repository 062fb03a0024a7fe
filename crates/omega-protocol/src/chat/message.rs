//! One turn of a conversation, as asked and as answered.

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ToolCall;
use crate::Extra;
use crate::open::{open_word, private_debug, read_object};
use crate::provider::openai::{Flavour, WireMessage};

/// One turn of a conversation.
#[derive(Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// The speaker's name, where several share a role.
    pub name: Option<String>,
    /// What the assistant wants called.
    pub tool_calls: Vec<ToolCall>,
    /// The call this message answers; role `tool` only.
    pub tool_call_id: Option<String>,
    /// The assistant's refusal, in place of content.
    pub refusal: Option<String>,
    /// What a reasoning model let be seen of its reasoning.
    pub reasoning_content: Option<String>,
    /// Everything else, as it came. What another vendor must have echoed back (signed thinking, for instance) stands
    /// under [`Message::VENDOR_FIELDS`] and is not sent to anyone else.
    pub extra: Extra,
}

read_object! { Message {
    "role" => role required,
    "content" => content always,
    "name" => name optional,
    "tool_calls" => tool_calls optional,
    "tool_call_id" => tool_call_id optional,
    "refusal" => refusal optional,
    "reasoning_content" => reasoning_content optional,
} }

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WireMessage { message: self, flavour: Flavour::AS_IS }.serialize(serializer)
    }
}

private_debug! { Message {
    role,
    content,
    tool_calls = this.tool_calls.len(),
    extra = this.extra.len(),
} as this }

impl Default for Message {
    fn default() -> Self {
        Self::new(Role::Assistant, Content::None)
    }
}

impl Message {
    /// Keys of `extra` that mean something to one vendor only. OpenAI answers 400 to fields it does not know, so a
    /// conversation that moves between providers must not carry them along.
    pub const VENDOR_FIELDS: [&'static str; 5] =
        ["thinking_blocks", "anthropic", "google", "extra_content", "thought_signature"];

    /// A message of this role.
    pub fn new(role: Role, content: Content) -> Self {
        Self {
            role,
            content,
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            refusal: None,
            reasoning_content: None,
            extra: Extra::new(),
        }
    }

    /// Instructions from the operator.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, Content::Text(text.into()))
    }

    /// What the user says.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, Content::Text(text.into()))
    }

    /// What the user says and shows.
    pub fn user_parts(parts: Vec<ContentPart>) -> Self {
        Self::new(Role::User, Content::Parts(parts))
    }

    /// What the assistant said.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, Content::Text(text.into()))
    }

    /// The answer to a tool call.
    pub fn tool(call_id: impl Into<String>, text: impl Into<String>) -> Self {
        let mut message = Self::new(Role::Tool, Content::Text(text.into()));
        message.tool_call_id = Some(call_id.into());
        message
    }
}

open_word! {
    /// Who speaks.
    Role {
        /// Instructions from the operator (older name).
        System = "system",
        /// Instructions from the operator (OpenAI's newer name).
        Developer = "developer",
        /// The user.
        User = "user",
        /// The model.
        Assistant = "assistant",
        /// The answer to a tool call.
        Tool = "tool",
        /// Deprecated: the answer to a function call.
        Function = "function",
    }
}

/// What a message says.
#[derive(Clone, Default, PartialEq)]
pub enum Content {
    /// Nothing (`null`): an assistant turn that only calls tools.
    #[default]
    None,
    /// Plain text.
    Text(String),
    /// Text, images and other media in order.
    Parts(Vec<ContentPart>),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Parts(parts) => write!(f, "Parts({})", parts.len()),
        }
    }
}

impl Content {
    /// The text, or the first text part; empty if there is none.
    pub fn text(&self) -> &str {
        match self {
            Self::None => "",
            Self::Text(text) => text,
            Self::Parts(parts) => parts.iter().find_map(ContentPart::as_text).unwrap_or_default(),
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_unit(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Parts(parts) => parts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;
        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string, a list of content parts or null")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }
            fn visit_unit<E: Error>(self) -> Result<Content, E> {
                Ok(Content::None)
            }
            fn visit_none<E: Error>(self) -> Result<Content, E> {
                Ok(Content::None)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(ContentVisitor)
    }
}

/// One part of a message's content. `extra` holds fields beside the known ones, such as Anthropic's `cache_control`.
#[derive(Clone, PartialEq)]
pub enum ContentPart {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Everything else, as it came.
        extra: Extra,
    },
    /// An image by address, or inline as a `data:` URL.
    ImageUrl {
        /// `https://…` or `data:image/png;base64,…`.
        url: String,
        /// `auto`, `low`, `high` or `original`.
        detail: Option<String>,
        /// Everything else, as it came; what stood inside `image_url` stands under that name here too.
        extra: Extra,
    },
    /// Sound.
    InputAudio {
        /// Base64.
        data: String,
        /// `wav` or `mp3`.
        format: String,
        /// Everything else, as it came; what stood inside `input_audio` stands under that name here too.
        extra: Extra,
    },
    /// A file: `file_id`, or `file_data` and `filename`.
    File {
        /// The fields of `file`, as they came.
        file: Extra,
        /// Everything else, as it came.
        extra: Extra,
    },
    /// An earlier refusal of the assistant.
    Refusal {
        /// Its text.
        refusal: String,
        /// Everything else, as it came.
        extra: Extra,
    },
    /// A part this crate does not know, whole.
    Other(Value),
}

impl std::fmt::Debug for ContentPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text { text, .. } => write!(f, "Text({} bytes)", text.len()),
            Self::ImageUrl { url, .. } => write!(f, "ImageUrl({} bytes)", url.len()),
            Self::InputAudio { data, .. } => write!(f, "InputAudio({} bytes)", data.len()),
            Self::File { .. } => f.write_str("File"),
            Self::Refusal { refusal, .. } => write!(f, "Refusal({} bytes)", refusal.len()),
            Self::Other(_) => f.write_str("Other"),
        }
    }
}

impl ContentPart {
    /// A text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), extra: Extra::new() }
    }

    /// An image part, by address or as a `data:` URL.
    pub fn image_url(url: impl Into<String>) -> Self {
        Self::ImageUrl { url: url.into(), detail: None, extra: Extra::new() }
    }

    /// Fields beside the known ones; `None` for [`ContentPart::Other`], which is kept whole.
    pub fn extra(&self) -> Option<&Extra> {
        match self {
            Self::Text { extra, .. }
            | Self::ImageUrl { extra, .. }
            | Self::InputAudio { extra, .. }
            | Self::File { extra, .. }
            | Self::Refusal { extra, .. } => Some(extra),
            Self::Other(_) => None,
        }
    }

    /// The same, to change.
    pub fn extra_mut(&mut self) -> Option<&mut Extra> {
        match self {
            Self::Text { extra, .. }
            | Self::ImageUrl { extra, .. }
            | Self::InputAudio { extra, .. }
            | Self::File { extra, .. }
            | Self::Refusal { extra, .. } => Some(extra),
            Self::Other(_) => None,
        }
    }

    /// The text of a text part.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// `{"url", "detail"}`, or the bare address that some clients write.
#[derive(Default)]
struct ImageAddress {
    url: Option<String>,
    detail: Option<String>,
    unknown: Extra,
}

impl<'de> Deserialize<'de> for ImageAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AddressVisitor;
        impl<'de> Visitor<'de> for AddressVisitor {
            type Value = ImageAddress;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with `url`, or a string")
            }
            fn visit_str<E: Error>(self, url: &str) -> Result<ImageAddress, E> {
                Ok(ImageAddress { url: Some(url.to_owned()), ..ImageAddress::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ImageAddress, A::Error> {
                let mut address = ImageAddress::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "url" => address.url = map.next_value()?,
                        "detail" => address.detail = map.next_value()?,
                        _ => {
                            address.unknown.insert(key, map.next_value()?);
                        }
                    }
                }
                Ok(address)
            }
        }
        deserializer.deserialize_any(AddressVisitor)
    }
}

/// A part before its type is known: `type` need not come first.
struct LoosePart {
    kind: String,
    text: Option<String>,
    image_url: Option<ImageAddress>,
    refusal: Option<String>,
    extra: Extra,
}

read_object! { LoosePart {
    "type" => kind required,
    "text" => text optional,
    "image_url" => image_url optional,
    "refusal" => refusal optional,
} }

impl<'de> Deserialize<'de> for ContentPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let LoosePart { kind, text, image_url, refusal, mut extra } = LoosePart::deserialize(deserializer)?;
        match (kind.as_str(), text, image_url, refusal) {
            ("text", Some(text), None, None) => return Ok(Self::Text { text, extra }),
            ("refusal", None, None, Some(refusal)) => return Ok(Self::Refusal { refusal, extra }),
            ("image_url", None, Some(image), None) => {
                let ImageAddress { url, detail, unknown } = image;
                let url = url.ok_or_else(|| D::Error::missing_field("image_url.url"))?;
                keep_inner(&mut extra, "image_url", unknown);
                return Ok(Self::ImageUrl { url, detail, extra });
            }
            ("input_audio", None, None, None) => match extra.shift_remove("input_audio") {
                Some(Value::Object(mut audio)) => {
                    if let (Some(Value::String(data)), Some(Value::String(format))) =
                        (audio.shift_remove("data"), audio.shift_remove("format"))
                    {
                        keep_inner(&mut extra, "input_audio", audio);
                        return Ok(Self::InputAudio { data, format, extra });
                    }
                    return Err(D::Error::custom("`input_audio` needs the strings `data` and `format`"));
                }
                _ => return Err(D::Error::missing_field("input_audio")),
            },
            ("file", None, None, None) => {
                return match extra.shift_remove("file") {
                    Some(Value::Object(file)) => Ok(Self::File { file, extra }),
                    _ => Err(D::Error::missing_field("file")),
                };
            }
            (_, text, image_url, refusal) => {
                // A type of the future may reuse these names.
                for (key, value) in [("text", text), ("refusal", refusal)] {
                    if let Some(value) = value {
                        extra.insert(key.to_owned(), Value::String(value));
                    }
                }
                if let Some(image) = image_url {
                    extra.insert("image_url".to_owned(), image.into_value());
                }
            }
        }
        extra.insert("type".to_owned(), Value::String(kind));
        Ok(Self::Other(Value::Object(extra)))
    }
}

/// Unknown fields of a part's inner object, where the part is written from again.
fn keep_inner(extra: &mut Extra, name: &str, unknown: Extra) {
    if !unknown.is_empty() {
        extra.insert(name.to_owned(), Value::Object(unknown));
    }
}

/// The known fields of a part's inner object, and behind them the unknown ones that [`keep_inner`] kept.
struct Inner<'a> {
    known: [(&'static str, Option<&'a str>); 2],
    unknown: Option<&'a Value>,
}

impl Serialize for Inner<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.known {
            if let Some(value) = value {
                map.serialize_entry(key, value)?;
            }
        }
        for (key, value) in self.unknown.and_then(Value::as_object).into_iter().flatten() {
            if self.known.iter().all(|(known, _)| known != key) {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

impl ImageAddress {
    fn into_value(self) -> Value {
        let mut object = self.unknown;
        for (key, value) in [("url", self.url), ("detail", self.detail)] {
            if let Some(value) = value {
                object.insert(key.to_owned(), Value::String(value));
            }
        }
        Value::Object(object)
    }
}

impl Serialize for ContentPart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let (kind, extra) = match self {
            Self::Text { text, extra } => {
                map.serialize_entry("type", "text")?;
                map.serialize_entry("text", text)?;
                ("text", extra)
            }
            Self::ImageUrl { url, detail, extra } => {
                map.serialize_entry("type", "image_url")?;
                let known = [("url", Some(url.as_str())), ("detail", detail.as_deref())];
                map.serialize_entry("image_url", &Inner { known, unknown: extra.get("image_url") })?;
                ("image_url", extra)
            }
            Self::InputAudio { data, format, extra } => {
                map.serialize_entry("type", "input_audio")?;
                let known = [("data", Some(data.as_str())), ("format", Some(format.as_str()))];
                map.serialize_entry("input_audio", &Inner { known, unknown: extra.get("input_audio") })?;
                ("input_audio", extra)
            }
            Self::File { file, extra } => {
                map.serialize_entry("type", "file")?;
                map.serialize_entry("file", file)?;
                ("file", extra)
            }
            Self::Refusal { refusal, extra } => {
                map.serialize_entry("type", "refusal")?;
                map.serialize_entry("refusal", refusal)?;
                ("refusal", extra)
            }
            Self::Other(value) => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    map.serialize_entry(key, value)?;
                }
                return map.end();
            }
        };
        for (key, value) in extra.iter().filter(|(key, _)| *key != "type" && *key != kind) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
