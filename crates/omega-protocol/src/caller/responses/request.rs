//! From the body of `POST /v1/responses` to a chat request.

use serde_json::Value;

use crate::caller::at::{At, Notation, object};
use crate::caller::content_of;
use crate::{
    ChatRequest, Content, ContentPart, Extra, JsonSchemaFormat, Message, RequestError, ResponseFormat, Role,
    Tool, ToolCall, ToolChoice,
};

const NOT_ELSEWHERE: &str =
    "this provider has only chats; leave it out, or ask for a model of OpenAI's or xAI's";

/// Fields of a request that are read here, or that change nothing of an answer: bookkeeping, hints to a cache, and where
/// OpenAI would keep it (`store` is on unless said otherwise, so that it must not be refused).
const KNOWN: [&str; 30] = [
    "background",
    "fallbacks",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "metadata",
    "model",
    "models",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
    "max_tool_calls",
    "previous_response_id",
    "conversation",
];

/// What needs a memory on the provider's side.
const REMEMBERED: [&str; 3] = ["previous_response_id", "conversation", "max_tool_calls"];

pub(super) fn read(body: &[u8]) -> Result<ChatRequest, RequestError> {
    let value = object(body)?;
    let root = At::root(&value, Notation::Brackets);
    root.only(&KNOWN, NOT_ELSEWHERE)?;
    for name in REMEMBERED {
        let field = root.field(name);
        if !field.is_absent() {
            return Err(field.refused(NOT_ELSEWHERE));
        }
    }
    refuse_promises(&root)?;
    let mut request = ChatRequest {
        model: root.field("model").text()?.unwrap_or_default().to_owned(),
        max_tokens: root.field("max_output_tokens").count()?,
        temperature: root.field("temperature").number()?,
        top_p: root.field("top_p").number()?,
        stream: root.field("stream").switch()?,
        parallel_tool_calls: root.field("parallel_tool_calls").switch()?,
        response_format: format(&root.field("text"))?,
        ..ChatRequest::default()
    };
    let reasoning = root.field("reasoning");
    let effort = reasoning.field("effort");
    if let Some(word) = effort.text()? {
        request.reasoning_effort = serde_json::from_value(word.into()).ok();
    }
    if let Some(text) = root.field("instructions").text()? {
        request.messages.push(Message::system(text));
    }
    read_input(&root.field("input"), &mut request.messages)?;
    for tool in root.field("tools").items()? {
        request.tools.push(read_tool(&tool)?);
    }
    request.tool_choice = choice(&root.field("tool_choice"))?;
    for name in ["user", "safety_identifier"] {
        if let Some(text) = root.field(name).text()? {
            request.extra.insert(name.to_owned(), text.into());
        }
    }
    Ok(request)
}

/// Fields that are known and can be set to what nobody here can give.
fn refuse_promises(root: &At<'_, '_>) -> Result<(), RequestError> {
    let background = root.field("background");
    if background.switch()? == Some(true) {
        return Err(background.refused(NOT_ELSEWHERE));
    }
    let truncation = root.field("truncation");
    if !matches!(truncation.text()?, None | Some("disabled")) {
        return Err(truncation.refused("nobody would shorten the input; leave it out"));
    }
    let logprobs = root.field("top_logprobs");
    if logprobs.count()?.unwrap_or(0) > 0 {
        return Err(logprobs.refused("the answer would have no log probabilities; leave it out"));
    }
    for item in root.field("include").items()? {
        // Of use only to OpenAI's own memory; everything else is data that the answer would lack.
        if item.needed()? != "reasoning.encrypted_content" {
            return Err(item.refused(NOT_ELSEWHERE));
        }
    }
    Ok(())
}

fn read_input(input: &At<'_, '_>, messages: &mut Vec<Message>) -> Result<(), RequestError> {
    if let Value::String(text) = input.value {
        messages.push(Message::user(text.as_str()));
        return Ok(());
    }
    if input.is_absent() {
        return Err(input.refused("it is missing"));
    }
    for item in input.items()? {
        let kind = item.field("type");
        match kind.text()?.unwrap_or("message") {
            "message" => messages.push(message(&item)?),
            "function_call" => add_call(&item, messages)?,
            "function_call_output" => {
                let mut result = Message::tool(item.field("call_id").needed()?, "");
                result.content = content(&item.field("output"))?;
                messages.push(result);
            }
            // Encrypted for OpenAI; nobody else can do anything with it.
            "reasoning" => {}
            _ => return Err(kind.refused(NOT_ELSEWHERE)),
        }
    }
    Ok(())
}

fn message(item: &At<'_, '_>) -> Result<Message, RequestError> {
    let role = item.field("role");
    let role = match role.needed()? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        "developer" => Role::Developer,
        _ => return Err(role.refused("expected user, assistant, system or developer")),
    };
    Ok(Message::new(role, content(&item.field("content"))?))
}

/// A call belongs to the assistant's turn in front of it.
fn add_call(item: &At<'_, '_>, messages: &mut Vec<Message>) -> Result<(), RequestError> {
    let call = ToolCall::function(
        item.field("call_id").needed()?,
        item.field("name").needed()?,
        item.field("arguments").needed()?,
    );
    match messages.last_mut() {
        Some(turn) if turn.role == Role::Assistant => turn.tool_calls.push(call),
        _ => {
            let mut turn = Message::new(Role::Assistant, Content::None);
            turn.tool_calls.push(call);
            messages.push(turn);
        }
    }
    Ok(())
}

fn content(at: &At<'_, '_>) -> Result<Content, RequestError> {
    if let Value::String(text) = at.value {
        return Ok(Content::Text(text.clone()));
    }
    let mut parts = Vec::new();
    for part in at.items()? {
        let kind = part.field("type");
        parts.push(match kind.needed()? {
            "input_text" | "output_text" | "text" => ContentPart::text(part.field("text").needed()?),
            "refusal" => ContentPart::text(part.field("refusal").needed()?),
            "input_image" => {
                let url = part.field("image_url");
                let url =
                    url.text()?.ok_or_else(|| url.refused("it is missing; a stored file is OpenAI's own"))?;
                let detail = part.field("detail").text()?.map(str::to_owned);
                ContentPart::ImageUrl { url: url.to_owned(), detail, extra: Extra::new() }
            }
            "input_file" => {
                let data = part.field("file_data");
                let data = data.text()?.ok_or_else(|| {
                    data.refused("it is missing; a stored file, or one at an address, is OpenAI's own")
                })?;
                let mut file = Extra::new();
                file.insert("filename".to_owned(), part.field("filename").text()?.unwrap_or("file").into());
                file.insert("file_data".to_owned(), data.into());
                ContentPart::File { file, extra: Extra::new() }
            }
            "input_audio" => {
                let audio = part.field("input_audio");
                let (data, format) = (audio.field("data").needed()?, audio.field("format").needed()?);
                ContentPart::InputAudio {
                    data: data.to_owned(),
                    format: format.to_owned(),
                    extra: Extra::new(),
                }
            }
            _ => return Err(kind.refused(NOT_ELSEWHERE)),
        });
    }
    Ok(content_of(parts))
}

fn read_tool(tool: &At<'_, '_>) -> Result<Tool, RequestError> {
    let kind = tool.field("type");
    if kind.needed()? != "function" {
        return Err(kind.refused("only functions of your own can go to another provider"));
    }
    tool.function(tool.field("parameters").copied()?, tool.field("strict").switch()?)
}

fn choice(at: &At<'_, '_>) -> Result<Option<ToolChoice>, RequestError> {
    const EXPECTED: &str = "expected auto, none, required or a function";
    let word = match at.value {
        Value::Null => return Ok(None),
        Value::String(word) => word.as_str(),
        _ => {
            let kind = at.field("type");
            return match kind.needed()? {
                "function" => Ok(Some(ToolChoice::Function(at.field("name").needed()?.to_owned()))),
                _ => Err(kind.refused(EXPECTED)),
            };
        }
    };
    match word {
        "auto" => Ok(Some(ToolChoice::Auto)),
        "none" => Ok(Some(ToolChoice::None)),
        "required" => Ok(Some(ToolChoice::Required)),
        _ => Err(at.refused(EXPECTED)),
    }
}

/// The form of the answer. How wordy it is to be (`verbosity`) is a wish that others need not know.
fn format(text: &At<'_, '_>) -> Result<Option<ResponseFormat>, RequestError> {
    text.only(&["format", "verbosity"], NOT_ELSEWHERE)?;
    let format = text.field("format");
    if format.is_absent() {
        return Ok(None);
    }
    let kind = format.field("type");
    Ok(match kind.needed()? {
        "text" => None,
        "json_object" => Some(ResponseFormat::JsonObject),
        "json_schema" => {
            let schema = format.field("schema");
            if schema.fields()?.is_none() {
                return Err(schema.refused("it is missing"));
            }
            Some(ResponseFormat::JsonSchema(JsonSchemaFormat {
                name: format.field("name").text()?.unwrap_or("answer").to_owned(),
                description: format.field("description").text()?.map(str::to_owned),
                schema: Some(schema.value.clone()),
                strict: format.field("strict").switch()?,
                extra: Extra::new(),
            }))
        }
        _ => return Err(kind.refused("expected text, json_object or json_schema")),
    })
}
