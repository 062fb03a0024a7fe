//! From the messages of a chat request to the instructions and turns of Gemini.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::decode;
use super::encode::{Thinking, field, thinking_of};
use crate::provider::translate::{self, Fields, FileSource};
use crate::{ChatRequest, Content, ContentPart, Dialect, EncodeError, Extra, Message, Role, ToolCall};

/// What stands in for a thought signature on calls that another vendor's model made. Gemini 3 and later refuse the first
/// call of a turn without one, and a conversation that fails over in the middle of a tool loop has none.
///
/// Source: clients of several makers that cite it from Google's documentation of thought signatures, read 2026-11-23;
/// not tried against the service.
const FOREIGN_SIGNATURE: &str = "skip_thought_signature_validator";

/// A turn of the conversation.
#[derive(Serialize)]
pub(super) struct Turn<'a> {
    role: &'static str,
    parts: Vec<Part<'a>>,
    /// Results of calls stand together in one turn, apart from what the user says.
    #[serde(skip)]
    is_results: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Part<'a> {
    Known {
        #[serde(flatten)]
        data: Data<'a>,
        #[serde(rename = "thoughtSignature", skip_serializing_if = "Option::is_none")]
        signature: Option<&'a str>,
        #[serde(flatten)]
        extra: Fields<'a>,
    },
    /// A part of the vendor's own making, as it came.
    Own(&'a Value),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::enum_variant_names, reason = "they are the field names on the wire")]
pub(super) enum Data<'a> {
    Text(&'a str),
    #[serde(rename_all = "camelCase")]
    InlineData {
        mime_type: Cow<'a, str>,
        data: &'a str,
    },
    #[serde(rename_all = "camelCase")]
    FileData {
        #[serde(skip_serializing_if = "Option::is_none")]
        mime_type: Option<&'a str>,
        file_uri: &'a str,
    },
    FunctionCall {
        #[serde(skip_serializing_if = "str::is_empty")]
        id: &'a str,
        name: &'a str,
        args: &'a RawValue,
    },
    FunctionResponse {
        id: &'a str,
        name: &'a str,
        response: Response<'a>,
    },
}

/// What a function gave back: Google wants an object.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Response<'a> {
    Object(&'a RawValue),
    Result { result: Outcome<'a> },
    Error { error: Cow<'a, str> },
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Outcome<'a> {
    Json(&'a RawValue),
    Text(Cow<'a, str>),
}

/// The instructions and the turns.
pub(super) fn conversation(request: &ChatRequest) -> Result<(Vec<Part<'_>>, Vec<Turn<'_>>), EncodeError> {
    let signs_calls = thinking_of(&request.model) == Thinking::Level;
    let mut instructions = Vec::new();
    let mut turns: Vec<Turn<'_>> = Vec::new();
    // OpenAI's results carry the call's id only; Google wants the function's name.
    let mut names: HashMap<&str, &str> = HashMap::new();
    for (at, message) in request.messages.iter().enumerate() {
        let turn = |role, parts| Turn { role, parts, is_results: false };
        let turn = match &message.role {
            Role::System | Role::Developer => {
                let texts = translate::texts(&message.content).map_err(|part| {
                    field(translate::part_field(at, part), "instructions can only be text")
                })?;
                instructions.extend(
                    texts.into_iter().filter_map(|(text, _)| text_part(text, None, Fields::default())),
                );
                continue;
            }
            Role::User => turn("user", parts(at, &message.content, None)?),
            Role::Assistant => {
                names.extend(message.tool_calls.iter().map(|call| (call.id.as_str(), call.name())));
                turn("model", assistant(at, message, signs_calls)?)
            }
            Role::Tool => Turn { role: "user", parts: result(at, message, &names)?, is_results: true },
            Role::Function => {
                return Err(field(
                    format!("messages[{at}].role"),
                    "`function` is older than `tool`, which names its call",
                ));
            }
            Role::Other(role) => {
                return Err(field(
                    format!("messages[{at}].role"),
                    format!("`{role}` is not a role of Gemini"),
                ));
            }
        };
        match turns.last_mut() {
            // The results of parallel calls must stand in one turn, as the calls did.
            Some(last) if last.is_results && turn.is_results => last.parts.extend(turn.parts),
            _ if turn.parts.is_empty() => {}
            _ => turns.push(turn),
        }
    }
    if turns.is_empty() {
        return Err(field(
            "messages",
            "none of them says anything; a conversation needs at least one user message",
        ));
    }
    Ok((instructions, turns))
}

fn text_part<'a>(text: &'a str, signature: Option<&'a str>, extra: Fields<'a>) -> Option<Part<'a>> {
    let says_something = !text.is_empty() || signature.is_some();
    says_something.then_some(Part::Known { data: Data::Text(text), signature, extra })
}

/// - `signature`: of the message's text; it is written on its last text.
fn parts<'a>(
    message: usize,
    content: &'a Content,
    signature: Option<&'a str>,
) -> Result<Vec<Part<'a>>, EncodeError> {
    match content {
        Content::None => Ok(text_part("", signature, Fields::default()).into_iter().collect()),
        Content::Text(text) => Ok(text_part(text, signature, Fields::default()).into_iter().collect()),
        Content::Parts(parts) => {
            let mut known = Vec::with_capacity(parts.len());
            for (at, part) in parts.iter().enumerate() {
                let signature = signature.filter(|_| at + 1 == parts.len());
                let part = part_of(part, signature);
                known.extend(part.map_err(|reason| field(translate::part_field(message, at), reason))?);
            }
            Ok(known)
        }
    }
}

fn part_of<'a>(part: &'a ContentPart, signature: Option<&'a str>) -> Result<Option<Part<'a>>, &'static str> {
    let (data, extra) = match part {
        ContentPart::Text { text, extra } | ContentPart::Refusal { refusal: text, extra } => {
            return Ok(text_part(text, signature, own_fields(extra)));
        }
        ContentPart::ImageUrl { url, extra, .. } => {
            let data = match translate::data_url(url) {
                Some((mime_type, data)) => Data::InlineData { mime_type: mime_type.into(), data },
                None if translate::is_web(url) || url.starts_with("gs://") => file(url),
                None => return Err("an image is an address or a base64 data URL"),
            };
            (data, extra)
        }
        ContentPart::InputAudio { data, format, extra } => {
            (Data::InlineData { mime_type: format!("audio/{format}").into(), data }, extra)
        }
        ContentPart::File { file: fields, extra } => {
            let data = match translate::file_source(fields) {
                Some(FileSource::Stored(uri)) => file(uri),
                Some(FileSource::Inline { media_type, data }) => {
                    Data::InlineData { mime_type: media_type.into(), data }
                }
                None => {
                    return Err(
                        "a file is a `file_id` (Google's file URI) or `file_data` as a base64 data URL",
                    );
                }
            };
            (data, extra)
        }
        ContentPart::Other(_) => return Err("its type is not known, and is not Google's"),
    };
    Ok(Some(Part::Known { data, signature: None, extra: own_fields(extra) }))
}

/// What Google knows beside a part's data; anything else there is another vendor's and would be refused.
fn own_fields(extra: &Extra) -> Fields<'_> {
    Fields::only(
        extra,
        &["mediaResolution", "media_resolution", "partMetadata", "videoMetadata", "video_metadata"],
    )
}

fn file(uri: &str) -> Data<'_> {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let ending = path.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    let mime_type = match ending.as_str() {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "webp" => Some("image/webp"),
        "gif" => Some("image/gif"),
        "heic" => Some("image/heic"),
        "heif" => Some("image/heif"),
        "pdf" => Some("application/pdf"),
        // An address without an ending says its type when it is fetched.
        _ => None,
    };
    Data::FileData { mime_type, file_uri: uri }
}

fn assistant(at: usize, message: &Message, signs_calls: bool) -> Result<Vec<Part<'_>>, EncodeError> {
    let mut said = parts(at, &message.content, decode::signature(&message.extra))?;
    said.extend(message.refusal.as_deref().and_then(|refusal| text_part(refusal, None, Fields::default())));
    said.extend(decode::own_parts(message).map(Part::Own));
    // Of parallel calls only the first is signed.
    let first = message
        .tool_calls
        .first()
        .map(|call| call_signature(call).or(signs_calls.then_some(FOREIGN_SIGNATURE)));
    for (index, call) in message.tool_calls.iter().enumerate() {
        if call.function.is_none() {
            let name = format!("messages[{at}].tool_calls[{index}]");
            return Err(field(name, format!("a call of type `{}` is OpenAI's own", call.kind)));
        }
        said.push(Part::Known {
            data: Data::FunctionCall {
                id: &call.id,
                name: call.name(),
                args: translate::arguments(Dialect::Google, call, at, index)?,
            },
            signature: if index == 0 { first.flatten() } else { call_signature(call) },
            extra: Fields::default(),
        });
    }
    Ok(said)
}

fn call_signature(call: &ToolCall) -> Option<&str> {
    decode::signature(&call.extra)
}

/// The answer to a call, and after it whatever media came with it: a function's response is an object.
fn result<'a>(
    at: usize,
    message: &'a Message,
    names: &HashMap<&str, &'a str>,
) -> Result<Vec<Part<'a>>, EncodeError> {
    let Some(id) = message.tool_call_id.as_deref() else {
        return Err(field(format!("messages[{at}].tool_call_id"), "it is missing; a result names its call"));
    };
    let Some(name) = names.get(id).copied().or(message.name.as_deref()) else {
        let reason = "no earlier assistant message made this call, and Gemini wants the function's name";
        return Err(field(format!("messages[{at}].tool_call_id"), reason));
    };
    let mut text = Cow::Borrowed("");
    let mut media = Vec::new();
    match &message.content {
        Content::None => {}
        Content::Text(whole) => text = Cow::Borrowed(whole),
        Content::Parts(parts) => {
            for (index, part) in parts.iter().enumerate() {
                match part.as_text() {
                    Some(more) if text.is_empty() => text = Cow::Borrowed(more),
                    Some(more) => text.to_mut().push_str(more),
                    None => media.extend(
                        part_of(part, None)
                            .map_err(|reason| field(translate::part_field(at, index), reason))?,
                    ),
                }
            }
        }
    }
    let is_error = message.extra.get("is_error") == Some(&Value::Bool(true));
    let response = match text {
        text if is_error => Response::Error { error: text },
        Cow::Borrowed(text) => {
            match (translate::json_object(text), serde_json::from_str::<&RawValue>(text)) {
                (Some(object), _) => Response::Object(object),
                (None, Ok(json)) => Response::Result { result: Outcome::Json(json) },
                (None, Err(_)) => Response::Result { result: Outcome::Text(Cow::Borrowed(text)) },
            }
        }
        joined => Response::Result { result: Outcome::Text(joined) },
    };
    let data = Data::FunctionResponse { id, name, response };
    let mut parts = vec![Part::Known { data, signature: None, extra: Fields::default() }];
    parts.extend(media);
    Ok(parts)
}
