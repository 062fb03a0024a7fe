//! From the body of `:generateContent` to a chat request.

use serde_json::Value;

use super::schema::json_schema;
use crate::caller::at::{At, Notation, object};
use crate::caller::content_of;
use crate::{
    ChatRequest, Content, ContentPart, Extra, Message, ReasoningEffort, RequestError, ResponseFormat, Role,
    Tool, ToolCall, ToolChoice,
};

const NOT_ELSEWHERE: &str = "only Gemini can be asked for this; leave it out, or ask for a Gemini model";

/// Fields of a request that are read here, or that change nothing of an answer elsewhere (safety settings name Google's
/// own filters; labels are for Google's bill).
const KNOWN: [&str; 18] = [
    "contents",
    "fallbacks",
    "generationConfig",
    "generation_config",
    "labels",
    "model",
    "models",
    "safetySettings",
    "safety_settings",
    "serviceTier",
    "service_tier",
    "store",
    "systemInstruction",
    "system_instruction",
    "toolConfig",
    "tool_config",
    "tools",
    "generateContentRequest",
];

pub(super) fn read(body: &[u8]) -> Result<ChatRequest, RequestError> {
    let value = object(body)?;
    let root = At::root(&value, Notation::Brackets);
    root.only(&KNOWN, NOT_ELSEWHERE)?;
    let mut request = ChatRequest::default();
    generation(&root.either(["generationConfig", "generation_config"]), &mut request)?;
    let system = root.either(["systemInstruction", "system_instruction"]);
    if let Some(text) = instruction(&system)? {
        request.messages.push(Message::system(text));
    }
    let mut calls = Calls::default();
    for turn in root.field("contents").items()? {
        read_turn(&turn, &mut calls, &mut request.messages)?;
    }
    for tool in root.field("tools").items()? {
        tool.only(&["functionDeclarations", "function_declarations"], NOT_ELSEWHERE)?;
        for function in tool.either(["functionDeclarations", "function_declarations"]).items()? {
            request.tools.push(read_function(&function)?);
        }
    }
    request.tool_choice = choice(&root.either(["toolConfig", "tool_config"]))?;
    Ok(request)
}

/// Instructions: a content with text, or (as some clients write it) the text alone.
fn instruction(at: &At<'_, '_>) -> Result<Option<String>, RequestError> {
    if let Value::String(text) = at.value {
        return Ok(Some(text.clone()));
    }
    let mut texts = Vec::new();
    for part in at.field("parts").items()? {
        part.only(&["text"], "instructions are text")?;
        texts.extend(part.field("text").text()?);
    }
    Ok((!texts.is_empty()).then(|| texts.join("\n\n")))
}

/// The calls of the conversation so far, so that results without an id find theirs.
#[derive(Default)]
struct Calls {
    made: usize,
    /// Name and id of those without a result.
    open: Vec<(String, String)>,
}

impl Calls {
    fn made(&mut self, name: &str, id: Option<&str>) -> String {
        self.made += 1;
        let id = id.map_or_else(|| format!("call_{}", self.made), str::to_owned);
        self.open.push((name.to_owned(), id.clone()));
        id
    }

    /// The call that this result is of: by its id, or the first open one of that name.
    fn answered(&mut self, name: &str, id: Option<&str>) -> Option<String> {
        let found = match id {
            Some(id) => self.open.iter().position(|(_, open)| open == id),
            None => self.open.iter().position(|(open, _)| open == name),
        };
        match found {
            Some(at) => Some(self.open.remove(at).1),
            None => id.map(str::to_owned),
        }
    }
}

fn read_turn(turn: &At<'_, '_>, calls: &mut Calls, messages: &mut Vec<Message>) -> Result<(), RequestError> {
    let role = turn.field("role");
    let role = match role.text()? {
        None | Some("user" | "function") => Role::User,
        Some("model") => Role::Assistant,
        Some(_) => return Err(role.refused("expected `user` or `model`")),
    };
    let mut message = Message::new(role, Content::None);
    let mut parts = Vec::new();
    for part in turn.field("parts").items()? {
        let call = part.either(["functionCall", "function_call"]);
        let response = part.either(["functionResponse", "function_response"]);
        if part.field("thought").switch()? == Some(true) {
            // Reasoning that was let be seen: signed for Gemini, and of no use to anybody else.
            continue;
        }
        if !call.is_absent() {
            let name = call.field("name").needed()?;
            let id = calls.made(name, call.field("id").text()?);
            let args = call.field("args");
            let arguments = args.fields()?.map_or_else(|| "{}".to_owned(), |_| args.value.to_string());
            message.tool_calls.push(ToolCall::function(id, name, arguments));
        } else if !response.is_absent() {
            messages.push(result(&response, calls)?);
        } else {
            parts.extend(read_part(&part)?);
        }
    }
    message.content = content_of(parts);
    if message.content != Content::None || !message.tool_calls.is_empty() {
        messages.push(message);
    }
    Ok(())
}

/// What a function gave back. A result that is only a text is that text to anybody else.
fn result(response: &At<'_, '_>, calls: &mut Calls) -> Result<Message, RequestError> {
    let name = response.field("name");
    let id = calls.answered(name.text()?.unwrap_or_default(), response.field("id").text()?);
    let id = id.ok_or_else(|| name.refused("no call of this name is open; name it by its `id`"))?;
    let parts = response.field("parts");
    if parts.items()?.next().is_some() {
        return Err(parts.refused("media in a function's result cannot be sent to another provider"));
    }
    let given = response.field("response");
    let text = match given.fields()? {
        None => String::new(),
        Some(fields) => {
            let only = (fields.len() == 1).then(|| fields.iter().next()).flatten();
            match only {
                Some((key, Value::String(text))) if matches!(key.as_str(), "result" | "output") => {
                    text.clone()
                }
                _ => given.value.to_string(),
            }
        }
    };
    Ok(Message::tool(id, text))
}

fn read_part(part: &At<'_, '_>) -> Result<Option<ContentPart>, RequestError> {
    if let Some(text) = part.field("text").text()? {
        return Ok((!text.is_empty()).then(|| ContentPart::text(text)));
    }
    let inline = part.either(["inlineData", "inline_data"]);
    if !inline.is_absent() {
        return media(&inline).map(Some);
    }
    let file = part.either(["fileData", "file_data"]);
    if !file.is_absent() {
        let uri = file.either(["fileUri", "file_uri"]);
        let kind = file.either(["mimeType", "mime_type"]).text()?.unwrap_or_default();
        let address = uri.needed()?;
        let is_web = address.starts_with("https://") || address.starts_with("http://");
        // Files kept by Google are for Google's eyes; an address of the web is not.
        return match is_web
            && kind.starts_with("image/")
            && !address.contains("generativelanguage.googleapis.com")
        {
            true => Ok(Some(ContentPart::image_url(address))),
            false => Err(uri.refused("only images at an address of the web can be sent to another provider")),
        };
    }
    // A signature alone, or an empty part, says nothing.
    let silent = ["thought", "thoughtSignature", "thought_signature", "videoMetadata", "video_metadata"];
    part.only(&silent, NOT_ELSEWHERE)?;
    Ok(None)
}

fn media(inline: &At<'_, '_>) -> Result<ContentPart, RequestError> {
    let kind = inline.either(["mimeType", "mime_type"]);
    let media_type = kind.needed()?;
    // Google reads base64 in both alphabets; the others only in the older one.
    let data = inline.field("data").needed()?.replace('-', "+").replace('_', "/");
    let url = format!("data:{media_type};base64,{data}");
    match media_type.split('/').next().unwrap_or_default() {
        "image" => Ok(ContentPart::image_url(url)),
        "audio" => {
            let format = match media_type {
                "audio/wav" | "audio/x-wav" | "audio/wave" => "wav",
                "audio/mp3" | "audio/mpeg" => "mp3",
                _ => return Err(kind.refused("only WAV and MP3 can be sent to another provider")),
            };
            Ok(ContentPart::InputAudio { data, format: format.to_owned(), extra: Extra::new() })
        }
        _ if media_type == "application/pdf" => {
            let name = inline.either(["displayName", "display_name"]).text()?.unwrap_or("document.pdf");
            let mut file = Extra::new();
            file.insert("filename".to_owned(), name.into());
            file.insert("file_data".to_owned(), url.into());
            Ok(ContentPart::File { file, extra: Extra::new() })
        }
        _ => Err(kind.refused("only images, WAV, MP3 and PDF can be sent to another provider")),
    }
}

fn read_function(function: &At<'_, '_>) -> Result<Tool, RequestError> {
    let schema = function.either(["parametersJsonSchema", "parameters_json_schema"]);
    let google = function.field("parameters");
    let parameters = match (schema.fields()?, google.fields()?) {
        (Some(_), _) => Some(schema.value.clone()),
        (None, Some(_)) => Some(json_schema(google.value)),
        (None, None) => None,
    };
    function.function(parameters, None)
}

fn choice(config: &At<'_, '_>) -> Result<Option<ToolChoice>, RequestError> {
    let calling = config.either(["functionCallingConfig", "function_calling_config"]);
    let names = calling.either(["allowedFunctionNames", "allowed_function_names"]);
    let mode = calling.field("mode");
    let allowed = names.texts()?;
    Ok(match (mode.text()?, allowed.as_slice()) {
        (None | Some("MODE_UNSPECIFIED"), _) => None,
        (Some("AUTO" | "VALIDATED"), []) => Some(ToolChoice::Auto),
        (Some("NONE"), _) => Some(ToolChoice::None),
        (Some("ANY"), []) => Some(ToolChoice::Required),
        (Some("ANY"), [one]) => Some(ToolChoice::Function(one.clone())),
        (Some("AUTO" | "ANY" | "VALIDATED"), _) => {
            return Err(
                names.refused("other providers are told all functions or one; offer only those in `tools`")
            );
        }
        _ => return Err(mode.refused("expected AUTO, ANY, VALIDATED or NONE")),
    })
}

/// Fields of `generationConfig` that are read here.
const CONFIG: [&str; 32] = [
    "candidateCount",
    "candidate_count",
    "frequencyPenalty",
    "frequency_penalty",
    "maxOutputTokens",
    "max_output_tokens",
    "mediaResolution",
    "media_resolution",
    "presencePenalty",
    "presence_penalty",
    "responseFormat",
    "responseJsonSchema",
    "responseLogprobs",
    "responseMimeType",
    "responseModalities",
    "responseSchema",
    "response_json_schema",
    "response_logprobs",
    "response_mime_type",
    "response_modalities",
    "response_schema",
    "seed",
    "stopSequences",
    "stop_sequences",
    "temperature",
    "thinkingConfig",
    "thinking_config",
    "topK",
    "topP",
    "top_k",
    "top_p",
    "_responseJsonSchema",
];

fn generation(config: &At<'_, '_>, request: &mut ChatRequest) -> Result<(), RequestError> {
    config.only(&CONFIG, NOT_ELSEWHERE)?;
    request.temperature = config.field("temperature").number()?;
    request.top_p = config.either(["topP", "top_p"]).number()?;
    request.max_tokens = config.either(["maxOutputTokens", "max_output_tokens"]).count()?;
    request.stop = config.either(["stopSequences", "stop_sequences"]).texts()?;
    request.seed = config.field("seed").integer()?;
    request.presence_penalty = config.either(["presencePenalty", "presence_penalty"]).number()?;
    request.frequency_penalty = config.either(["frequencyPenalty", "frequency_penalty"]).number()?;
    let count = config.either(["candidateCount", "candidate_count"]);
    request.n = match count.count()? {
        None => None,
        Some(n) => Some(u32::try_from(n).map_err(|_| count.refused("expected a small number"))?),
    };
    if let Some(top_k) = config.either(["topK", "top_k"]).number()? {
        // Written as a number with a fraction by some clients, and whole everywhere else.
        request.extra.insert("top_k".to_owned(), (top_k.max(0.0) as u64).into());
    }
    let modalities = config.either(["responseModalities", "response_modalities"]);
    if modalities.texts()?.iter().any(|kind| !kind.eq_ignore_ascii_case("text")) {
        return Err(modalities.refused("only text can be answered by another provider"));
    }
    let logprobs = config.either(["responseLogprobs", "response_logprobs"]);
    if logprobs.switch()? == Some(true) {
        return Err(logprobs.refused("the answer would have no log probabilities; leave it out"));
    }
    request.response_format = format(config)?;
    request.reasoning_effort = effort(&config.either(["thinkingConfig", "thinking_config"]))?;
    Ok(())
}

fn format(config: &At<'_, '_>) -> Result<Option<ResponseFormat>, RequestError> {
    let plain = config.either(["responseJsonSchema", "response_json_schema"]);
    let inner = config.field("_responseJsonSchema");
    let google = config.either(["responseSchema", "response_schema"]);
    let schema = match (plain.fields()?.or(inner.fields()?), google.fields()?) {
        (Some(fields), _) => Some(Value::Object(fields.clone())),
        (None, Some(_)) => Some(json_schema(google.value)),
        (None, None) => None,
    };
    let kind = config.either(["responseMimeType", "response_mime_type"]);
    Ok(match (kind.text()?, schema) {
        (None | Some("application/json"), Some(schema)) => {
            let mut format = ResponseFormat::json_schema("answer", schema);
            if let ResponseFormat::JsonSchema(format) = &mut format {
                // Google's schemas need not be closed, which is what `strict` means elsewhere.
                format.strict = None;
            }
            Some(format)
        }
        (Some("application/json"), None) => Some(ResponseFormat::JsonObject),
        (None | Some("text/plain"), None) => None,
        _ => return Err(kind.refused("expected `text/plain` or `application/json`")),
    })
}

/// Up to so many tokens of thinking are a low effort, up to so many a medium one: the budgets for which Google's own
/// OpenAI-compatible API stands the words (1K, 8K, 24K), as its makers announced it in 2025.
const LOW: i64 = 1_024;
const MEDIUM: i64 = 8_192;

fn effort(thinking: &At<'_, '_>) -> Result<Option<ReasoningEffort>, RequestError> {
    let level = thinking.either(["thinkingLevel", "thinking_level"]);
    if let Some(word) = level.text()? {
        return Ok(Some(match word.to_ascii_uppercase().as_str() {
            "THINKING_LEVEL_UNSPECIFIED" => return Ok(None),
            "MINIMAL" => ReasoningEffort::Minimal,
            "LOW" => ReasoningEffort::Low,
            "MEDIUM" => ReasoningEffort::Medium,
            "HIGH" => ReasoningEffort::High,
            "XHIGH" => ReasoningEffort::XHigh,
            _ => return Err(level.refused("expected MINIMAL, LOW, MEDIUM, HIGH or XHIGH")),
        }));
    }
    let budget = thinking.either(["thinkingBudget", "thinking_budget"]).integer()?;
    // Below zero: as much as it sees fit.
    Ok(budget.filter(|budget| *budget >= 0).map(|budget| match budget {
        0 => ReasoningEffort::None,
        _ if budget <= LOW => ReasoningEffort::Low,
        _ if budget <= MEDIUM => ReasoningEffort::Medium,
        _ => ReasoningEffort::High,
    }))
}
