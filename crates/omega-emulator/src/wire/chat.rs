//! Chat completions as OpenAI and xAI serve them.
//!
//! Sources: OpenAI's OpenAPI description 2.3.0 and SDKs 3.54.0 (Python) and 7.57.0 (npm); for xAI, docs.x.ai and
//! responses published by integrations in 2026. xAI differs in its usage (completion excludes reasoning), its
//! identifiers, its empty deltas while it reasons, and its limit, which covers only the visible answer.

use serde_json::{Map, Value, json};

use super::{Frame, FrameKind, IMAGE_TOKENS, Mint, no_parameters, part_text, tools_tokens};
use crate::answer::{Answer, Choice, Finish, Format, Prompt, Tool, ToolChoice, Usage, events};
use crate::fields::Fields;
use crate::problem::Problem;
use crate::provider::Provider;
use crate::text;

/// What the answer's form depends on, besides the prompt.
pub(crate) struct ChatOptions {
    provider: Provider,
    model: String,
    include_usage: bool,
    obfuscation: bool,
    service_tier: String,
}

const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// Reads and checks a request.
pub(crate) fn parse(provider: Provider, model: &str, body: &Value) -> Result<(Prompt, ChatOptions), Problem> {
    let fields = Fields::body(body)?;
    let mut prompt = Prompt::new();
    messages(&fields, &mut prompt)?;
    limits(provider, model, &fields, &mut prompt)?;
    tools(&fields, &mut prompt)?;
    prompt.format = format(&fields)?;
    prompt.stream = fields.boolean("stream")?.unwrap_or(false);
    let stream_options = fields.object("stream_options")?;
    if stream_options.is_some() && !prompt.stream {
        return Err(Problem::InvalidValue {
            param: "stream_options".into(),
            message: "The 'stream_options' parameter is only allowed when 'stream' is enabled.".into(),
        });
    }
    let option = |name, default: bool| -> Result<bool, Problem> {
        Ok(stream_options
            .as_ref()
            .map(|options| options.boolean(name))
            .transpose()?
            .flatten()
            .unwrap_or(default))
    };
    let options = ChatOptions {
        provider,
        model: model.to_owned(),
        include_usage: option("include_usage", false)?,
        obfuscation: provider == Provider::OpenAi && option("include_obfuscation", true)?,
        service_tier: match fields.string("service_tier")? {
            None | Some("auto") => "default".into(),
            Some(tier) => tier.to_owned(),
        },
    };
    Ok((prompt, options))
}

fn messages(fields: &Fields<'_>, prompt: &mut Prompt) -> Result<(), Problem> {
    fields.required("messages")?;
    let messages = fields.objects("messages")?;
    if messages.is_empty() {
        return Err(Problem::InvalidValue {
            param: "messages".into(),
            message: "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.".into(),
        });
    }
    // Three tokens open the reply, three more each message. Source: OpenAI cookbook, token counting.
    prompt.input_tokens = 3;
    let mut open_calls: Vec<String> = Vec::new();
    for message in &messages {
        let role = message.required_string("role")?;
        message.word("role", &["developer", "system", "user", "assistant", "tool", "function"])?;
        let calls = message.objects("tool_calls")?;
        if !(message.has("content") || role == "assistant" && (!calls.is_empty() || message.has("refusal"))) {
            return Err(Problem::InvalidValue {
                param: message.param("content"),
                message: "Invalid value for 'content': expected a string, got null.".into(),
            });
        }
        let said = content(message, prompt)?;
        prompt.input_tokens += 3 + text::count(role) + text::count(&said);
        if role != "tool" && !open_calls.is_empty() {
            return Err(unanswered(message, &open_calls));
        }
        match role {
            "developer" | "system" => prompt.system.push_str(&said),
            "user" => {
                prompt.last_user = said;
                prompt.tool_results.clear();
            }
            "assistant" => {
                prompt.tool_results.clear();
                for call in &calls {
                    open_calls.push(call.required_string("id")?.to_owned());
                    let function = call.object("function")?;
                    let function = function.ok_or_else(|| Problem::Missing(call.param("function")))?;
                    prompt.input_tokens += text::count(function.required_string("name")?)
                        + text::count(function.required_string("arguments")?);
                }
            }
            "tool" => {
                let id = message.required_string("tool_call_id")?;
                let Some(open) = open_calls.iter().position(|open| open == id) else {
                    return Err(Problem::InvalidValue {
                        param: message.param("role"),
                        message: "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.".into(),
                    });
                };
                open_calls.remove(open);
                prompt.tool_results.push(said);
            }
            _ => {}
        }
    }
    match (open_calls.is_empty(), messages.last()) {
        (false, Some(last)) => Err(unanswered(last, &open_calls)),
        _ => Ok(()),
    }
}

fn unanswered(message: &Fields<'_>, open: &[String]) -> Problem {
    Problem::InvalidValue {
        param: message.param("role"),
        message: format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            open.join(", ")
        ),
    }
}

/// The text of a message; images and other media are counted.
fn content(message: &Fields<'_>, prompt: &mut Prompt) -> Result<String, Problem> {
    match message.get("content") {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(_)) => {
            let mut said = String::new();
            for part in message.objects("content")? {
                let known = ["text", "image_url", "input_audio", "file", "refusal"];
                match part.word("type", &known)?.ok_or_else(|| Problem::Missing(part.param("type")))? {
                    "text" => said.push_str(part.required_string("text")?),
                    "refusal" => said.push_str(part.required_string("refusal")?),
                    "image_url" => {
                        let image = part.object("image_url")?;
                        let image = image.ok_or_else(|| Problem::Missing(part.param("image_url")))?;
                        image.required_string("url")?;
                        prompt.images += 1;
                        prompt.input_tokens += IMAGE_TOKENS;
                    }
                    kind => {
                        part.required(kind)?;
                        prompt.input_tokens += IMAGE_TOKENS;
                    }
                }
            }
            Ok(said)
        }
        Some(_) => Err(message.wrong_type("content", "string or array of content parts")),
    }
}

fn limits(provider: Provider, model: &str, fields: &Fields<'_>, prompt: &mut Prompt) -> Result<(), Problem> {
    let old = fields.integer("max_tokens")?;
    let new = fields.integer("max_completion_tokens")?;
    let invalid = |param: &str, message: String| Problem::InvalidValue { param: param.into(), message };
    if old.is_some() && new.is_some() && provider == Provider::OpenAi {
        let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(invalid("max_tokens", message.into()));
    }
    if new.or(old) == Some(0) {
        let param = if new.is_some() { "max_completion_tokens" } else { "max_tokens" };
        let message = "Invalid value: integer below minimum value. Expected a value >= 1, but got 0 instead.";
        return Err(invalid(param, message.into()));
    }
    prompt.max_output = new.or(old);
    prompt.stop = fields.strings("stop")?;
    let most = if provider == Provider::OpenAi { 4 } else { 8 };
    if prompt.stop.len() > most {
        let message =
            format!("Invalid 'stop': array too long. Expected an array with maximum length {most}.");
        return Err(invalid("stop", message));
    }
    prompt.choices = match fields.integer("n")?.unwrap_or(1) {
        choices @ 1..=128 => choices as u32,
        _ => return Err(invalid("n", "Invalid 'n': expected 1 to 128.".into())),
    };
    let effort = fields.word("reasoning_effort", &EFFORTS)?;
    prompt.limit_covers_reasoning = provider == Provider::OpenAi;
    prompt.reasoning = reasoning_tokens(provider, model, effort);
    sampling(provider, model, fields, effort)
}

/// Refuses what models that reason do not take. Long-standing public behaviour of OpenAI (effort `none` lifts part
/// of it); for `stop` and penalties also the SDK's field documentation and docs.x.ai, 2025.
fn sampling(
    provider: Provider,
    model: &str,
    fields: &Fields<'_>,
    effort: Option<&str>,
) -> Result<(), Problem> {
    let with_default = [
        ("temperature", fields.number_within("temperature", 0.0, 2.0)?),
        ("top_p", fields.number_within("top_p", 0.0, 1.0)?),
    ];
    let penalties = [
        ("presence_penalty", fields.number_within("presence_penalty", -2.0, 2.0)?),
        ("frequency_penalty", fields.number_within("frequency_penalty", -2.0, 2.0)?),
    ];
    let unsupported =
        |param: &str, message: String, code| Problem::Unsupported { param: param.into(), message, code };
    let reasons = provider == Provider::OpenAi && openai_reasons(model);
    if reasons && fields.has("max_tokens") {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        return Err(unsupported("max_tokens", message.into(), "unsupported_parameter"));
    }
    let refuses = reasons && effort != Some("none");
    if let Some((name, _)) =
        with_default.iter().find(|(_, value)| refuses && value.is_some_and(|value| value != 1.0))
    {
        let message = format!(
            "Unsupported value: '{name}' does not support this value with this model. Only the default (1) value is supported."
        );
        return Err(unsupported(name, message, "unsupported_value"));
    }
    let stop = ("stop", fields.has("stop").then_some(1.0));
    let refused: &[(&str, Option<f64>)] = match provider {
        Provider::OpenAi if is_family(model, &["o3", "o4-mini"]) => &[stop, penalties[0], penalties[1]],
        Provider::OpenAi if refuses => &penalties,
        Provider::Grok if grok_refuses_penalties(model) => &[stop, penalties[0], penalties[1]],
        _ => &[],
    };
    match refused.iter().find(|(_, value)| value.is_some_and(|value| value != 0.0)) {
        Some((name, _)) => {
            let message = format!("Unsupported parameter: '{name}' is not supported with this model.");
            Err(unsupported(name, message, "unsupported_parameter"))
        }
        None => Ok(()),
    }
}

/// Whether a name is a family's or starts with it and a separator.
fn is_family(model: &str, families: &[&str]) -> bool {
    families.iter().any(|family| {
        model.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
    })
}

/// Models that reason and therefore refuse `max_tokens`.
pub(crate) fn openai_reasons(model: &str) -> bool {
    is_family(model, &["o1", "o3", "o3-mini", "o4-mini", "gpt-5", "gpt-6"])
        && !model.ends_with("-chat-latest")
}

/// xAI's older reasoning models refuse penalties and `stop`. Source: docs.x.ai, 2025; unverified for 4.5 and later,
/// which therefore accept them here.
fn grok_refuses_penalties(model: &str) -> bool {
    matches!(model, "grok-4" | "grok-4-0709" | "grok-4-latest") || model.starts_with("grok-3-mini")
}

fn grok_reasons(model: &str) -> bool {
    !model.contains("non-reasoning")
        && (model.contains("reasoning") || model.starts_with("grok-4") || model.starts_with("grok-3-mini"))
}

/// How much a model reasons. The sizes are the emulator's own; only their order means something.
pub(crate) fn reasoning_tokens(provider: Provider, model: &str, effort: Option<&str>) -> u64 {
    let default = match provider {
        // GPT-5.1 and later reason only when asked; the first GPT-5 and the o-series do by default.
        Provider::OpenAi if is_family(model, &["gpt-6"]) || model.starts_with("gpt-5.") => "none",
        Provider::OpenAi if openai_reasons(model) => "medium",
        Provider::Grok if grok_reasons(model) => "low",
        _ => return 0,
    };
    effort_tokens(effort.unwrap_or(default))
}

/// Reasoning tokens for an effort.
pub(crate) fn effort_tokens(effort: &str) -> u64 {
    match effort {
        "minimal" => 4,
        "low" => 16,
        "medium" => 48,
        "high" => 96,
        "xhigh" | "max" => 192,
        _ => 0,
    }
}

fn tools(fields: &Fields<'_>, prompt: &mut Prompt) -> Result<(), Problem> {
    for tool in fields.objects("tools")? {
        let kind = tool
            .word("type", &["function", "custom"])?
            .ok_or_else(|| Problem::Missing(tool.param("type")))?;
        let declared = tool.object(kind)?.ok_or_else(|| Problem::Missing(tool.param(kind)))?;
        let name = declared.required_string("name")?.to_owned();
        if declared.get("parameters").is_some_and(|schema| !schema.is_object()) {
            return Err(declared.wrong_type("parameters", "object"));
        }
        let schema = declared.get("parameters").cloned().unwrap_or_else(no_parameters);
        prompt.tools.push(Tool { name, schema });
    }
    prompt.input_tokens += tools_tokens(fields.array("tools")?.map(Vec::as_slice).unwrap_or_default());
    prompt.one_tool = fields.boolean("parallel_tool_calls")? == Some(false);
    let Some(choice) = fields.get("tool_choice") else { return Ok(()) };
    if prompt.tools.is_empty() {
        return Err(Problem::InvalidValue {
            param: "tool_choice".into(),
            message:
                "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
                    .into(),
        });
    }
    prompt.tool_choice = match choice {
        Value::String(_) => match fields.word("tool_choice", &["none", "auto", "required"])? {
            Some("none") => ToolChoice::None,
            Some("required") => ToolChoice::Required,
            _ => ToolChoice::Auto,
        },
        Value::Object(object) => match object.get("type").and_then(Value::as_str) {
            Some(kind @ ("function" | "custom")) => named_tool(&choice[kind]["name"], prompt)?,
            Some("allowed_tools") if choice["allowed_tools"]["mode"] == "required" => ToolChoice::Required,
            Some("allowed_tools") => ToolChoice::Auto,
            _ => return Err(Problem::Missing("tool_choice.type".into())),
        },
        _ => return Err(fields.wrong_type("tool_choice", "string or object")),
    };
    Ok(())
}

/// A choice of one tool, which must exist.
pub(crate) fn named_tool(name: &Value, prompt: &Prompt) -> Result<ToolChoice, Problem> {
    let name = name.as_str().ok_or_else(|| Problem::Missing("tool_choice.name".into()))?;
    if prompt.tools.iter().all(|tool| tool.name != name) {
        return Err(Problem::InvalidValue {
            param: "tool_choice".into(),
            message: format!("Tool choice '{name}' not found in 'tools' parameter."),
        });
    }
    Ok(ToolChoice::Named(name.to_owned()))
}

fn format(fields: &Fields<'_>) -> Result<Format, Problem> {
    let Some(format) = fields.object("response_format")? else { return Ok(Format::Text) };
    let kind = format.word("type", &["text", "json_object", "json_schema"])?;
    match kind.ok_or_else(|| Problem::Missing(format.param("type")))? {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        _ => {
            let named = format.object("json_schema")?;
            let named = named.ok_or_else(|| Problem::Missing(format.param("json_schema")))?;
            named.required_string("name")?;
            let schema = named.object("schema")?.map(|_| named.get("schema").cloned().unwrap_or_default());
            Ok(schema.map_or(Format::JsonObject, Format::JsonSchema))
        }
    }
}

fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::ContentFilter => "content_filter",
    }
}

fn usage(provider: Provider, usage: &Usage, images: u32) -> Value {
    let image_tokens = u64::from(images) * IMAGE_TOKENS;
    if provider == Provider::Grok {
        // completion excludes reasoning; total = prompt + completion + reasoning. Source: two published responses.
        return json!({
            "prompt_tokens": usage.input, "completion_tokens": usage.output,
            "total_tokens": usage.input + usage.output + usage.reasoning,
            "prompt_tokens_details": {"text_tokens": usage.input.saturating_sub(image_tokens), "audio_tokens": 0,
                "image_tokens": image_tokens, "cached_tokens": usage.cached},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
            "num_sources_used": 0, "cost_in_usd_ticks": 30_000 * usage.input + 150_000 * usage.produced(),
        });
    }
    json!({
        "prompt_tokens": usage.input, "completion_tokens": usage.produced(),
        "total_tokens": usage.input + usage.produced(),
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0, "audio_tokens": 0,
            "text_tokens": usage.input.saturating_sub(image_tokens), "image_tokens": image_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0,
            "text_tokens": usage.output, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

impl ChatOptions {
    /// xAI shows its reasoning, except in grok-4. Source: docs.x.ai, reasoning guide, read 2026-11-23.
    fn shows_reasoning(&self) -> bool {
        let silent = grok_refuses_penalties(&self.model) && !self.model.starts_with("grok-3-mini");
        self.provider == Provider::Grok && !silent
    }

    fn id(&self, mint: &mut Mint) -> String {
        match self.provider {
            Provider::Grok => mint.uuid(),
            _ => mint.id("chatcmpl-", 29),
        }
    }

    /// The body of a whole answer.
    pub(crate) fn whole(&self, prompt: &Prompt, answer: &Answer, mint: &mut Mint) -> Value {
        let choices: Vec<Value> = answer
            .choices
            .iter()
            .enumerate()
            .map(|(index, choice)| {
                json!({"index": index, "logprobs": null, "finish_reason": finish_reason(&choice.finish),
                    "message": self.message(choice, mint)})
            })
            .collect();
        let mut body = json!({
            "id": self.id(mint), "object": "chat.completion", "created": mint.created, "model": self.model,
            "choices": choices, "usage": usage(self.provider, &answer.usage, prompt.images),
            "system_fingerprint": mint.id("fp_", 10).to_lowercase(),
        });
        if self.provider == Provider::OpenAi {
            body["service_tier"] = self.service_tier.clone().into();
        }
        body
    }

    fn message(&self, choice: &Choice, mint: &mut Mint) -> Value {
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("refusal".into(), Value::Null);
        let silent = !choice.calls.is_empty() || choice.finish == Finish::ContentFilter;
        message.insert("content".into(), if silent { Value::Null } else { choice.text().into() });
        if self.provider == Provider::OpenAi {
            message.insert("annotations".into(), json!([]));
        }
        if self.shows_reasoning() && !choice.reasoning.is_empty() {
            message.insert("reasoning_content".into(), choice.reasoning().into());
        }
        if !choice.calls.is_empty() {
            let calls = choice.calls.iter().map(|call| {
                json!({"id": mint.id("call_", 24), "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments}})
            });
            message.insert("tool_calls".into(), calls.collect());
        }
        Value::Object(message)
    }

    /// The events of a stream. Choices take turns, as real ones do.
    pub(crate) fn frames(
        &self,
        prompt: &Prompt,
        answer: &Answer,
        per_event: usize,
        mint: &mut Mint,
    ) -> Vec<Frame> {
        let mut chunk = Chunk { base: Map::new(), options: self };
        chunk.base.insert("id".into(), self.id(mint).into());
        chunk.base.insert("object".into(), "chat.completion.chunk".into());
        chunk.base.insert("created".into(), mint.created.into());
        chunk.base.insert("model".into(), self.model.clone().into());
        chunk.base.insert("system_fingerprint".into(), mint.id("fp_", 10).to_lowercase().into());
        if self.provider == Provider::OpenAi {
            chunk.base.insert("service_tier".into(), self.service_tier.clone().into());
        }
        if self.include_usage {
            chunk.base.insert("usage".into(), Value::Null);
        }
        let mut frames = Vec::new();
        let mut turns: Vec<_> = Vec::new();
        for (index, choice) in answer.choices.iter().enumerate() {
            let role = if choice.calls.is_empty() {
                json!({"role": "assistant", "content": "", "refusal": null})
            } else {
                json!({"role": "assistant", "content": null})
            };
            frames.push(chunk.frame(FrameKind::Preamble, 0, index, role, None, mint));
            turns.push(self.deltas(choice, per_event, mint).into_iter());
        }
        if self.provider == Provider::Grok && answer.usage.reasoning > 0 {
            frames.push(chunk.frame(FrameKind::Preamble, 0, 0, json!({}), None, mint));
        }
        let mut open = true;
        while open {
            open = false;
            for (index, deltas) in turns.iter_mut().enumerate() {
                if let Some((delta, tokens)) = deltas.next() {
                    frames.push(chunk.frame(FrameKind::Content, tokens, index, delta, None, mint));
                    open = true;
                }
            }
        }
        for (index, choice) in answer.choices.iter().enumerate() {
            let reason = Some(finish_reason(&choice.finish));
            frames.push(chunk.frame(FrameKind::Finish, 0, index, json!({}), reason, mint));
        }
        if self.include_usage {
            let mut last = chunk.base.clone();
            last.insert("choices".into(), json!([]));
            last.insert("usage".into(), usage(self.provider, &answer.usage, prompt.images));
            frames.push(Frame::data(FrameKind::Finish, 0, &Value::Object(last)));
        }
        frames.push(Frame::new(FrameKind::Terminator, 0, "data: [DONE]\n\n"));
        frames
    }

    /// The deltas of one choice with the tokens each carries.
    fn deltas(&self, choice: &Choice, per_event: usize, mint: &mut Mint) -> Vec<(Value, u32)> {
        let mut deltas = Vec::new();
        if self.shows_reasoning() {
            deltas.extend(
                events(&choice.reasoning, per_event).map(|(said, n)| (json!({"reasoning_content": said}), n)),
            );
        }
        deltas.extend(events(&choice.text, per_event).map(|(said, n)| (json!({"content": said}), n)));
        for (index, call) in choice.calls.iter().enumerate() {
            let head = json!({"tool_calls": [{"index": index, "id": mint.id("call_", 24), "type": "function",
                "function": {"name": call.name, "arguments": ""}}]});
            deltas.push((head, text::count(&call.name) as u32));
            let fragments: Vec<String> = text::tokens(&call.arguments).map(str::to_owned).collect();
            deltas.extend(events(&fragments, per_event).map(|(part, n)| {
                (json!({"tool_calls": [{"index": index, "function": {"arguments": part}}]}), n)
            }));
        }
        deltas
    }
}

/// What all chunks of a stream have in common.
struct Chunk<'a> {
    base: Map<String, Value>,
    options: &'a ChatOptions,
}

impl Chunk<'_> {
    fn frame(
        &self,
        kind: FrameKind,
        tokens: u32,
        index: usize,
        delta: Value,
        finish: Option<&str>,
        mint: &mut Mint,
    ) -> Frame {
        let mut chunk = self.base.clone();
        let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish});
        chunk.insert("choices".into(), json!([choice]));
        if self.options.obfuscation && kind == FrameKind::Content {
            let length = mint.dice.usize(1..16);
            chunk.insert("obfuscation".into(), mint.id("", length).into());
        }
        Frame::data(kind, tokens, &Value::Object(chunk))
    }
}

/// The text of the last message, for embeddings and counters that only need sizes.
pub(crate) fn input_tokens_of(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(input_tokens_of).sum(),
        other => part_text(other).map_or_else(|| text::count(&other.to_string()), text::count),
    }
}
