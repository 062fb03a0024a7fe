//! The four protocols behind one face: read a prompt, write an answer, whole or as a stream, and break it in the
//! protocol's own way.

use bytes::Bytes;
use http::request::Parts;
use serde_json::{Value, json};

use crate::answer::{Answer, Prompt};
use crate::clock::Clock;
use crate::delivery::Inserts;
use crate::fault::{Fault, FaultSpec};
use crate::problem::{Problem, Refusal};
use crate::provider::{Endpoint, Provider, Route};
use crate::replies;
use crate::wire::anthropic::MessagesOptions;
use crate::wire::chat::{self, ChatOptions};
use crate::wire::google::GoogleOptions;
use crate::wire::responses::ResponsesOptions;
use crate::wire::{Frame, Mint, anthropic, google, responses};

/// A protocol and what its answers depend on besides the prompt.
pub(crate) enum Protocol {
    Chat(Provider, ChatOptions),
    Responses(Provider, ResponsesOptions),
    Messages(MessagesOptions),
    Google(GoogleOptions),
}

impl Protocol {
    pub(crate) fn parse(
        route: &Route,
        model: &str,
        body: &Value,
        parts: &Parts,
    ) -> Result<(Prompt, Self), Problem> {
        let provider = route.provider;
        if model.is_empty() {
            return Err(match body.get("model") {
                None | Some(Value::Null) => Problem::Missing("model".into()),
                Some(_) => {
                    Problem::InvalidValue { param: "model".into(), message: "Invalid model name.".into() }
                }
            });
        }
        match route.endpoint {
            Endpoint::Responses => {
                let (prompt, options) = responses::parse(provider, model, body)?;
                Ok((prompt, Self::Responses(provider, options)))
            }
            Endpoint::Messages => {
                let (prompt, options) = anthropic::parse(model, body, &parts.headers)?;
                Ok((prompt, Self::Messages(options)))
            }
            Endpoint::GenerateContent | Endpoint::StreamGenerateContent => {
                let stream = route.endpoint == Endpoint::StreamGenerateContent;
                let (prompt, options) = google::parse(model, body, stream, parts.uri.query())?;
                Ok((prompt, Self::Google(options)))
            }
            _ => {
                let (prompt, options) = chat::parse(provider, model, body)?;
                Ok((prompt, Self::Chat(provider, options)))
            }
        }
    }

    fn provider(&self) -> Provider {
        match self {
            Self::Chat(provider, _) | Self::Responses(provider, _) => *provider,
            Self::Messages(_) => Provider::Anthropic,
            Self::Google(_) => Provider::Google,
        }
    }

    /// The refusal that stands for a fault of streams when the answer is whole: an error in the stream becomes the
    /// HTTP error it corresponds to.
    pub(crate) fn failed(
        &self,
        fault: Option<&FaultSpec>,
        stream: bool,
        model: &str,
        clock: &Clock,
    ) -> Option<Refusal> {
        let equivalent = match fault?.fault {
            Fault::ErrorInStream | Fault::ErrorInStreamAlternative if !stream => Fault::Overloaded,
            Fault::StatusFailed if !stream && !matches!(self, Self::Responses(..)) => Fault::ServerError,
            _ => return None,
        };
        let context =
            replies::Context { provider: self.provider(), endpoint: Endpoint::Unknown, model, clock };
        context.reply(&FaultSpec::new(equivalent))
    }

    /// The body of a whole answer.
    pub(crate) fn whole(
        &self,
        prompt: &Prompt,
        answer: &Answer,
        fault: Option<&FaultSpec>,
        mint: &mut Mint,
    ) -> Value {
        match self {
            Self::Chat(_, options) => options.whole(prompt, answer, mint),
            Self::Responses(_, options) => options.whole(answer, failed_code(fault), mint),
            Self::Messages(options) => options.whole(answer, mint),
            Self::Google(options) => options.whole(answer, mint),
        }
    }

    /// The events of a stream.
    pub(crate) fn frames(
        &self,
        prompt: &Prompt,
        answer: &Answer,
        per_event: usize,
        fault: Option<&FaultSpec>,
        mint: &mut Mint,
    ) -> Vec<Frame> {
        match self {
            Self::Chat(_, options) => options.frames(prompt, answer, per_event, mint),
            Self::Responses(_, options) => options.frames(answer, per_event, failed_code(fault), mint),
            Self::Messages(options) => options.frames(answer, per_event, mint),
            Self::Google(options) => options.frames(answer, per_event, mint),
        }
    }

    pub(crate) fn stream_type(&self) -> &'static str {
        match self {
            Self::Google(options) if !options.events() => "application/json",
            Self::Messages(_) => "text/event-stream; charset=utf-8",
            _ => "text/event-stream",
        }
    }

    /// What faults put into this protocol's streams.
    pub(crate) fn inserts(&self, fault: Option<&FaultSpec>, mint: &mut Mint) -> Inserts {
        let alternative = fault.is_some_and(|spec| spec.fault == Fault::ErrorInStreamAlternative);
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        match self {
            Self::Chat(provider, _) => Inserts {
                ping: text(": keep-alive\n\n"),
                error: Bytes::from(chat_error(*provider, alternative)),
                malformed: text("data: {\"id\":\"malformed\",\"choices\":[{\"delta\":{\"content\":\n\n"),
                endless: text(
                    "data: {\"id\":\"endless\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
                ),
            },
            Self::Responses(_, options) => Inserts {
                ping: text(": keep-alive\n\n"),
                error: options.error_event(alternative),
                malformed: text(
                    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\n\n",
                ),
                endless: text(
                    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"",
                ),
            },
            Self::Messages(_) => Inserts {
                ping: text("event: ping\ndata: {\"type\": \"ping\"}\n\n"),
                error: Bytes::from(messages_error(alternative, &mint.request_id)),
                malformed: text(
                    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":\n\n",
                ),
                endless: text(
                    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"",
                ),
            },
            Self::Google(options) => options.inserts(alternative),
        }
    }
}

/// The code of a response that failed with status 200.
fn failed_code(fault: Option<&FaultSpec>) -> Option<&str> {
    fault.filter(|spec| spec.fault == Fault::StatusFailed).map(FaultSpec::word)
}

fn chat_error(provider: Provider, alternative: bool) -> String {
    let error = json!({"error": {"message": "The server had an error while processing your request. Sorry about that!",
        "type": "server_error", "param": null, "code": null}});
    match (provider, alternative) {
        (_, false) => format!("data: {error}\n\n"),
        (Provider::Grok, true) => {
            let own = json!({"code": "The service is currently unavailable",
                "error": "The model is currently at capacity. Please try again later."});
            format!("data: {own}\n\n")
        }
        (_, true) => format!("event: error\ndata: {error}\n\n"),
    }
}

fn messages_error(alternative: bool, request_id: &str) -> String {
    let (kind, message) =
        if alternative { ("api_error", "Internal server error") } else { ("overloaded_error", "Overloaded") };
    let error =
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id});
    format!("event: error\ndata: {error}\n\n")
}
