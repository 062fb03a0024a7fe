//! Google's Gemini API: `generateContent` and `streamGenerateContent`, API versions v1 and v1beta alike.
//!
//! Sources: ai.google.dev (Generating content, Thinking, Function calling), read 2026-11-23; SDKs `google-genai`
//! 3.4.0 (Python) and 3.1.0 (npm). Fields are camelCase; snake_case is accepted on input, as protobuf-JSON does.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Frame, FrameKind, IMAGE_TOKENS, Mint, no_parameters, tools_tokens};
use crate::answer::{Answer, Choice, Finish, Format, Prompt, Tool, ToolChoice, events};
use crate::delivery::Inserts;
use crate::fields::Fields;
use crate::problem::Problem;
use crate::text;

/// What the answer's form depends on, besides the prompt.
pub(crate) struct GoogleOptions {
    model: String,
    form: StreamForm,
    show_thoughts: bool,
    images: u32,
}

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamForm {
    /// `alt=sse`: server-sent events.
    Events,
    /// Otherwise: one JSON array, piece by piece.
    Array,
}

/// Reads and checks a request.
pub(crate) fn parse(
    model: &str,
    body: &Value,
    stream: bool,
    query: Option<&str>,
) -> Result<(Prompt, GoogleOptions), Problem> {
    let fields = Fields::body(body)?;
    let mut prompt = Prompt::new();
    prompt.stream = stream;
    contents(&fields, &mut prompt)?;
    tools(&fields, &mut prompt)?;
    let mut show_thoughts = false;
    let config = fields.object("generationConfig")?;
    if let Some(config) = &config {
        show_thoughts = generation(config, &mut prompt)?;
    }
    thinking_default(model, config.as_ref(), &mut prompt)?;
    let events =
        query.is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse" || pair == "$alt=sse"));
    let form = if events { StreamForm::Events } else { StreamForm::Array };
    let images = prompt.images;
    Ok((prompt, GoogleOptions { model: model.to_owned(), form, show_thoughts, images }))
}

/// The number of tokens of a `countTokens` request: contents, or a whole `generateContentRequest`.
pub(crate) fn count(body: &Value) -> Result<u64, Problem> {
    let fields = Fields::body(body)?;
    let whole = fields.object("generateContentRequest")?;
    let mut prompt = Prompt::new();
    contents(whole.as_ref().unwrap_or(&fields), &mut prompt)?;
    tools(whole.as_ref().unwrap_or(&fields), &mut prompt)?;
    Ok(prompt.input_tokens)
}

fn contents(fields: &Fields<'_>, prompt: &mut Prompt) -> Result<(), Problem> {
    if let Some(system) = fields.object("systemInstruction")? {
        let mut parts = Parts::default();
        read_parts(&system, prompt, &mut parts)?;
        prompt.input_tokens += text::count(&parts.said);
        prompt.system = parts.said;
    }
    fields.required("contents")?;
    let contents = fields.objects("contents")?;
    if contents.is_empty() {
        return Err(Problem::Missing("contents".into()));
    }
    for content in &contents {
        let role = content.string("role")?.unwrap_or("user");
        if !["user", "model", "function"].contains(&role) {
            return Err(Problem::InvalidValue {
                param: "contents".into(),
                message: "Please use a valid role: user, model.".into(),
            });
        }
        let mut parts = Parts::default();
        read_parts(content, prompt, &mut parts)?;
        prompt.input_tokens += text::count(&parts.said);
        prompt.tool_results = parts.results;
        if role != "model" && (prompt.tool_results.is_empty() || !parts.said.is_empty()) {
            prompt.last_user = parts.said;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Parts {
    said: String,
    results: Vec<String>,
}

fn read_parts(content: &Fields<'_>, prompt: &mut Prompt, found: &mut Parts) -> Result<(), Problem> {
    let parts = content.objects("parts")?;
    if parts.is_empty() {
        return Err(Problem::InvalidValue {
            param: format!("{}.parts", content.param("").trim_end_matches('.')),
            message: "contents.parts must not be empty.".into(),
        });
    }
    for part in parts {
        if let Some(said) = part.string("text")? {
            found.said.push_str(said);
        } else if let Some(data) = part.object("inlineData")? {
            data.required_string("mimeType")?;
            data.required_string("data")?;
            prompt.images += 1;
            prompt.input_tokens += IMAGE_TOKENS;
        } else if let Some(data) = part.object("fileData")? {
            data.required_string("fileUri")?;
            prompt.images += 1;
            prompt.input_tokens += IMAGE_TOKENS;
        } else if let Some(call) = part.object("functionCall")? {
            let arguments = call
                .object("args")?
                .and_then(|_| call.get("args"))
                .map_or(0, |args| text::count(&args.to_string()));
            prompt.input_tokens += text::count(call.required_string("name")?) + arguments;
        } else if let Some(answer) = part.object("functionResponse")? {
            answer.required_string("name")?;
            answer.object("response")?.ok_or_else(|| Problem::Missing(answer.param("response")))?;
            let result = answer.get("response").map(Value::to_string).unwrap_or_default();
            prompt.input_tokens += text::count(&result);
            found.results.push(result);
        } else if !(part.has("thoughtSignature")
            || part.has("executableCode")
            || part.has("codeExecutionResult"))
        {
            return Err(Problem::InvalidValue {
                param: part.param("data"),
                message: "required oneof field 'data' must have one initialized field".into(),
            });
        }
    }
    Ok(())
}

fn tools(fields: &Fields<'_>, prompt: &mut Prompt) -> Result<(), Problem> {
    for tool in fields.objects("tools")? {
        for declared in tool.objects("functionDeclarations")? {
            let name = declared.required_string("name")?.to_owned();
            let schema = declared.get("parametersJsonSchema").or_else(|| declared.get("parameters"));
            prompt.tools.push(Tool { name, schema: schema.cloned().unwrap_or_else(no_parameters) });
        }
    }
    prompt.input_tokens += tools_tokens(fields.array("tools")?.map(Vec::as_slice).unwrap_or_default());
    let Some(config) = fields.object("toolConfig")? else { return Ok(()) };
    let Some(calling) = config.object("functionCallingConfig")? else { return Ok(()) };
    let allowed = calling.strings("allowedFunctionNames")?;
    let mode = calling.word("mode", &["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"])?;
    if !allowed.is_empty() {
        if let Some(unknown) = allowed.iter().find(|name| prompt.tools.iter().all(|tool| tool.name != **name))
        {
            return Err(Problem::InvalidValue {
                param: "tool_config.function_calling_config.allowed_function_names".into(),
                message: format!("`{unknown}` is not a declared function."),
            });
        }
        prompt.tools.retain(|tool| allowed.contains(&tool.name));
    }
    prompt.tool_choice = match mode {
        Some("ANY") => ToolChoice::Required,
        Some("NONE") => ToolChoice::None,
        _ => ToolChoice::Auto,
    };
    Ok(())
}

/// Reads the generation settings; true if thoughts are to be shown.
fn generation(config: &Fields<'_>, prompt: &mut Prompt) -> Result<bool, Problem> {
    prompt.max_output = config.integer("maxOutputTokens")?;
    if prompt.max_output == Some(0) {
        return Err(Problem::InvalidValue {
            param: "generation_config.max_output_tokens".into(),
            message: "max_output_tokens must be positive.".into(),
        });
    }
    config.number_within("temperature", 0.0, 2.0)?;
    config.number_within("topP", 0.0, 1.0)?;
    config.number("topK")?;
    prompt.stop = config.strings("stopSequences")?;
    if prompt.stop.len() > 5 {
        return Err(Problem::InvalidValue {
            param: "generation_config.stop_sequences".into(),
            message: "at most 5 stop sequences are allowed.".into(),
        });
    }
    prompt.choices = match config.integer("candidateCount")?.unwrap_or(1) {
        count @ 1..=8 => count as u32,
        _ => {
            return Err(Problem::InvalidValue {
                param: "generation_config.candidate_count".into(),
                message: "candidate_count must be between 1 and 8.".into(),
            });
        }
    };
    let json = config.string("responseMimeType")? == Some("application/json");
    let schema = config.get("responseJsonSchema").or_else(|| config.get("responseSchema"));
    prompt.format = match (schema, json) {
        (Some(schema), true) => Format::JsonSchema(schema.clone()),
        (Some(_), false) => {
            return Err(Problem::InvalidValue {
                param: "generation_config.response_mime_type".into(),
                message: "response_schema requires the response MIME type application/json.".into(),
            });
        }
        (None, true) => Format::JsonObject,
        (None, false) => Format::Text,
    };
    match config.object("thinkingConfig")? {
        Some(thinking) => Ok(thinking.boolean("includeThoughts")?.unwrap_or(false)),
        None => Ok(false),
    }
}

/// How much the model thinks: asked for by level or budget, else what its family does by default.
fn thinking_default(model: &str, config: Option<&Fields<'_>>, prompt: &mut Prompt) -> Result<(), Problem> {
    let thinking = config.map(|config| config.object("thinkingConfig")).transpose()?.flatten();
    let level = match &thinking {
        Some(thinking) => thinking.string("thinkingLevel")?.map(str::to_ascii_uppercase),
        None => None,
    };
    let budget = match &thinking {
        Some(thinking) => thinking.number("thinkingBudget")?,
        None => None,
    };
    if level.is_some() && budget.is_some() {
        return Err(Problem::InvalidValue {
            param: "generation_config.thinking_config".into(),
            message: "You can only set one of thinking budget and thinking level.".into(),
        });
    }
    prompt.reasoning = match (level.as_deref(), budget) {
        (Some("MINIMAL"), _) => 0,
        (Some("LOW"), _) => 16,
        (Some("MEDIUM"), _) => 48,
        (Some(_), _) => 96,
        (None, Some(budget)) if budget < 0.0 => 48,
        (None, Some(budget)) => (budget as u64).min(96),
        // The large models think unless told otherwise.
        (None, None) if model.contains("-pro") => 16,
        (None, None) => 0,
    };
    Ok(())
}

fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::ToolCalls => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::ContentFilter => "SAFETY",
    }
}

impl GoogleOptions {
    /// Whether a stream is written as server-sent events.
    pub(crate) fn events(&self) -> bool {
        self.form == StreamForm::Events
    }

    /// `candidatesTokenCount` leaves out thoughts, the total includes them; zero fields are omitted.
    fn usage(&self, answer: &Answer, shown: u64) -> Value {
        let usage = &answer.usage;
        let image_tokens = u64::from(self.images) * IMAGE_TOKENS;
        let mut details = vec![json!({"modality": "TEXT", "tokenCount": usage.input - image_tokens})];
        if image_tokens > 0 {
            details.push(json!({"modality": "IMAGE", "tokenCount": image_tokens}));
        }
        let mut counts = json!({
            "promptTokenCount": usage.input, "promptTokensDetails": details,
            "totalTokenCount": usage.input + shown + usage.reasoning, "serviceTier": "standard",
        });
        for (name, count) in [
            ("candidatesTokenCount", shown),
            ("thoughtsTokenCount", usage.reasoning),
            ("cachedContentTokenCount", usage.cached),
        ] {
            if count > 0 {
                counts[name] = count.into();
            }
        }
        if usage.cached > 0 {
            counts["cacheTokensDetails"] = json!([{"modality": "TEXT", "tokenCount": usage.cached}]);
        }
        counts
    }

    /// A blocked prompt has feedback and no candidates.
    fn envelope(&self, candidates: Vec<Value>, usage: Value, id: &str) -> Value {
        let mut body = json!({"usageMetadata": usage, "modelVersion": self.model, "responseId": id});
        if candidates.is_empty() {
            body["promptFeedback"] = json!({"blockReason": "SAFETY", "safetyRatings": []});
        } else {
            body["candidates"] = candidates.into();
        }
        body
    }

    fn call_parts(choice: &Choice, mint: &mut Mint) -> Vec<Value> {
        let parts = choice.calls.iter().enumerate().map(|(index, call)| {
            let args: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            let mut part = json!({"functionCall": {"id": mint.id("", 8), "name": call.name, "args": args}});
            // Only the first of parallel calls carries the signature.
            if index == 0 {
                part["thoughtSignature"] = mint.id("", 32).into();
            }
            part
        });
        parts.collect()
    }

    /// The body of a whole answer.
    pub(crate) fn whole(&self, answer: &Answer, mint: &mut Mint) -> Value {
        let mut candidates = Vec::new();
        for (index, choice) in answer.choices.iter().enumerate() {
            if choice.finish == Finish::ContentFilter {
                continue;
            }
            let mut parts = Vec::new();
            if self.show_thoughts && !choice.reasoning.is_empty() {
                parts.push(json!({"text": choice.reasoning(), "thought": true}));
            }
            if !choice.text.is_empty() {
                parts.push(json!({"text": choice.text()}));
            }
            parts.extend(Self::call_parts(choice, mint));
            let mut content = json!({"role": "model"});
            if !parts.is_empty() {
                content["parts"] = parts.into();
            }
            candidates.push(
                json!({"content": content, "finishReason": finish_reason(&choice.finish), "index": index}),
            );
        }
        let usage = self.usage(answer, answer.usage.output);
        self.envelope(candidates, usage, &mint.id("", 22))
    }

    /// The events of a stream. Text comes in pieces, function calls whole; usage runs along.
    pub(crate) fn frames(&self, answer: &Answer, per_event: usize, mint: &mut Mint) -> Vec<Frame> {
        let id = mint.id("", 22);
        let mut stream = Chunks { options: self, answer, id, shown: 0, frames: Vec::new() };
        for (index, choice) in answer.choices.iter().enumerate() {
            if choice.finish == Finish::ContentFilter {
                let body = self.envelope(Vec::new(), self.usage(answer, 0), &stream.id);
                stream.push(FrameKind::Finish, 0, &body);
                break;
            }
            if self.show_thoughts {
                for (said, tokens) in events(&choice.reasoning, per_event) {
                    stream.part(index, vec![json!({"text": said, "thought": true})], tokens, false, None);
                }
            }
            for (said, tokens) in events(&choice.text, per_event) {
                stream.part(index, vec![json!({"text": said})], tokens, true, None);
            }
            if !choice.calls.is_empty() {
                let tokens: u64 = choice
                    .calls
                    .iter()
                    .map(|call| text::count(&call.name) + text::count(&call.arguments))
                    .sum();
                stream.part(index, Self::call_parts(choice, mint), tokens as u32, true, None);
            }
            let last = vec![json!({"text": ""})];
            stream.part(index, last, 0, true, Some(finish_reason(&choice.finish)));
        }
        stream.close()
    }

    fn write(&self, first: bool, body: &Value) -> String {
        match (self.form, first) {
            (StreamForm::Events, _) => format!("data: {body}\r\n\r\n"),
            (StreamForm::Array, true) => format!("[{body}"),
            (StreamForm::Array, false) => format!("\r\n,\r\n{body}"),
        }
    }

    /// What faults put into a stream.
    pub(crate) fn inserts(&self, alternative: bool) -> Inserts {
        let word = |text: &'static str| Bytes::from_static(text.as_bytes());
        let error = json!({"error": {"code": 503, "message": "The model is overloaded. Please try again later.",
            "status": "UNAVAILABLE"}});
        // The bare form is pretty-printed over several lines, without `data:`. Source: two published responses.
        let error = match (self.form, alternative) {
            (StreamForm::Events, true) => format!("data: {error}\r\n\r\n"),
            (StreamForm::Events, false) => format!("{error:#}\n"),
            (StreamForm::Array, _) => format!("\r\n,\r\n{error}]"),
        };
        match self.form {
            StreamForm::Events => Inserts {
                ping: word(": keep-alive\r\n\r\n"),
                error: error.into(),
                malformed: word("data: {\"candidates\": [{\"content\":\r\n\r\n"),
                endless: word("data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \""),
            },
            StreamForm::Array => Inserts {
                ping: word("\r\n"),
                error: error.into(),
                malformed: word("\r\n,\r\n{\"candidates\": [{\"content\":"),
                endless: word("[{\"candidates\": [{\"content\": {\"parts\": [{\"text\": \""),
            },
        }
    }
}

/// A stream as it is written.
struct Chunks<'a> {
    options: &'a GoogleOptions,
    answer: &'a Answer,
    id: String,
    /// Visible tokens so far.
    shown: u64,
    frames: Vec<Frame>,
}

impl Chunks<'_> {
    fn part(&mut self, index: usize, parts: Vec<Value>, tokens: u32, visible: bool, finish: Option<&str>) {
        self.shown += if visible { u64::from(tokens) } else { 0 };
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": index});
        if let Some(finish) = finish {
            candidate["finishReason"] = finish.into();
        }
        let usage = self.options.usage(self.answer, self.shown);
        let body = self.options.envelope(vec![candidate], usage, &self.id);
        let kind = if finish.is_some() { FrameKind::Finish } else { FrameKind::Content };
        self.push(kind, tokens, &body);
    }

    fn push(&mut self, kind: FrameKind, tokens: u32, body: &Value) {
        let written = self.options.write(self.frames.is_empty(), body);
        self.frames.push(Frame::new(kind, tokens, written));
    }

    fn close(mut self) -> Vec<Frame> {
        if self.options.form == StreamForm::Array {
            self.frames.push(Frame::new(FrameKind::Terminator, 0, "]"));
        }
        self.frames
    }
}
