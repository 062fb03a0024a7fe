//! What to say: from what a request asks for, in words common to all vendors, to an answer, in words common to all
//! vendors. The wire modules translate at both ends. The answer is an echo with deterministic filler, so that a test
//! can predict its length, and every count in its usage belongs to text that is really sent.

use serde_json::Value;

use crate::schema;
use crate::text;

/// A tool the model may call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) schema: Value,
}

/// Which tools must be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ToolChoice {
    #[default]
    Auto,
    None,
    /// Any of them, at least one.
    Required,
    Named(String),
}

/// The form of the text.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Format {
    #[default]
    Text,
    JsonObject,
    JsonSchema(Value),
}

/// What a request asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prompt {
    pub(crate) input_tokens: u64,
    pub(crate) images: u32,
    pub(crate) system: String,
    pub(crate) last_user: String,
    /// The beginning of the answer, from which it is to go on.
    pub(crate) prefill: String,
    /// Results of tools at the end of the conversation.
    pub(crate) tool_results: Vec<String>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) tool_choice: ToolChoice,
    /// At most one call.
    pub(crate) one_tool: bool,
    pub(crate) max_output: Option<u64>,
    /// Whether `max_output` covers reasoning too (not for xAI).
    pub(crate) limit_covers_reasoning: bool,
    pub(crate) stop: Vec<String>,
    pub(crate) choices: u32,
    pub(crate) format: Format,
    /// Reasoning tokens the model would like to spend.
    pub(crate) reasoning: u64,
    pub(crate) stream: bool,
}

impl Prompt {
    pub(crate) fn new() -> Self {
        Self { choices: 1, limit_covers_reasoning: true, ..Self::default() }
    }

    /// Input tokens that a marker declares to come from the cache.
    pub(crate) fn cached_tokens(&self) -> u64 {
        self.marker("cached-tokens").unwrap_or(0).min(self.input_tokens)
    }

    /// Counts what a marker says instead of what is there: tests bring the sizes of requests whose text they lack.
    pub(crate) fn counted_as_told(mut self) -> Self {
        if let Some(tokens) = self.marker("input-tokens") {
            self.input_tokens = tokens;
        }
        self
    }

    /// Trace seconds that a marker of microseconds tells: the time to the first token, or the time from there to the
    /// last.
    pub(crate) fn seconds_told(&self, name: &str) -> Option<f64> {
        self.marker(name).map(|micros| micros as f64 / 1e6)
    }

    fn marker(&self, name: &str) -> Option<u64> {
        text::marker(&self.last_user, name)
    }
}

/// One call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolCall {
    pub(crate) name: String,
    /// JSON text.
    pub(crate) arguments: String,
}

/// Why the answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    StopSequence(String),
    Length,
    ToolCalls,
    ContentFilter,
}

/// One of `n` answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    /// Reasoning, token by token.
    pub(crate) reasoning: Vec<String>,
    /// Text, token by token.
    pub(crate) text: Vec<String>,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) finish: Finish,
}

impl Choice {
    pub(crate) fn text(&self) -> String {
        self.text.concat()
    }

    pub(crate) fn reasoning(&self) -> String {
        self.reasoning.concat()
    }

    /// Visible tokens: text and calls.
    fn visible(&self) -> u64 {
        let calls: u64 =
            self.calls.iter().map(|call| text::count(&call.name) + text::count(&call.arguments)).sum();
        self.text.len() as u64 + calls
    }
}

/// Tokens, each counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// All input, cached included.
    pub(crate) input: u64,
    /// The part of `input` that was cached.
    pub(crate) cached: u64,
    /// Visible output.
    pub(crate) output: u64,
    /// Hidden output, not in `output`.
    pub(crate) reasoning: u64,
}

impl Usage {
    /// All output.
    pub(crate) fn produced(&self) -> u64 {
        self.output + self.reasoning
    }
}

/// What the service says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) choices: Vec<Choice>,
    pub(crate) usage: Usage,
}

/// Reasoning and text of an echo are bounded where nobody says how long they should be.
const ECHO_TOKENS: usize = 256;

impl Answer {
    /// Composes the answer to a prompt.
    ///
    /// - `wanted`: visible text tokens, where the request (or the scenario) asks for a length.
    pub(crate) fn compose(prompt: &Prompt, wanted: Option<u64>, dice: &mut fastrand::Rng) -> Self {
        let wanted = prompt.marker("output-tokens").or(wanted);
        let choices: Vec<Choice> =
            (0..prompt.choices.max(1)).map(|n| choice(prompt, n, wanted, dice)).collect();
        let usage = Usage {
            input: prompt.input_tokens,
            cached: prompt.cached_tokens(),
            output: choices.iter().map(Choice::visible).sum(),
            reasoning: choices.iter().map(|choice| choice.reasoning.len() as u64).sum(),
        };
        Self { choices, usage }
    }

    /// The same, withheld by a content filter: no text, no calls.
    pub(crate) fn filtered(mut self) -> Self {
        for choice in &mut self.choices {
            *choice = Choice {
                reasoning: Vec::new(),
                text: Vec::new(),
                calls: Vec::new(),
                finish: Finish::ContentFilter,
            };
        }
        self.usage.output = 0;
        self.usage.reasoning = 0;
        self
    }
}

fn choice(prompt: &Prompt, index: u32, wanted: Option<u64>, dice: &mut fastrand::Rng) -> Choice {
    let reasoning = reasoning(prompt, dice);
    let room = prompt.max_output.map(|most| {
        if prompt.limit_covers_reasoning { most.saturating_sub(reasoning.len() as u64) } else { most }
    });
    let calls = calls(prompt);
    if !calls.is_empty() {
        return tool_choice(calls, reasoning, room);
    }
    let mut text = match &prompt.format {
        Format::Text => spoken(prompt, index, wanted, dice),
        Format::JsonObject => tokens(&serde_json::json!({"answer": echo(prompt, index)}).to_string()),
        Format::JsonSchema(schema) => tokens(&schema::example(schema).to_string()),
    };
    let mut finish = Finish::Stop;
    if let Some(sequence) = cut_at_stop(&mut text, &prompt.stop) {
        finish = Finish::StopSequence(sequence);
    }
    if let Some(room) = room.filter(|room| (text.len() as u64) > *room) {
        text.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        finish = Finish::Length;
    }
    Choice { reasoning, text, calls: Vec::new(), finish }
}

/// Arguments that do not fit are cut, as a real model's are, and the reason says so.
fn tool_choice(mut calls: Vec<ToolCall>, reasoning: Vec<String>, room: Option<u64>) -> Choice {
    let mut left = room.unwrap_or(u64::MAX);
    let mut finish = Finish::ToolCalls;
    for call in &mut calls {
        left = left.saturating_sub(text::count(&call.name));
        let needed = text::count(&call.arguments);
        if needed > left {
            call.arguments =
                text::tokens(&call.arguments).take(usize::try_from(left).unwrap_or(usize::MAX)).collect();
            finish = Finish::Length;
        }
        left = left.saturating_sub(needed);
    }
    Choice { reasoning, text: Vec::new(), calls, finish }
}

fn reasoning(prompt: &Prompt, dice: &mut fastrand::Rng) -> Vec<String> {
    let wanted = prompt.marker("reasoning-tokens").unwrap_or(prompt.reasoning);
    // A model that thinks leaves itself room to speak.
    let most = prompt.max_output.filter(|_| prompt.limit_covers_reasoning).map_or(u64::MAX, |most| most / 2);
    (0..wanted.min(most)).map(|_| text::filler(dice).to_owned()).collect()
}

/// Which tools to call: those that must be, and those the user asks for by writing `call:NAME`.
fn calls(prompt: &Prompt) -> Vec<ToolCall> {
    let call = |tool: &Tool| ToolCall {
        name: tool.name.clone(),
        arguments: schema::example(&tool.schema).to_string(),
    };
    let asked = |tool: &&Tool| {
        prompt.last_user.match_indices("call:").any(|(at, _)| {
            prompt.last_user[at + "call:".len()..]
                .strip_prefix(tool.name.as_str())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '-'))
        })
    };
    let most = if prompt.one_tool { 1 } else { usize::MAX };
    match &prompt.tool_choice {
        ToolChoice::None => Vec::new(),
        ToolChoice::Named(name) => {
            prompt.tools.iter().filter(|tool| tool.name == *name).take(1).map(call).collect()
        }
        ToolChoice::Auto if !prompt.tool_results.is_empty() => Vec::new(),
        ToolChoice::Auto => prompt.tools.iter().filter(asked).take(most).map(call).collect(),
        ToolChoice::Required => {
            let asked: Vec<ToolCall> = prompt.tools.iter().filter(asked).take(most).map(call).collect();
            if asked.is_empty() { prompt.tools.iter().take(1).map(call).collect() } else { asked }
        }
    }
}

fn echo(prompt: &Prompt, index: u32) -> String {
    let mut said = String::new();
    if index > 0 {
        said.push_str(&format!("Choice {}. ", index + 1));
    }
    if prompt.last_user.contains("[[echo-system]]") {
        said.push_str(&format!("System prompt: {}. ", prompt.system));
    }
    if prompt.images > 0 {
        said.push_str(&format!("Images: {}. ", prompt.images));
    }
    if prompt.tool_results.is_empty() {
        said.push_str(&format!("You said: {}", prompt.last_user));
    } else {
        said.push_str(&format!("The tool answered: {}", prompt.tool_results.join("; ")));
    }
    said
}

fn spoken(prompt: &Prompt, index: u32, wanted: Option<u64>, dice: &mut fastrand::Rng) -> Vec<String> {
    // A bound: a header may ask for a billion tokens.
    let wanted = wanted.map(|wanted| usize::try_from(wanted).unwrap_or(usize::MAX).min(1_000_000));
    // Prompts are long and answers short: only what is said again is cut into tokens.
    let echo = echo(prompt, index);
    let mut said: Vec<String> =
        text::tokens(&echo).take(wanted.unwrap_or(ECHO_TOKENS)).map(str::to_owned).collect();
    while wanted.is_some_and(|wanted| said.len() < wanted) {
        said.push(text::filler(dice).to_owned());
    }
    if !prompt.prefill.is_empty() {
        // Only an answer that begins like this one can be gone on with; any other is begun again.
        let whole = said.concat();
        return tokens(whole.strip_prefix(prompt.prefill.as_str()).unwrap_or(&whole));
    }
    said
}

fn tokens(said: &str) -> Vec<String> {
    text::tokens(said).map(str::to_owned).collect()
}

/// Ends the text before the earliest stop sequence, and says which it was.
fn cut_at_stop(said: &mut Vec<String>, stops: &[String]) -> Option<String> {
    let whole = said.concat();
    let (end, sequence) = stops
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| whole.find(stop.as_str()).map(|at| (at, stop)))
        .min_by_key(|(at, _)| *at)?;
    *said = tokens(&whole[..end]);
    Some(sequence.clone())
}

/// Puts tokens together into events of `per_event`: the text of each and how many tokens it holds.
pub(crate) fn events(tokens: &[String], per_event: usize) -> impl Iterator<Item = (String, u32)> {
    tokens.chunks(per_event.max(1)).map(|chunk| (chunk.concat(), chunk.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prompt(text: &str) -> Prompt {
        Prompt { last_user: text.into(), input_tokens: 100, ..Prompt::new() }
    }

    fn compose(prompt: &Prompt, wanted: Option<u64>) -> Answer {
        Answer::compose(prompt, wanted, &mut fastrand::Rng::with_seed(1))
    }

    fn lookup() -> Tool {
        Tool {
            name: "lookup".into(),
            schema: json!({"type": "object", "properties": {"q": {"type": "string"}}}),
        }
    }

    #[test]
    fn an_answer_echoes_the_last_user_text() {
        let answer = compose(&prompt("Hello there"), None);
        assert_eq!(answer.choices[0].text(), "You said: Hello there");
        assert_eq!(answer.usage.output, text::count("You said: Hello there"));
        assert_eq!(answer.choices[0].finish, Finish::Stop);
    }

    #[test]
    fn a_wanted_length_is_met_exactly_and_a_marker_wins() {
        assert_eq!(compose(&prompt("Hi"), Some(50)).usage.output, 50);
        assert_eq!(compose(&prompt("Hi, a long text"), Some(2)).usage.output, 2);
        assert_eq!(compose(&prompt("Hi [[output-tokens:9]]"), Some(50)).usage.output, 9);
    }

    #[test]
    fn the_output_limit_cuts_and_says_so() {
        let answer = compose(&Prompt { max_output: Some(10), ..prompt("Hi") }, Some(11));
        assert_eq!((answer.usage.output, &answer.choices[0].finish), (10, &Finish::Length));
        let answer = compose(&Prompt { max_output: Some(10), ..prompt("Hi") }, Some(10));
        assert_eq!(answer.choices[0].finish, Finish::Stop);
    }

    #[test]
    fn reasoning_counts_towards_the_limit_only_where_the_vendor_says_so() {
        let thinking = Prompt { max_output: Some(20), reasoning: 8, ..prompt("Hi") };
        let answer = compose(&thinking, Some(100));
        assert_eq!((answer.usage.reasoning, answer.usage.output), (8, 12));
        let grok = Prompt { limit_covers_reasoning: false, ..thinking };
        assert_eq!(compose(&grok, Some(100)).usage.output, 20);
    }

    #[test]
    fn the_earliest_stop_sequence_ends_the_text() {
        let stops = vec!["world".to_owned(), "lo".to_owned()];
        let answer = compose(&Prompt { stop: stops, ..prompt("Hello world") }, None);
        assert_eq!(answer.choices[0].text(), "You said: Hel");
        assert_eq!(answer.choices[0].finish, Finish::StopSequence("lo".into()));
    }

    #[test]
    fn tools_are_called_when_forced_or_asked_for_and_answered_afterwards() {
        let tools = vec![lookup(), Tool { name: "lookup2".into(), schema: json!({}) }];
        let with = |text: &str, choice| Prompt { tools: tools.clone(), tool_choice: choice, ..prompt(text) };
        let names = |prompt: &Prompt| -> Vec<String> {
            compose(prompt, None).choices[0].calls.iter().map(|call| call.name.clone()).collect()
        };
        assert!(names(&with("hi", ToolChoice::Auto)).is_empty());
        assert_eq!(names(&with("call:lookup please", ToolChoice::Auto)), ["lookup"]);
        assert_eq!(names(&with("call:lookup call:lookup2", ToolChoice::Auto)), ["lookup", "lookup2"]);
        assert_eq!(names(&with("hi", ToolChoice::Required)), ["lookup"]);
        assert_eq!(names(&with("hi", ToolChoice::Named("lookup2".into()))), ["lookup2"]);
        assert!(names(&with("call:lookup", ToolChoice::None)).is_empty());
        let answered = Prompt { tool_results: vec!["42".into()], ..with("call:lookup", ToolChoice::Auto) };
        assert_eq!(compose(&answered, None).choices[0].text(), "The tool answered: 42");
    }

    #[test]
    fn structured_output_satisfies_its_schema() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let answer = compose(&Prompt { format: Format::JsonSchema(schema), ..prompt("Hi") }, None);
        assert_eq!(answer.choices[0].text(), r#"{"n":1}"#);
    }

    #[test]
    fn cached_tokens_are_part_of_the_input() {
        let answer = compose(&prompt("Hi [[cached-tokens:60]]"), None);
        assert_eq!((answer.usage.input, answer.usage.cached), (100, 60));
        assert_eq!(compose(&prompt("Hi [[cached-tokens:600]]"), None).usage.cached, 100);
    }

    #[test]
    fn input_counts_as_a_marker_says() {
        let told = prompt("Hi [[input-tokens:7000]]").counted_as_told();
        assert_eq!(compose(&told, None).usage.input, 7_000);
        assert_eq!(prompt("Hi").counted_as_told().input_tokens, 100);
    }

    #[test]
    fn several_choices_are_told_apart() {
        let answer = compose(&Prompt { choices: 2, ..prompt("Hi") }, None);
        assert_eq!(answer.choices[1].text(), "Choice 2. You said: Hi");
    }
}
