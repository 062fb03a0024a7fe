//! From the body of `POST /v1/messages` to a chat request.

use serde_json::Value;

use crate::caller::at::{At, Notation, object};
use crate::caller::content_of;
use crate::{
    ChatRequest, Content, ContentPart, Extra, Message, ReasoningEffort, RequestError, ResponseFormat, Role,
    Tool, ToolCall, ToolChoice,
};

const NOT_ELSEWHERE: &str = "only Anthropic can be asked for this; leave it out, or ask for a Claude model";

/// Fields of a request that are read here; ours to route by, or hints that change nothing of an answer.
const KNOWN: [&str; 20] = [
    "cache_control",
    "fallbacks",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "models",
    "output_config",
    "output_format",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

pub(super) fn read(body: &[u8]) -> Result<ChatRequest, RequestError> {
    let value = object(body)?;
    let root = At::root(&value, Notation::Dots);
    root.only(&KNOWN, NOT_ELSEWHERE)?;
    let mut request = ChatRequest {
        model: root.field("model").text()?.unwrap_or_default().to_owned(),
        max_tokens: root.field("max_tokens").count()?,
        temperature: root.field("temperature").number()?,
        top_p: root.field("top_p").number()?,
        stop: root.field("stop_sequences").texts()?,
        stream: root.field("stream").switch()?,
        reasoning_effort: effort(&root)?,
        response_format: format(&root)?,
        ..ChatRequest::default()
    };
    if let Some(system) = system(&root.field("system"))? {
        request.messages.push(Message::system(system));
    }
    for turn in root.field("messages").items()? {
        read_turn(&turn, &mut request.messages)?;
    }
    for tool in root.field("tools").items()? {
        request.tools.push(read_tool(&tool)?);
    }
    (request.tool_choice, request.parallel_tool_calls) = tool_choice(&root.field("tool_choice"))?;
    let metadata = root.field("metadata");
    if let Some(user) = metadata.field("user_id").text()? {
        request.extra.insert("user".to_owned(), user.into());
    }
    if let Some(top_k) = root.field("top_k").count()? {
        request.extra.insert("top_k".to_owned(), top_k.into());
    }
    Ok(request)
}

/// Instructions are one text or several.
fn system(at: &At<'_, '_>) -> Result<Option<String>, RequestError> {
    if let Value::String(text) = at.value {
        return Ok(Some(text.clone()));
    }
    let mut texts = Vec::new();
    for block in at.items()? {
        match block.field("type").needed()? {
            "text" => texts.push(block.field("text").needed()?),
            _ => return Err(block.field("type").refused("instructions are text")),
        }
    }
    Ok((!texts.is_empty()).then(|| texts.join("\n\n")))
}

fn read_turn(turn: &At<'_, '_>, messages: &mut Vec<Message>) -> Result<(), RequestError> {
    let content = turn.field("content");
    let role = turn.field("role");
    let role = match role.needed()? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        // Instructions in between, as newer versions of the API take them.
        "system" => {
            messages.extend(system(&content)?.map(Message::system));
            return Ok(());
        }
        _ => return Err(role.refused("expected `user` or `assistant`")),
    };
    if let Value::String(text) = content.value {
        messages.push(Message::new(role, Content::Text(text.clone())));
        return Ok(());
    }
    let mut message = Message::new(role, Content::None);
    let mut parts = Vec::new();
    for block in content.items()? {
        let kind = block.field("type");
        match (kind.needed()?, &message.role) {
            ("tool_result", Role::User) => messages.push(tool_result(&block)?),
            ("tool_use", Role::Assistant) => message.tool_calls.push(tool_use(&block)?),
            // Signed for Anthropic; nobody else can do anything with it.
            ("thinking" | "redacted_thinking", Role::Assistant) => {}
            _ => parts.extend(part(&block)?),
        }
    }
    message.content = content_of(parts);
    let says_nothing = message.content == Content::None && message.tool_calls.is_empty();
    if !says_nothing {
        messages.push(message);
    }
    Ok(())
}

/// A block as parts of a message.
fn part(block: &At<'_, '_>) -> Result<Vec<ContentPart>, RequestError> {
    let kind = block.field("type");
    Ok(vec![match kind.needed()? {
        "text" => ContentPart::text(block.field("text").needed()?),
        "image" => {
            let source = block.field("source");
            ContentPart::image_url(match source.field("type").needed()? {
                "base64" => data_url(&source)?,
                "url" => source.field("url").needed()?.to_owned(),
                _ => {
                    return Err(source
                        .field("type")
                        .refused("expected `base64` or `url`: a stored file is Anthropic's own"));
                }
            })
        }
        "document" => return document(block),
        _ => return Err(kind.refused(NOT_ELSEWHERE)),
    }])
}

fn data_url(source: &At<'_, '_>) -> Result<String, RequestError> {
    let media_type = source.field("media_type").needed()?;
    let data = source.field("data").needed()?;
    Ok(format!("data:{media_type};base64,{data}"))
}

fn document(block: &At<'_, '_>) -> Result<Vec<ContentPart>, RequestError> {
    let citations = block.field("citations");
    let cites = citations.field("enabled");
    if cites.switch()? == Some(true) {
        return Err(
            cites.refused("the answer would have no citations; leave it out, or ask for a Claude model")
        );
    }
    let title = block.field("title").text()?;
    let titled = |text: &str| match title {
        Some(title) => format!("{title}\n\n{text}"),
        None => text.to_owned(),
    };
    let source = block.field("source");
    match source.field("type").needed()? {
        "base64" => {
            let mut file = Extra::new();
            file.insert("filename".to_owned(), title.unwrap_or("document.pdf").into());
            file.insert("file_data".to_owned(), data_url(&source)?.into());
            Ok(vec![ContentPart::File { file, extra: Extra::new() }])
        }
        "text" => Ok(vec![ContentPart::text(titled(source.field("data").needed()?))]),
        "content" => {
            let content = source.field("content");
            if let Value::String(text) = content.value {
                return Ok(vec![ContentPart::text(titled(text))]);
            }
            let mut parts: Vec<ContentPart> = title.map(ContentPart::text).into_iter().collect();
            for inner in content.items()? {
                parts.extend(part(&inner)?);
            }
            Ok(parts)
        }
        _ => Err(source.field("type").refused(
            "expected `base64`, `text` or `content`: a document by address or file is Anthropic's own",
        )),
    }
}

fn tool_use(block: &At<'_, '_>) -> Result<ToolCall, RequestError> {
    let input = block.field("input");
    let arguments = match input.fields()? {
        Some(_) => input.value.to_string(),
        None => "{}".to_owned(),
    };
    Ok(ToolCall::function(block.field("id").needed()?, block.field("name").needed()?, arguments))
}

fn tool_result(block: &At<'_, '_>) -> Result<Message, RequestError> {
    let mut message = Message::tool(block.field("tool_use_id").needed()?, "");
    let content = block.field("content");
    let failed = block.field("is_error").switch()? == Some(true);
    message.content = match content.value {
        Value::String(text) => Content::Text(text.clone()),
        _ => {
            let mut parts = Vec::new();
            for inner in content.items()? {
                parts.extend(part(&inner)?);
            }
            match content_of(parts) {
                Content::None => Content::Text(String::new()),
                content => content,
            }
        }
    };
    if failed {
        // Nobody else has a flag for it; the model reads it in the text.
        const MARK: &str = "Error: ";
        match &mut message.content {
            Content::Text(text) => text.insert_str(0, MARK),
            Content::Parts(parts) => parts.insert(0, ContentPart::text(MARK)),
            Content::None => {}
        }
    }
    Ok(message)
}

fn read_tool(tool: &At<'_, '_>) -> Result<Tool, RequestError> {
    let kind = tool.field("type");
    if !matches!(kind.text()?, None | Some("custom")) {
        return Err(kind.refused(
            "a tool that Anthropic's servers run; only tools of your own can go to another provider",
        ));
    }
    tool.function(tool.field("input_schema").copied()?, tool.field("strict").switch()?)
}

/// The choice, and whether several calls in one turn are allowed.
fn tool_choice(at: &At<'_, '_>) -> Result<(Option<ToolChoice>, Option<bool>), RequestError> {
    if at.is_absent() {
        return Ok((None, None));
    }
    let one = at.field("disable_parallel_tool_use").switch()?;
    let choice = match at.field("type").needed()? {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Function(at.field("name").needed()?.to_owned()),
        _ => return Err(at.field("type").refused("expected `auto`, `any`, `tool` or `none`")),
    };
    Ok((Some(choice), one.map(|one| !one)))
}

/// Up to so many tokens of thinking are a low effort, up to so many a medium one. Judgement: the smallest budget there is
/// is 1,024, and 16,000 is what Anthropic's guide begins with for hard problems.
const LOW: u64 = 4_096;
const MEDIUM: u64 = 16_384;

/// How much to reason: said in words, or as a budget.
fn effort(root: &At<'_, '_>) -> Result<Option<ReasoningEffort>, RequestError> {
    let config = root.field("output_config");
    let said = config.field("effort");
    let thinking = root.field("thinking");
    let kind = thinking.field("type");
    let is_off = kind.text()? == Some("disabled");
    if let Some(word) = said.text()?.filter(|_| !is_off) {
        let known = ["low", "medium", "high", "xhigh", "max"];
        return match known.contains(&word) {
            true => Ok(serde_json::from_value(word.into()).ok()),
            false => Err(said.refused("expected low, medium, high, xhigh or max")),
        };
    }
    if thinking.is_absent() {
        return Ok(None);
    }
    match kind.needed()? {
        "disabled" | "adaptive" => Ok(None),
        // Between the two, it thinks only where tools are called; how much is not said.
        "between_tools" => Ok(None),
        "enabled" => {
            let budget = thinking.field("budget_tokens").count()?.unwrap_or(LOW);
            Ok(Some(if budget <= LOW {
                ReasoningEffort::Low
            } else if budget <= MEDIUM {
                ReasoningEffort::Medium
            } else {
                ReasoningEffort::High
            }))
        }
        _ => Err(kind.refused("expected `enabled`, `adaptive` or `disabled`")),
    }
}

/// The form of the answer, under its newer or its older name.
fn format(root: &At<'_, '_>) -> Result<Option<ResponseFormat>, RequestError> {
    let config = root.field("output_config");
    config.only(&["effort", "format"], NOT_ELSEWHERE)?;
    let newer = config.field("format");
    let older = root.field("output_format");
    let format = if newer.is_absent() { older } else { newer };
    if format.is_absent() {
        return Ok(None);
    }
    match format.field("type").needed()? {
        "json_schema" => {
            let schema = format.field("schema");
            match schema.fields()? {
                Some(_) => Ok(Some(ResponseFormat::json_schema("answer", schema.value.clone()))),
                None => Err(schema.refused("it is missing")),
            }
        }
        _ => Err(format.field("type").refused("expected `json_schema`")),
    }
}
