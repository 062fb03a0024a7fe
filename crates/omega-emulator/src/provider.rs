//! The four providers and the endpoints this emulator serves for each of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A provider that the emulator pretends to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// OpenAI: chat completions, responses, embeddings.
    OpenAi,
    /// Anthropic: messages, both API versions.
    Anthropic,
    /// Google's Gemini API, key-based.
    #[serde(alias = "gemini")]
    Google,
    /// xAI, whose models are called Grok.
    #[serde(alias = "xai")]
    Grok,
}

impl Provider {
    /// All of them, in the order of their names' appearance in the documentation.
    pub const ALL: [Self; 4] = [Self::OpenAi, Self::Anthropic, Self::Google, Self::Grok];

    /// The lower-case name: `openai`, `anthropic`, `google`, `grok`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::Grok => "grok",
        }
    }

    /// The provider of a name; `gemini`, `xai` and `x-ai` are understood too.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "openai" => Some(Self::OpenAi),
            "anthropic" => Some(Self::Anthropic),
            "google" | "gemini" => Some(Self::Google),
            "grok" | "xai" | "x-ai" => Some(Self::Grok),
            _ => None,
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Endpoint {
    /// `POST …/chat/completions` (OpenAI, xAI).
    ChatCompletions,
    /// `POST …/responses` (OpenAI, xAI).
    Responses,
    /// `POST …/responses/input_tokens` (OpenAI).
    ResponsesInputTokens,
    /// `POST …/embeddings` (OpenAI).
    Embeddings,
    /// `POST /v1/messages` (Anthropic).
    Messages,
    /// `POST /v1/messages/count_tokens` (Anthropic).
    CountTokens,
    /// `POST …/models/X:generateContent` (Google).
    GenerateContent,
    /// `POST …/models/X:streamGenerateContent` (Google).
    StreamGenerateContent,
    /// `POST …/models/X:countTokens` (Google).
    GoogleCountTokens,
    /// `POST …/models/X:embedContent` (Google).
    EmbedContent,
    /// `POST …/models/X:batchEmbedContents` (Google).
    BatchEmbedContents,
    /// `GET …/models`.
    Models,
    /// `GET …/models/X`.
    Model,
    /// Anything else under a provider's prefix.
    Unknown,
}

impl Endpoint {
    /// Whether it produces tokens, and so is subject to quotas, latency and stream faults.
    pub(crate) fn generates(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions
                | Self::Responses
                | Self::Messages
                | Self::GenerateContent
                | Self::StreamGenerateContent
        )
    }

    /// Whether it is read with GET.
    pub(crate) fn is_get(self) -> bool {
        matches!(self, Self::Models | Self::Model)
    }
}

/// A path, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) provider: Provider,
    pub(crate) endpoint: Endpoint,
    /// The model in the path (Google, `GET models/X`), percent-decoded.
    pub(crate) model: Option<String>,
}

/// Finds the provider and endpoint of a path. Prefixed paths always name a provider; unprefixed ones are accepted
/// where only one provider has them. `None`: nobody's path.
pub(crate) fn route(path: &str) -> Option<Route> {
    let rest = path.strip_prefix('/')?;
    let (first, tail) = rest.split_once('/').unwrap_or((rest, ""));
    match Provider::from_name(first) {
        Some(provider) => {
            let (endpoint, model) = endpoint(provider, tail);
            Some(Route { provider, endpoint, model })
        }
        None => unprefixed(rest),
    }
}

fn unprefixed(rest: &str) -> Option<Route> {
    let provider = match rest {
        "v1/messages" | "v1/messages/count_tokens" => Provider::Anthropic,
        _ if rest.starts_with("v1beta/") => Provider::Google,
        _ if rest.starts_with("v1/models/") && rest.contains(':') => Provider::Google,
        _ if rest.starts_with("v1/") => Provider::OpenAi,
        _ => return None,
    };
    let (endpoint, model) = endpoint(provider, rest);
    Some(Route { provider, endpoint, model })
}

fn endpoint(provider: Provider, path: &str) -> (Endpoint, Option<String>) {
    let Some((version, tail)) = path.split_once('/') else { return (Endpoint::Unknown, None) };
    let version_known = version == "v1" || (provider == Provider::Google && version == "v1beta");
    if !version_known {
        return (Endpoint::Unknown, None);
    }
    if tail == "models" {
        return (Endpoint::Models, None);
    }
    if let Some(model) = tail.strip_prefix("models/").filter(|model| !model.is_empty()) {
        return model_endpoint(provider, model);
    }
    let endpoint = match (provider, tail) {
        (Provider::OpenAi | Provider::Grok, "chat/completions") => Endpoint::ChatCompletions,
        (Provider::OpenAi | Provider::Grok, "responses") => Endpoint::Responses,
        (Provider::OpenAi, "responses/input_tokens") => Endpoint::ResponsesInputTokens,
        (Provider::OpenAi, "embeddings") => Endpoint::Embeddings,
        (Provider::Anthropic, "messages") => Endpoint::Messages,
        (Provider::Anthropic, "messages/count_tokens") => Endpoint::CountTokens,
        _ => Endpoint::Unknown,
    };
    (endpoint, None)
}

fn model_endpoint(provider: Provider, model: &str) -> (Endpoint, Option<String>) {
    let model = percent_decode(model);
    if provider != Provider::Google {
        return (Endpoint::Model, Some(model));
    }
    // The last colon: a fault suffix such as `+cut-after:3` has one of its own.
    let Some((name, method)) = model.rsplit_once(':') else { return (Endpoint::Model, Some(model)) };
    let endpoint = match method {
        "generateContent" => Endpoint::GenerateContent,
        "streamGenerateContent" => Endpoint::StreamGenerateContent,
        "countTokens" => Endpoint::GoogleCountTokens,
        "embedContent" => Endpoint::EmbedContent,
        "batchEmbedContents" => Endpoint::BatchEmbedContents,
        _ => Endpoint::Unknown,
    };
    (endpoint, Some(name.to_owned()))
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> (Provider, Endpoint, Option<String>) {
        let route = route(path).expect("a route");
        (route.provider, route.endpoint, route.model)
    }

    #[test]
    fn prefixed_paths_name_their_provider() {
        assert_eq!(found("/openai/v1/chat/completions"), (Provider::OpenAi, Endpoint::ChatCompletions, None));
        assert_eq!(found("/grok/v1/chat/completions").0, Provider::Grok);
        assert_eq!(found("/anthropic/v1/messages"), (Provider::Anthropic, Endpoint::Messages, None));
        assert_eq!(found("/grok/v1/embeddings").1, Endpoint::Unknown);
    }

    #[test]
    fn unprefixed_paths_work_where_only_one_provider_has_them() {
        assert_eq!(found("/v1/chat/completions").0, Provider::OpenAi);
        assert_eq!(found("/v1/messages").0, Provider::Anthropic);
        assert_eq!(found("/v1/models/gemini-2.5-pro:generateContent").0, Provider::Google);
        assert_eq!(found("/v1beta/models/gemini-2.5-pro:countTokens").1, Endpoint::GoogleCountTokens);
        assert_eq!(found("/v1/models/gpt-5.2"), (Provider::OpenAi, Endpoint::Model, Some("gpt-5.2".into())));
        assert_eq!(route("/nothing"), None);
    }

    #[test]
    fn a_fault_suffix_with_a_colon_stays_in_the_model_name() {
        let (_, endpoint, model) = found("/google/v1/models/gemini-2.5-pro%2Bcut-after:3:generateContent");
        assert_eq!(endpoint, Endpoint::GenerateContent);
        assert_eq!(model.as_deref(), Some("gemini-2.5-pro+cut-after:3"));
    }

    #[test]
    fn a_stray_percent_sign_is_kept() {
        assert_eq!(percent_decode("a%zz%4"), "a%zz%4");
    }
}
