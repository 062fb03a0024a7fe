//! Anthropic's messages, API versions 2023-06-01 and 2026-10-21.
//!
//! Sources: platform.claude.com (Messages, Streaming, Versions), read 2026-11-23; SDKs `anthropic` 2.12.0 and
//! `@anthropic-ai/sdk` 1.12.0.

use http::HeaderMap;
use serde_json::{Value, json};

use super::chat::{effort_tokens, named_tool};
use super::{Frame, FrameKind, IMAGE_TOKENS, Mint, no_parameters, tools_tokens};
use crate::answer::{Answer, Choice, Finish, Format, Prompt, Tool, ToolChoice, events};
use crate::fields::Fields;
use crate::problem::Problem;
use crate::text;

/// What the answer's form depends on, besides the prompt.
pub(crate) struct MessagesOptions {
    model: String,
}

/// Reads and checks a request.
pub(crate) fn parse(
    model: &str,
    body: &Value,
    headers: &HeaderMap,
) -> Result<(Prompt, MessagesOptions), Problem> {
    let fields = Fields::body(body)?;
    let mut prompt = Prompt::new();
    fields.required("max_tokens")?;
    prompt.max_output = fields.integer("max_tokens")?;
    read(&fields, model, headers, &mut prompt)?;
    prompt.stop = fields.strings("stop_sequences")?;
    prompt.stream = fields.boolean("stream")?.unwrap_or(false);
    thinking(&fields, model, &mut prompt)?;
    Ok((prompt, MessagesOptions { model: model.to_owned() }))
}

/// The input of a request: what is counted, with or without `max_tokens`.
fn read(fields: &Fields<'_>, model: &str, headers: &HeaderMap, prompt: &mut Prompt) -> Result<(), Problem> {
    let new_version = headers.get("anthropic-version").is_some_and(|version| version == "2026-10-21");
    sampling(fields, model, new_version)?;
    prompt.input_tokens = 3;
    prompt.system = system(fields)?;
    prompt.input_tokens += text::count(&prompt.system);
    messages(fields, model, new_version, prompt)?;
    tools(fields, prompt)?;
    if let Some(format) =
        fields.object("output_config")?.map(|config| config.object("format")).transpose()?.flatten()
    {
        format.word("type", &["json_schema"])?;
        format.required("schema")?;
        prompt.format = Format::JsonSchema(format.get("schema").cloned().unwrap_or_default());
    }
    Ok(())
}

/// The number of tokens of a request without `max_tokens`.
pub(crate) fn count(model: &str, body: &Value, headers: &HeaderMap) -> Result<u64, Problem> {
    let fields = Fields::body(body)?;
    let mut prompt = Prompt::new();
    fields.required("model")?;
    read(&fields, model, headers, &mut prompt)?;
    Ok(prompt.input_tokens)
}

/// Models from Opus 4.6 and Sonnet 4.6 on refuse to go on from an assistant message (prefill).
///
/// Source: platform.claude.com, release notes of 2026-02-05, read 2026-11-23.
fn takes_prefill(model: &str) -> bool {
    !is_recent(model)
        && !["claude-opus-4-6", "claude-sonnet-4-6"].iter().any(|newer| model.starts_with(newer))
}

/// Models from Opus 4.7, Sonnet 5 and Fable 5 on refuse sampling parameters and enabled thinking.
fn is_recent(model: &str) -> bool {
    const OLDER: [&str; 9] = [
        "claude-2",
        "claude-3",
        "claude-instant",
        "claude-haiku-4",
        "claude-sonnet-4",
        "claude-opus-4-0",
        "claude-opus-4-1",
        "claude-opus-4-5",
        "claude-opus-4-6",
    ];
    model.starts_with("claude-")
        && !OLDER.iter().any(|older| model.starts_with(older))
        && model != "claude-opus-4"
}

fn sampling(fields: &Fields<'_>, model: &str, new_version: bool) -> Result<(), Problem> {
    for (name, default) in [("temperature", Some(1.0)), ("top_p", None), ("top_k", None)] {
        let Some(value) = fields.number_within(name, 0.0, if name == "top_k" { 1e9 } else { 1.0 })? else {
            continue;
        };
        let refuse = |message: &str| Problem::Unsupported {
            param: name.into(),
            message: message.into(),
            code: "unsupported_parameter",
        };
        if new_version {
            return Err(refuse("Extra inputs are not permitted"));
        }
        if is_recent(model) && default != Some(value) {
            return Err(refuse(&format!("`{name}` is not supported by this model.")));
        }
    }
    Ok(())
}

fn system(fields: &Fields<'_>) -> Result<String, Problem> {
    match fields.get("system") {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(_)) => {
            let blocks = fields.objects("system")?;
            let texts: Result<Vec<&str>, Problem> =
                blocks.iter().map(|block| block.required_string("text")).collect();
            Ok(texts?.join("\n"))
        }
        Some(_) => Err(fields.wrong_type("system", "string")),
    }
}

fn messages(fields: &Fields<'_>, model: &str, new_version: bool, prompt: &mut Prompt) -> Result<(), Problem> {
    fields.required("messages")?;
    let messages = fields.objects("messages")?;
    let invalid = |param: String, message: &str| Problem::InvalidValue { param, message: message.into() };
    if messages.is_empty() {
        return Err(invalid("messages".into(), "at least one message is required"));
    }
    // Tool calls of the turn before: each needs its result at once.
    let mut open: Vec<String> = Vec::new();
    for message in &messages {
        let role = message.required_string("role")?;
        message.word("role", &["user", "assistant", "system"])?;
        message.required("content")?;
        let mut block = Blocks { said: String::new(), calls: Vec::new(), results: Vec::new() };
        blocks(message, role, new_version, prompt, &mut block)?;
        prompt.input_tokens += 3 + text::count(&block.said);
        for (id, _) in &block.results {
            if !open.contains(id) {
                return Err(invalid(
                    message.param("content"),
                    &format!(
                        "unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                    ),
                ));
            }
        }
        if let Some(id) =
            open.iter().find(|id| role != "system" && block.results.iter().all(|(result, _)| result != *id))
        {
            return Err(invalid(
                message.param("content"),
                &format!(
                    "`tool_use` ids were found without `tool_result` blocks immediately after: {id}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
                ),
            ));
        }
        match role {
            "system" => prompt.system.push_str(&block.said),
            "user" => {
                prompt.prefill.clear();
                prompt.tool_results = block.results.into_iter().map(|(_, result)| result).collect();
                if prompt.tool_results.is_empty() || !block.said.is_empty() {
                    prompt.last_user = block.said;
                }
                open.clear();
            }
            _ => {
                prompt.tool_results.clear();
                prompt.prefill = block.said;
                open = block.calls;
            }
        }
    }
    let last = messages.last().and_then(|message| message.get("role")).and_then(Value::as_str);
    if let (Some(last), Some("assistant")) = (messages.last(), last) {
        if let Some(id) = open.first() {
            return Err(invalid(
                last.param("content"),
                &format!("`tool_use` ids were found without `tool_result` blocks immediately after: {id}."),
            ));
        }
        if !takes_prefill(model) {
            return Err(invalid(
                "messages".into(),
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            ));
        }
    }
    Ok(())
}

/// What the blocks of one message hold.
struct Blocks {
    said: String,
    calls: Vec<String>,
    results: Vec<(String, String)>,
}

fn blocks(
    message: &Fields<'_>,
    role: &str,
    new_version: bool,
    prompt: &mut Prompt,
    found: &mut Blocks,
) -> Result<(), Problem> {
    match message.get("content") {
        Some(Value::String(text)) => found.said.push_str(text),
        Some(Value::Array(_)) => {
            for block in message.objects("content")? {
                let kind = block.required_string("type")?;
                let refuse = |message: &str| {
                    Err(Problem::InvalidValue { param: block.param("type"), message: message.into() })
                };
                match kind {
                    "text" => {
                        let cited = block.array("citations")?.is_some_and(|citations| !citations.is_empty());
                        if new_version && role == "user" && cited {
                            return refuse("citations are not permitted on text blocks in user messages");
                        }
                        found.said.push_str(block.required_string("text")?);
                    }
                    "image" => {
                        let source =
                            block.object("source")?.ok_or_else(|| Problem::Missing(block.param("source")))?;
                        source.required("type")?;
                        source.word("type", &["base64", "url", "file"])?;
                        prompt.images += 1;
                        prompt.input_tokens += IMAGE_TOKENS;
                    }
                    "document" if new_version && role == "assistant" => {
                        return refuse("document blocks are not permitted in assistant messages");
                    }
                    "tool_use" if role == "assistant" => {
                        found.calls.push(block.required_string("id")?.to_owned());
                        let input = block.required("input")?;
                        prompt.input_tokens +=
                            text::count(block.required_string("name")?) + text::count(&input.to_string());
                    }
                    "tool_result" if role == "user" => {
                        let id = block.required_string("tool_use_id")?.to_owned();
                        let result = tool_result(&block)?;
                        prompt.input_tokens += text::count(&result);
                        found.results.push((id, result));
                    }
                    "tool_use" | "tool_result" => {
                        return refuse(&format!("`{kind}` blocks are not permitted in {role} messages"));
                    }
                    // Thinking is echoed back unchanged with its signature.
                    "thinking" => {
                        block.required("signature")?;
                        prompt.input_tokens += text::count(block.required_string("thinking")?);
                    }
                    "document"
                    | "redacted_thinking"
                    | "search_result"
                    | "server_tool_use"
                    | "web_search_tool_result" => {
                        prompt.input_tokens += IMAGE_TOKENS;
                    }
                    _ => {
                        return refuse(&format!(
                            "Input tag '{kind}' found using 'type' does not match any of the expected tags"
                        ));
                    }
                }
            }
        }
        _ => return Err(message.wrong_type("content", "string or list of content blocks")),
    }
    Ok(())
}

fn tool_result(block: &Fields<'_>) -> Result<String, Problem> {
    match block.get("content") {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => Ok(parts.iter().filter_map(super::part_text).collect()),
        Some(_) => Err(block.wrong_type("content", "string or list of content blocks")),
    }
}

fn tools(fields: &Fields<'_>, prompt: &mut Prompt) -> Result<(), Problem> {
    for tool in fields.objects("tools")? {
        let name = tool.required_string("name")?.to_owned();
        // Server tools carry a dated type and no schema.
        let own = matches!(tool.string("type")?, None | Some("custom"));
        if own {
            tool.required("input_schema")?;
        }
        let schema = tool.object("input_schema")?.and_then(|_| tool.get("input_schema").cloned());
        prompt.tools.push(Tool { name, schema: schema.unwrap_or_else(no_parameters) });
    }
    prompt.input_tokens += tools_tokens(fields.array("tools")?.map(Vec::as_slice).unwrap_or_default());
    let Some(choice) = fields.object("tool_choice")? else { return Ok(()) };
    let kind = choice.required_string("type")?;
    choice.word("type", &["auto", "any", "tool", "none"])?;
    if prompt.tools.is_empty() && kind != "none" {
        return Err(Problem::InvalidValue {
            param: "tool_choice".into(),
            message: "tool_choice may only be specified while providing tools.".into(),
        });
    }
    prompt.one_tool = choice.boolean("disable_parallel_tool_use")?.unwrap_or(false);
    prompt.tool_choice = match kind {
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => named_tool(choice.required("name")?, prompt)?,
        _ => ToolChoice::Auto,
    };
    Ok(())
}

fn thinking(fields: &Fields<'_>, model: &str, prompt: &mut Prompt) -> Result<(), Problem> {
    let effort = match fields.object("output_config")? {
        Some(config) => config.word("effort", &["low", "medium", "high", "xhigh", "max"])?,
        None => None,
    };
    let Some(thinking) = fields.object("thinking")? else { return Ok(()) };
    let kind = thinking.required_string("type")?;
    thinking.word("type", &["enabled", "adaptive", "between_tools", "disabled"])?;
    let refuse = |name: &str, message: &str| {
        Err(Problem::InvalidValue { param: name.into(), message: message.into() })
    };
    match kind {
        "enabled" if is_recent(model) => {
            refuse("thinking.type", "\"enabled\" is not supported by this model. Use \"adaptive\" instead.")
        }
        "enabled" => {
            thinking.required("budget_tokens")?;
            let budget = thinking.integer("budget_tokens")?.unwrap_or(0);
            if budget < 1_024 {
                return refuse("thinking.budget_tokens", "Input should be greater than or equal to 1024");
            }
            if prompt.max_output.is_some_and(|most| budget >= most) {
                return refuse("max_tokens", "`max_tokens` must be greater than `thinking.budget_tokens`.");
            }
            prompt.reasoning = effort_tokens("medium");
            Ok(())
        }
        "adaptive" => {
            prompt.reasoning = effort_tokens(effort.unwrap_or("high"));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn stop_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::StopSequence(_) => "stop_sequence",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::ContentFilter => "refusal",
    }
}

/// The reason and what belongs to it.
fn stop(finish: &Finish) -> Value {
    let sequence = if let Finish::StopSequence(sequence) = finish { Some(sequence) } else { None };
    let mut stop = json!({"stop_reason": stop_reason(finish), "stop_sequence": sequence});
    if *finish == Finish::ContentFilter {
        stop["stop_details"] =
            json!({"type": "refusal", "category": "policy", "explanation": "Withheld on purpose."});
    }
    stop
}

/// `input_tokens` leaves out what came from the cache; `output_tokens` includes thinking.
fn usage(answer: &Answer) -> Value {
    let usage = &answer.usage;
    json!({
        "input_tokens": usage.input - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.produced(),
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "server_tool_use": null, "service_tier": "standard",
    })
}

impl MessagesOptions {
    /// The body of a whole answer.
    pub(crate) fn whole(&self, answer: &Answer, mint: &mut Mint) -> Value {
        let choice = &answer.choices[0];
        let mut content = Vec::new();
        if !choice.reasoning.is_empty() {
            let signature = mint.id("", 64);
            content.push(json!({"type": "thinking", "thinking": choice.reasoning(), "signature": signature}));
        }
        if !choice.text.is_empty() {
            content.push(json!({"type": "text", "text": choice.text()}));
        }
        for call in &choice.calls {
            // Arguments cut by max_tokens are no JSON; a whole answer shows what could be read, which is nothing.
            let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            content.push(
                json!({"type": "tool_use", "id": mint.id("toolu_", 24), "name": call.name, "input": input}),
            );
        }
        let mut body = json!({
            "id": mint.id("msg_", 24), "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_details": null, "usage": usage(answer),
        });
        if let (Some(body), Some(stop)) = (body.as_object_mut(), stop(&choice.finish).as_object()) {
            body.extend(stop.clone());
        }
        body
    }

    /// The events of a stream.
    pub(crate) fn frames(&self, answer: &Answer, per_event: usize, mint: &mut Mint) -> Vec<Frame> {
        let choice = &answer.choices[0];
        let mut start_usage = usage(answer);
        start_usage["output_tokens"] = 1.into();
        start_usage["output_tokens_details"] = Value::Null;
        let start = json!({"type": "message_start", "message": {
            "id": mint.id("msg_", 24), "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": start_usage}});
        let mut stream = BlockStream { frames: vec![Frame::named(FrameKind::Preamble, 0, &start)], index: 0 };
        blocks_of(choice, per_event, mint, &mut stream);
        let mut frames = stream.frames;
        let mut delta = json!({"type": "message_delta", "delta": stop(&choice.finish)});
        delta["usage"] = usage(answer);
        frames.push(Frame::named(FrameKind::Finish, 0, &delta));
        frames.push(Frame::named(FrameKind::Terminator, 0, &json!({"type": "message_stop"})));
        frames
    }
}

fn blocks_of(choice: &Choice, per_event: usize, mint: &mut Mint, stream: &mut BlockStream) {
    if !choice.reasoning.is_empty() {
        stream.open(json!({"type": "thinking", "thinking": "", "signature": ""}));
        for (said, tokens) in events(&choice.reasoning, per_event) {
            stream.delta(json!({"type": "thinking_delta", "thinking": said}), tokens);
        }
        stream.delta(json!({"type": "signature_delta", "signature": mint.id("", 64)}), 0);
        stream.close();
    }
    if !choice.text.is_empty() {
        stream.open(json!({"type": "text", "text": ""}));
        for (said, tokens) in events(&choice.text, per_event) {
            stream.delta(json!({"type": "text_delta", "text": said}), tokens);
        }
        stream.close();
    }
    for call in &choice.calls {
        stream.open(json!({"type": "tool_use", "id": mint.id("toolu_", 24), "name": call.name, "input": {}}));
        // The first fragment is empty, as the real service sends it.
        stream.delta(json!({"type": "input_json_delta", "partial_json": ""}), text::count(&call.name) as u32);
        let fragments: Vec<String> = text::tokens(&call.arguments).map(str::to_owned).collect();
        for (part, tokens) in events(&fragments, per_event) {
            stream.delta(json!({"type": "input_json_delta", "partial_json": part}), tokens);
        }
        stream.close();
    }
}

/// Content blocks as they are sent, one after the other.
struct BlockStream {
    frames: Vec<Frame>,
    index: usize,
}

impl BlockStream {
    fn open(&mut self, block: Value) {
        let kind = if self.index == 0 { FrameKind::Preamble } else { FrameKind::Between };
        let start = json!({"type": "content_block_start", "index": self.index, "content_block": block});
        self.frames.push(Frame::named(kind, 0, &start));
        if self.index == 0 {
            self.frames.push(Frame::named(FrameKind::Preamble, 0, &json!({"type": "ping"})));
        }
    }

    fn delta(&mut self, delta: Value, tokens: u32) {
        let event = json!({"type": "content_block_delta", "index": self.index, "delta": delta});
        self.frames.push(Frame::named(FrameKind::Content, tokens, &event));
    }

    fn close(&mut self) {
        let stop = json!({"type": "content_block_stop", "index": self.index});
        self.frames.push(Frame::named(FrameKind::Between, 0, &stop));
        self.index += 1;
    }
}
