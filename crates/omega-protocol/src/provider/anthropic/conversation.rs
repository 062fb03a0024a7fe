//! From the messages of a chat request to the instructions and turns of Messages.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::decode;
use super::encode::field;
use crate::provider::translate::{self, Fields, FileSource};
use crate::{ChatRequest, Content, ContentPart, Dialect, EncodeError, Extra, Message, ResponseFormat, Role};

/// Told to the model when any JSON object is asked for: Messages can enforce a schema, but not "some object".
const JSON_OBJECT_INSTRUCTION: &str =
    "Answer with exactly one valid JSON object: no text before or after it, and no code fence around it.";

/// Fields of a part that this file writes itself or that are another vendor's.
const NOT_IN_BLOCKS: &[&str] = &[
    "extra_content",
    "image_url",
    "input_audio",
    "mediaResolution",
    "media_resolution",
    "source",
    "text",
    "thought_signature",
    "title",
    "type",
    "videoMetadata",
    "video_metadata",
];

/// A turn of the conversation.
#[derive(Serialize)]
pub(super) struct Turn<'a> {
    role: &'static str,
    content: Blocks<'a>,
}

/// Content of a turn; a single plain text is written as a string.
#[derive(Default)]
pub(super) struct Blocks<'a>(Vec<Block<'a>>);

impl Blocks<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Blocks<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [Block::Typed(Typed::Text { text, extra })] if extra.is_empty() => serializer.serialize_str(text),
            blocks => blocks.serialize(serializer),
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Block<'a> {
    Typed(Typed<'a>),
    /// A block of the vendor's own making, as it came.
    Own(&'a Value),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Typed<'a> {
    Text {
        text: &'a str,
        #[serde(flatten)]
        extra: Fields<'a>,
    },
    Image {
        source: Source<'a>,
        #[serde(flatten)]
        extra: Fields<'a>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
        #[serde(flatten)]
        extra: Fields<'a>,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: &'a RawValue,
        #[serde(flatten)]
        extra: Fields<'a>,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: Blocks<'a>,
        #[serde(flatten)]
        extra: Fields<'a>,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
    File { file_id: &'a str },
}

/// The instructions and the turns. Consecutive messages of one role become one turn, as the provider would make them;
/// the results of parallel calls must stand in one.
pub(super) fn conversation(request: &ChatRequest) -> Result<(Blocks<'_>, Vec<Turn<'_>>), EncodeError> {
    let mut system = Vec::new();
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for (at, message) in request.messages.iter().enumerate() {
        let (role, blocks) = match &message.role {
            Role::System | Role::Developer => {
                let texts = translate::texts(&message.content).map_err(|part| {
                    field(translate::part_field(at, part), "instructions can only be text")
                })?;
                system.extend(texts.into_iter().filter_map(|(text, extra)| text_block(text, extra)));
                continue;
            }
            Role::User => ("user", parts(at, &message.content)?),
            Role::Assistant => ("assistant", assistant(at, message)?),
            Role::Tool => ("user", vec![tool_result(at, message)?]),
            Role::Function => {
                return Err(field(
                    format!("messages[{at}].role"),
                    "`function` is older than `tool`, which names its call",
                ));
            }
            Role::Other(role) => {
                return Err(field(
                    format!("messages[{at}].role"),
                    format!("`{role}` is not a role of Messages"),
                ));
            }
        };
        if blocks.is_empty() {
            continue; // empty texts are refused there, and say nothing
        }
        match turns.last_mut() {
            Some(turn) if turn.role == role => turn.content.0.extend(blocks),
            _ => turns.push(Turn { role, content: Blocks(blocks) }),
        }
    }
    if turns.is_empty() {
        return Err(field(
            "messages",
            "none of them says anything; a conversation needs at least one user message",
        ));
    }
    if request.response_format == Some(ResponseFormat::JsonObject) {
        system.extend(text_block(JSON_OBJECT_INSTRUCTION, None));
    }
    Ok((Blocks(system), turns))
}

fn text_block<'a>(text: &'a str, extra: Option<&'a Extra>) -> Option<Block<'a>> {
    let extra = extra.map(|extra| Fields::except(extra, NOT_IN_BLOCKS)).unwrap_or_default();
    (!text.is_empty()).then_some(Block::Typed(Typed::Text { text, extra }))
}

fn parts(message: usize, content: &Content) -> Result<Vec<Block<'_>>, EncodeError> {
    match content {
        Content::None => Ok(Vec::new()),
        Content::Text(text) => Ok(text_block(text, None).into_iter().collect()),
        Content::Parts(parts) => {
            let mut blocks = Vec::with_capacity(parts.len());
            for (at, part) in parts.iter().enumerate() {
                blocks.extend(
                    part_block(part).map_err(|reason| field(translate::part_field(message, at), reason))?,
                );
            }
            Ok(blocks)
        }
    }
}

fn part_block(part: &ContentPart) -> Result<Option<Block<'_>>, &'static str> {
    let block = match part {
        ContentPart::Text { text, extra } | ContentPart::Refusal { refusal: text, extra } => {
            return Ok(text_block(text, Some(extra)));
        }
        ContentPart::ImageUrl { url, extra, .. } => {
            let extra = Fields::except(extra, NOT_IN_BLOCKS);
            match translate::data_url(url) {
                Some((media_type, data)) => inline(media_type, data, None, extra)?,
                None if translate::is_web(url) => Typed::Image { source: Source::Url { url }, extra },
                None => return Err("an image is an http(s) address or a base64 data URL"),
            }
        }
        ContentPart::File { file, extra } => {
            let extra = Fields::except(extra, NOT_IN_BLOCKS);
            let title = file.get("filename").and_then(Value::as_str);
            match translate::file_source(file) {
                Some(FileSource::Stored(file_id)) => {
                    Typed::Document { source: Source::File { file_id }, title, extra }
                }
                Some(FileSource::Inline { media_type, data }) => inline(media_type, data, title, extra)?,
                None => {
                    return Err("a file is a `file_id` of Anthropic's or `file_data` as a base64 data URL");
                }
            }
        }
        ContentPart::InputAudio { .. } => return Err("Claude does not listen; send a transcript"),
        ContentPart::Other(own) => return Ok(Some(Block::Own(own))),
    };
    Ok(Some(Block::Typed(block)))
}

/// Media given as data: which block it is depends on what it is, whatever part it came in.
///
/// Source: the block types of `anthropic` 2.12.0, read 2026-11-23.
fn inline<'a>(
    media_type: &'a str,
    data: &'a str,
    title: Option<&'a str>,
    extra: Fields<'a>,
) -> Result<Typed<'a>, &'static str> {
    let source = Source::Base64 { media_type, data };
    match media_type {
        "application/pdf" => Ok(Typed::Document { source, title, extra }),
        image if image.starts_with("image/") => Ok(Typed::Image { source, extra }),
        _ => Err("Claude takes images and PDF files as data; send text as text"),
    }
}

fn assistant(at: usize, message: &Message) -> Result<Vec<Block<'_>>, EncodeError> {
    if let Some(kept) = decode::kept_content(message) {
        return Ok(kept.iter().map(Block::Own).collect());
    }
    let mut blocks: Vec<_> = decode::thinking_blocks(message).map(Block::Own).collect();
    blocks.extend(parts(at, &message.content)?);
    blocks.extend(message.refusal.as_deref().and_then(|refusal| text_block(refusal, None)));
    for (index, call) in message.tool_calls.iter().enumerate() {
        if call.function.is_none() {
            let name = format!("messages[{at}].tool_calls[{index}]");
            return Err(field(name, format!("a call of type `{}` is OpenAI's own", call.kind)));
        }
        blocks.push(Block::Typed(Typed::ToolUse {
            id: &call.id,
            name: call.name(),
            input: translate::arguments(Dialect::Anthropic, call, at, index)?,
            extra: Fields::only(&call.extra, &["cache_control", "caller", "toolset_name"]),
        }));
    }
    Ok(blocks)
}

fn tool_result(at: usize, message: &Message) -> Result<Block<'_>, EncodeError> {
    let Some(tool_use_id) = message.tool_call_id.as_deref() else {
        return Err(field(format!("messages[{at}].tool_call_id"), "it is missing; a result names its call"));
    };
    let content = Blocks(parts(at, &message.content)?);
    let extra = Fields::only(&message.extra, &["cache_control", "is_error", "toolset_name"]);
    Ok(Block::Typed(Typed::ToolResult { tool_use_id, content, extra }))
}
