//! The Responses API as OpenAI and xAI serve it.
//!
//! Sources: OpenAI's OpenAPI description 2.3.0 and SDKs 3.54.0 (Python) and 7.57.0 (npm); the nested form of the
//! error event from two published reports, 2026.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::chat::{named_tool, reasoning_tokens};
use super::{Frame, FrameKind, IMAGE_TOKENS, Mint, no_parameters, tools_tokens};
use crate::answer::{Answer, Choice, Finish, Format, Prompt, Tool, ToolChoice, events};
use crate::fields::Fields;
use crate::problem::Problem;
use crate::provider::Provider;
use crate::text;

/// What the answer's form depends on, besides the prompt.
pub(crate) struct ResponsesOptions {
    model: String,
    /// Request fields that the response repeats.
    echo: Map<String, Value>,
}

/// Request fields repeated in the response, with their defaults.
fn echoed(body: &Value) -> Map<String, Value> {
    let defaults = [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("previous_response_id", Value::Null),
        ("reasoning", json!({"effort": null, "summary": null})),
        ("store", json!(true)),
        ("temperature", json!(1.0)),
        ("text", json!({"format": {"type": "text"}})),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_p", json!(1.0)),
        ("truncation", json!("disabled")),
    ];
    defaults
        .into_iter()
        .map(|(name, default)| {
            let given = body.get(name).filter(|value| !value.is_null()).cloned();
            (name.to_owned(), given.unwrap_or(default))
        })
        .collect()
}

/// Reads and checks a request.
pub(crate) fn parse(
    provider: Provider,
    model: &str,
    body: &Value,
) -> Result<(Prompt, ResponsesOptions), Problem> {
    let fields = Fields::body(body)?;
    let mut prompt = Prompt::new();
    read(&fields, &mut prompt)?;
    prompt.max_output = fields.integer("max_output_tokens")?;
    if prompt.max_output.is_some_and(|most| most < 16) && provider == Provider::OpenAi {
        return Err(Problem::InvalidValue {
            param: "max_output_tokens".into(),
            message: "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16."
                .into(),
        });
    }
    fields.number_within("temperature", 0.0, 2.0)?;
    fields.number_within("top_p", 0.0, 1.0)?;
    fields.word("truncation", &["auto", "disabled"])?;
    prompt.stream = fields.boolean("stream")?.unwrap_or(false);
    prompt.one_tool = fields.boolean("parallel_tool_calls")? == Some(false);
    prompt.format = format(&fields)?;
    let effort = match fields.object("reasoning")? {
        Some(reasoning) => {
            reasoning.word("effort", &["none", "minimal", "low", "medium", "high", "xhigh", "max"])?
        }
        None => None,
    };
    prompt.reasoning = reasoning_tokens(provider, model, effort);
    prompt.limit_covers_reasoning = provider == Provider::OpenAi;
    Ok((prompt, ResponsesOptions { model: model.to_owned(), echo: echoed(body) }))
}

/// The number of input tokens of a request.
pub(crate) fn count(body: &Value) -> Result<u64, Problem> {
    let mut prompt = Prompt::new();
    read(&Fields::body(body)?, &mut prompt)?;
    Ok(prompt.input_tokens)
}

fn read(fields: &Fields<'_>, prompt: &mut Prompt) -> Result<(), Problem> {
    prompt.input_tokens = 3;
    if let Some(instructions) = fields.string("instructions")? {
        prompt.system = instructions.to_owned();
        prompt.input_tokens += text::count(instructions);
    }
    match fields.required("input")? {
        Value::String(said) => {
            prompt.last_user = said.clone();
            prompt.input_tokens += text::count(said);
        }
        Value::Array(_) => {
            let mut calls = Vec::new();
            for item in fields.objects("input")? {
                input_item(&item, prompt, &mut calls)?;
            }
        }
        _ => return Err(fields.wrong_type("input", "string or array of input items")),
    }
    tools(fields, prompt)
}

fn input_item(item: &Fields<'_>, prompt: &mut Prompt, calls: &mut Vec<String>) -> Result<(), Problem> {
    match item.string("type")?.unwrap_or("message") {
        "message" => {
            let role = item.required_string("role")?;
            item.word("role", &["user", "assistant", "system", "developer"])?;
            let said = content(item, prompt)?;
            prompt.input_tokens += 3 + text::count(&said);
            match role {
                "user" => {
                    prompt.last_user = said;
                    prompt.tool_results.clear();
                }
                "assistant" => prompt.tool_results.clear(),
                _ => prompt.system.push_str(&said),
            }
        }
        "function_call" => {
            calls.push(item.required_string("call_id")?.to_owned());
            prompt.tool_results.clear();
            prompt.input_tokens +=
                text::count(item.required_string("name")?) + text::count(item.required_string("arguments")?);
        }
        "function_call_output" => {
            let id = item.required_string("call_id")?;
            if !calls.iter().any(|call| call == id) {
                return Err(Problem::InvalidValue {
                    param: "input".into(),
                    message: format!("No tool call found for function call output with call_id {id}."),
                });
            }
            let output = match item.required("output")? {
                Value::String(output) => output.clone(),
                Value::Array(parts) => parts.iter().filter_map(super::part_text).collect(),
                _ => return Err(item.wrong_type("output", "string or array")),
            };
            prompt.input_tokens += text::count(&output);
            prompt.tool_results.push(output);
        }
        // Reasoning and hosted tools are handed back by stateless clients; they count, and say nothing.
        _ => prompt.input_tokens += 3,
    }
    Ok(())
}

fn content(item: &Fields<'_>, prompt: &mut Prompt) -> Result<String, Problem> {
    match item.required("content")? {
        Value::String(text) => Ok(text.clone()),
        Value::Array(_) => {
            let mut said = String::new();
            for part in item.objects("content")? {
                let kind = part.required_string("type")?;
                part.word(
                    "type",
                    &["input_text", "output_text", "input_image", "input_file", "input_audio", "refusal"],
                )?;
                match kind {
                    "input_text" | "output_text" => said.push_str(part.required_string("text")?),
                    "refusal" => said.push_str(part.required_string("refusal")?),
                    "input_image" => {
                        if !part.has("image_url") && !part.has("file_id") {
                            return Err(Problem::Missing(part.param("image_url")));
                        }
                        prompt.images += 1;
                        prompt.input_tokens += IMAGE_TOKENS;
                    }
                    _ => prompt.input_tokens += IMAGE_TOKENS,
                }
            }
            Ok(said)
        }
        _ => Err(item.wrong_type("content", "string or array of content parts")),
    }
}

/// Function tools are flat here: name and parameters stand beside the type.
fn tools(fields: &Fields<'_>, prompt: &mut Prompt) -> Result<(), Problem> {
    for tool in fields.objects("tools")? {
        if tool.required_string("type")? != "function" {
            continue;
        }
        let name = tool.required_string("name")?.to_owned();
        let schema = tool.object("parameters")?.and_then(|_| tool.get("parameters").cloned());
        prompt.tools.push(Tool { name, schema: schema.unwrap_or_else(no_parameters) });
    }
    prompt.input_tokens += tools_tokens(fields.array("tools")?.map(Vec::as_slice).unwrap_or_default());
    prompt.tool_choice = match fields.get("tool_choice") {
        None => ToolChoice::Auto,
        Some(Value::String(_)) => match fields.word("tool_choice", &["none", "auto", "required"])? {
            Some("none") => ToolChoice::None,
            Some("required") => ToolChoice::Required,
            _ => ToolChoice::Auto,
        },
        Some(Value::Object(choice)) if choice.get("type") == Some(&json!("function")) => {
            named_tool(choice.get("name").unwrap_or(&Value::Null), prompt)?
        }
        Some(Value::Object(_)) => ToolChoice::Auto,
        Some(_) => return Err(fields.wrong_type("tool_choice", "string or object")),
    };
    Ok(())
}

fn format(fields: &Fields<'_>) -> Result<Format, Problem> {
    let Some(format) = fields.object("text")?.map(|text| text.object("format")).transpose()?.flatten() else {
        return Ok(Format::Text);
    };
    let kind = format.required_string("type")?;
    format.word("type", &["text", "json_object", "json_schema"])?;
    match kind {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        _ => {
            format.required_string("name")?;
            Ok(Format::JsonSchema(format.required("schema")?.clone()))
        }
    }
}

fn usage(answer: &Answer) -> Value {
    let usage = &answer.usage;
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.produced(),
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.produced(),
    })
}

fn failed_message(code: &str) -> &'static str {
    match code {
        "rate_limit_exceeded" => "Rate limit reached while the response was being generated.",
        "invalid_prompt" => {
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy."
        }
        _ => "The server had an error while processing your request. Sorry about that!",
    }
}

impl ResponsesOptions {
    fn envelope(&self, id: &str, created: i64, status: &str) -> Map<String, Value> {
        let mut body = self.echo.clone();
        for (name, value) in [
            ("id", json!(id)),
            ("object", json!("response")),
            ("created_at", json!(created)),
            ("status", json!(status)),
            ("model", json!(self.model)),
            ("output", json!([])),
            ("error", Value::Null),
            ("incomplete_details", Value::Null),
            ("usage", Value::Null),
            ("service_tier", json!("default")),
        ] {
            body.insert(name.into(), value);
        }
        body
    }

    /// The response as it is at the end.
    fn ended(
        &self,
        id: &str,
        created: i64,
        output: Vec<Value>,
        answer: &Answer,
        failed: Option<&str>,
    ) -> Value {
        if let Some(code) = failed {
            let mut body = self.envelope(id, created, "failed");
            body.insert("error".into(), json!({"code": code, "message": failed_message(code)}));
            return Value::Object(body);
        }
        let reason = match answer.choices[0].finish {
            Finish::Length => Some("max_output_tokens"),
            Finish::ContentFilter => Some("content_filter"),
            _ => None,
        };
        let status = if reason.is_some() { "incomplete" } else { "completed" };
        let mut body = self.envelope(id, created, status);
        if let Some(reason) = reason {
            body.insert("incomplete_details".into(), json!({"reason": reason}));
        }
        body.insert("output".into(), output.into());
        body.insert("usage".into(), usage(answer));
        Value::Object(body)
    }

    /// The body of a whole answer.
    pub(crate) fn whole(&self, answer: &Answer, failed: Option<&str>, mint: &mut Mint) -> Value {
        let id = mint.id("resp_", 48);
        let items = items(&answer.choices[0], mint);
        let output = items.into_iter().map(|item| item.done).collect();
        self.ended(&id, mint.created, output, answer, failed)
    }

    /// The events of a stream, numbered.
    pub(crate) fn frames(
        &self,
        answer: &Answer,
        per_event: usize,
        failed: Option<&str>,
        mint: &mut Mint,
    ) -> Vec<Frame> {
        let id = mint.id("resp_", 48);
        let created = mint.created;
        let mut stream = Events { frames: Vec::new(), sequence: 0, output: 0 };
        let open = Value::Object(self.envelope(&id, created, "in_progress"));
        for name in ["response.created", "response.in_progress"] {
            stream.push(FrameKind::Preamble, 0, json!({"type": name, "response": open.clone()}));
        }
        if failed.is_some() {
            let response = self.ended(&id, created, Vec::new(), answer, failed);
            stream.push(FrameKind::Preamble, 0, json!({"type": "response.failed", "response": response}));
            return stream.frames;
        }
        let choice = &answer.choices[0];
        let mut output = Vec::new();
        for item in items(choice, mint) {
            stream.item(&item, choice, per_event);
            output.push(item.done);
        }
        let response = self.ended(&id, created, output, answer, None);
        let name = match response["status"].as_str() {
            Some("incomplete") => "response.incomplete",
            _ => "response.completed",
        };
        stream.push(FrameKind::Terminator, 0, json!({"type": name, "response": response}));
        stream.frames
    }

    /// An error event: nested as seen, or flat as documented.
    pub(crate) fn error_event(&self, flat: bool) -> Bytes {
        let (code, message) =
            ("server_is_overloaded", "Our servers are currently overloaded. Please try again later.");
        let event = if flat {
            json!({"type": "error", "sequence_number": 900, "code": code, "message": message, "param": null})
        } else {
            json!({"type": "error", "sequence_number": 900, "error": {"type": "service_unavailable_error",
                "code": code, "message": message, "param": null}})
        };
        Bytes::from(format!("event: error\ndata: {event}\n\n"))
    }
}

/// An output item, finished, and what it is made of.
struct Item {
    done: Value,
    part: ItemPart,
}

enum ItemPart {
    Reasoning,
    Text,
    Call(usize),
}

/// The output items of an answer in their order.
fn items(choice: &Choice, mint: &mut Mint) -> Vec<Item> {
    let mut items = Vec::new();
    if !choice.reasoning.is_empty() {
        let done = json!({"type": "reasoning", "id": mint.id("rs_", 48), "summary": []});
        items.push(Item { done, part: ItemPart::Reasoning });
    }
    let status = if choice.finish == Finish::Length { "incomplete" } else { "completed" };
    if !choice.text.is_empty() {
        let part = json!({"type": "output_text", "text": choice.text(), "annotations": [], "logprobs": []});
        let done = json!({"type": "message", "id": mint.id("msg_", 48), "status": status, "role": "assistant",
            "content": [part]});
        items.push(Item { done, part: ItemPart::Text });
    }
    for (index, call) in choice.calls.iter().enumerate() {
        let done = json!({"type": "function_call", "id": mint.id("fc_", 48), "call_id": mint.id("call_", 24),
            "name": call.name, "arguments": call.arguments, "status": status});
        items.push(Item { done, part: ItemPart::Call(index) });
    }
    items
}

/// Events as they are numbered.
struct Events {
    frames: Vec<Frame>,
    sequence: u64,
    output: usize,
}

impl Events {
    fn push(&mut self, kind: FrameKind, tokens: u32, mut event: Value) {
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        self.frames.push(Frame::named(kind, tokens, &event));
    }

    /// One output item from its first to its last event.
    fn item(&mut self, item: &Item, choice: &Choice, per_event: usize) {
        let output = self.output;
        let id = item.done["id"].clone();
        // Before any content these events are preamble; later ones stand between contents.
        let quiet = if self.frames.iter().any(|frame| frame.kind == FrameKind::Content) {
            FrameKind::Between
        } else {
            FrameKind::Preamble
        };
        let mut opening = item.done.clone();
        if opening.get("status").is_some() {
            opening["status"] = "in_progress".into();
        }
        match item.part {
            ItemPart::Text => opening["content"] = json!([]),
            ItemPart::Call(_) => opening["arguments"] = "".into(),
            ItemPart::Reasoning => {}
        }
        self.push(
            quiet,
            0,
            json!({"type": "response.output_item.added", "output_index": output, "item": opening}),
        );
        let at = json!({"item_id": id, "output_index": output});
        let event = |name: &str, extra: Value| {
            let mut event = at.clone();
            if let (Some(event), Value::Object(extra)) = (event.as_object_mut(), extra) {
                event.insert("type".into(), name.into());
                event.extend(extra);
            }
            event
        };
        match item.part {
            ItemPart::Reasoning => {}
            ItemPart::Text => {
                let empty = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
                self.push(
                    quiet,
                    0,
                    event("response.content_part.added", json!({"content_index": 0, "part": empty})),
                );
                for (said, tokens) in events(&choice.text, per_event) {
                    let extra = json!({"content_index": 0, "delta": said, "logprobs": []});
                    self.push(FrameKind::Content, tokens, event("response.output_text.delta", extra));
                }
                let done = json!({"content_index": 0, "text": choice.text(), "logprobs": []});
                self.push(FrameKind::Between, 0, event("response.output_text.done", done));
                let part = json!({"content_index": 0, "part": item.done["content"][0]});
                self.push(FrameKind::Between, 0, event("response.content_part.done", part));
            }
            ItemPart::Call(index) => {
                let call = &choice.calls[index];
                let fragments: Vec<String> = text::tokens(&call.arguments).map(str::to_owned).collect();
                let mut name_tokens = text::count(&call.name) as u32;
                for (part, tokens) in events(&fragments, per_event) {
                    let delta = event("response.function_call_arguments.delta", json!({"delta": part}));
                    self.push(FrameKind::Content, tokens + std::mem::take(&mut name_tokens), delta);
                }
                let done = json!({"name": call.name, "arguments": call.arguments});
                self.push(FrameKind::Between, 0, event("response.function_call_arguments.done", done));
            }
        }
        // The reasoning item is closed before any text: still preamble.
        let kind = if matches!(item.part, ItemPart::Reasoning) { quiet } else { FrameKind::Between };
        self.push(
            kind,
            0,
            json!({"type": "response.output_item.done", "output_index": output, "item": item.done}),
        );
        self.output += 1;
    }
}
