//! From a model's name to the provider that serves it. A table.
//!
//! Source: the model lists of the official SDKs, November 2026 (`openai` 3.54.0, `anthropic` 2.12.0, `google-genai`
//! 3.4.0, `xai-sdk` 1.21.0).

use crate::{ChatRequest, Dialect, ReasoningEffort};

/// Where a model is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'m> {
    /// The provider's protocol.
    pub dialect: Dialect,
    /// The model as the provider names it: without a `provider/` in front.
    pub model: &'m str,
}

/// Finds the provider of a model.
///
/// `provider/model` names it outright; otherwise the longest known prefix decides, whatever the letter case. `None` for
/// names nobody is known to serve, and for open-weights families such as `gpt-oss-*` that their maker does not serve:
/// say which provider is meant.
pub fn route(model: &str) -> Option<Route<'_>> {
    let model = model.trim();
    if let Some((first, rest)) = model.split_once('/')
        && let Some(dialect) = named_provider(first)
    {
        let rest = strip_prefix_ignore_case(rest, "models/").unwrap_or(rest);
        return (!rest.is_empty()).then_some(Route { dialect, model: rest });
    }
    let bare = strip_prefix_ignore_case(model, "models/").unwrap_or(model);
    let dialect = known_family(bare)?;
    Some(Route { dialect, model: bare })
}

fn named_provider(name: &str) -> Option<Dialect> {
    match name.to_ascii_lowercase().as_str() {
        "openai" => Some(Dialect::OpenAi),
        "anthropic" => Some(Dialect::Anthropic),
        "google" | "gemini" => Some(Dialect::Google),
        "xai" | "x-ai" | "grok" => Some(Dialect::Grok),
        _ => None,
    }
}

fn known_family(model: &str) -> Option<Dialect> {
    /// The longest match wins; `None` is a family its maker does not serve.
    const PREFIXES: &[(&str, Option<Dialect>)] = &[
        ("gpt-", Some(Dialect::OpenAi)),
        ("gpt-oss", None),
        ("chatgpt-", Some(Dialect::OpenAi)),
        ("codex-", Some(Dialect::OpenAi)),
        ("computer-use-", Some(Dialect::OpenAi)),
        ("text-embedding-", Some(Dialect::OpenAi)),
        ("ft:gpt-", Some(Dialect::OpenAi)),
        ("ft:o", Some(Dialect::OpenAi)),
        ("claude-", Some(Dialect::Anthropic)),
        ("gemini-", Some(Dialect::Google)),
        ("gemma-", Some(Dialect::Google)),
        ("learnlm-", Some(Dialect::Google)),
        ("nano-banana", Some(Dialect::Google)),
        ("grok-", Some(Dialect::Grok)),
    ];
    let longest = PREFIXES
        .iter()
        .filter(|(prefix, _)| strip_prefix_ignore_case(model, prefix).is_some())
        .max_by_key(|(prefix, _)| prefix.len());
    match longest {
        Some((_, dialect)) => *dialect,
        None => is_o_series(model).then_some(Dialect::OpenAi),
    }
}

/// `o1`, `o3`, `o4`, alone or followed by a dash.
pub(crate) fn is_o_series(model: &str) -> bool {
    ["o1", "o3", "o4"].iter().any(|family| {
        strip_prefix_ignore_case(model, family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

/// Whether OpenAI treats it as a reasoning model: it takes `max_completion_tokens` and refuses `max_tokens`.
pub(crate) fn is_openai_reasoning(model: &str) -> bool {
    let model = strip_prefix_ignore_case(model, "ft:").unwrap_or(model);
    is_o_series(model)
        || ["gpt-5", "gpt-6"].iter().any(|family| strip_prefix_ignore_case(model, family).is_some())
}

/// Whether the model is known to reason before the first content comes, so that silence at first is not a fault.
///
/// - `model`: with or without a provider in front.
/// - `request`: says more or less effort than the model's own.
pub fn reasons_first(model: &str, request: &ChatRequest) -> bool {
    let thinking = request.extra.get("thinking").filter(|thinking| !thinking.is_null());
    let thinking = thinking.map(|thinking| thinking["type"] != "disabled");
    reasons_first_as_asked(model, request.reasoning_effort.as_ref(), thinking)
}

/// The same of a request that is known by its envelope.
///
/// - `effort`, `thinking`: what the request says of them, if anything.
pub fn reasons_first_as_asked(model: &str, effort: Option<&ReasoningEffort>, thinking: Option<bool>) -> bool {
    match (effort, thinking) {
        (Some(ReasoningEffort::None | ReasoningEffort::Minimal), _) => return false,
        (Some(_), _) => return true,
        (None, Some(thinking)) => return thinking,
        (None, None) => {}
    }
    let bare = route(model).map_or(model, |route| route.model).to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| bare.contains(word));
    if any(&["non-reasoning", "-chat", "flash-lite", "embedding"]) {
        return false;
    }
    if any(&["-reasoning", "-thinking", "reasoner", "deepseek-r1", "-multi-agent", "grok-3-mini"]) {
        return true;
    }
    // Claude reasons before it answers only where the request says so (above). Gemini 2.5 and later think by default.
    is_openai_reasoning(&bare)
        || (bare.starts_with("grok-") && !bare.starts_with("grok-3") && !bare.starts_with("grok-2"))
        || (bare.starts_with("gemini-")
            && !["gemini-1", "gemini-2.0"].iter().any(|old| bare.starts_with(old)))
}

/// Whether a model goes on from the last assistant message of a conversation as if it had written it (prefill).
///
/// Claude does up to its 4.5 generation, unless it thinks; from 4.6 on such a request is refused. Of no other vendor's
/// models is it documented: they may answer anew instead.
///
/// Source: platform.claude.com, migration guide and release notes of 2026-02-05 ("Opus 4.6 does not support prefilling
/// assistant messages"); livekit/agents#4907 and #7217 for Sonnet 4.6, 4.7, 4.8 and 5; read 2026-11-26.
pub fn takes_prefill(dialect: Dialect, model: &str) -> bool {
    if dialect != Dialect::Anthropic {
        return false;
    }
    let bare = route(model).map_or(model, |route| route.model).to_ascii_lowercase();
    let Some(rest) = bare.strip_prefix("claude-") else { return false };
    if rest.starts_with("2") || rest.starts_with("3") || rest.starts_with("instant") {
        return true;
    }
    // `claude-sonnet-4`, `claude-sonnet-4-20250514`, `claude-opus-4-1-20250805`: a version is one or two numbers of one
    // digit, a date has eight.
    let mut numbers = rest.split('-').skip(1).map(|part| part.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(4)), None) => true,
        (Some(Ok(4)), Some(Ok(minor))) => minor <= 5 || minor > 99,
        _ => false,
    }
}

fn strip_prefix_ignore_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}
