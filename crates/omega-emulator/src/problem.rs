//! Why a request is refused before anything is generated, in words common to all vendors, and each vendor's way of
//! saying it. Fields to branch on follow the vendors' documentation and SDKs; texts are near to the real ones.

use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::provider::Provider;

/// Something wrong with a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Problem {
    /// The body is not JSON; the text names the place.
    InvalidJson(String),
    /// A required field is absent.
    Missing(String),
    /// A field has another type than it must.
    WrongType {
        param: String,
        expected: &'static str,
        found: &'static str,
    },
    /// A field's value is not allowed.
    InvalidValue {
        param: String,
        message: String,
    },
    /// A field, or this value of it, is not supported by the model.
    Unsupported {
        param: String,
        message: String,
        code: &'static str,
    },
    /// No credential was sent.
    MissingKey,
    /// The credential is unknown.
    BadKey,
    /// Two different credentials were sent.
    TwoKeys,
    UnknownModel(String),
    UnknownPath {
        method: String,
        path: String,
    },
    WrongMethod {
        method: String,
    },
    TooLarge {
        limit: usize,
    },
    ContextLength {
        tokens: u64,
        limit: u64,
        param: &'static str,
    },
}

/// An answer that is not a generation: status, extra headers, body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RefusalBody,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RefusalBody {
    Json(Value),
    Html(String),
}

impl Refusal {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        let status = StatusCode::from_u16(status).expect("a status from this crate's own tables");
        Self { status, headers: HeaderMap::new(), body: RefusalBody::Json(body) }
    }

    /// Adds a header. A value that is no header value is left out.
    pub(crate) fn with(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// OpenAI's error body. Source: provider's OpenAPI description 2.3.0 (`ErrorResponse`).
pub(crate) fn openai(
    status: u16,
    kind: Option<&str>,
    code: Option<&str>,
    param: Option<&str>,
    message: &str,
) -> Refusal {
    Refusal::json(status, json!({"error": {"message": message, "type": kind, "param": param, "code": code}}))
}

/// Anthropic's error body; `request_id` is filled in when the answer is sent.
/// Source: platform.claude.com, Errors, read 2026-11-23; `error.details` from `@anthropic-ai/sdk` 1.12.0.
pub(crate) fn anthropic(status: u16, kind: &str, error_code: Option<&str>, message: &str) -> Refusal {
    let mut error = json!({"type": kind, "message": message});
    if let Some(code) = error_code {
        error["details"] = json!({"error_code": code});
    }
    Refusal::json(status, json!({"type": "error", "error": error, "request_id": null}))
}

/// Google's error body. Source: ai.google.dev, Troubleshooting, read 2026-11-23.
pub(crate) fn google(code: u16, status: &str, message: &str, details: Vec<Value>) -> Refusal {
    let mut error = json!({"code": code, "message": message, "status": status});
    if !details.is_empty() {
        error["details"] = Value::Array(details);
    }
    Refusal::json(code, json!({"error": error}))
}

/// xAI's error body: a sentence and a string. Source: responses published in bug reports of integrations, 2026.
pub(crate) fn grok(status: u16, code: &str, message: &str) -> Refusal {
    Refusal::json(status, json!({"code": code, "error": message}))
}

const GROK_INVALID: &str = "Client specified an invalid argument";

impl Problem {
    /// The vendor's answer to this problem.
    pub(crate) fn refuse(&self, provider: Provider) -> Refusal {
        match provider {
            Provider::OpenAi => self.refuse_openai(),
            Provider::Anthropic => self.refuse_anthropic(),
            Provider::Google => self.refuse_google(),
            Provider::Grok => self.refuse_grok(),
        }
    }

    fn refuse_openai(&self) -> Refusal {
        let invalid = |code, param: Option<&str>, message: &str| {
            openai(400, Some("invalid_request_error"), code, param, message)
        };
        match self {
            Self::InvalidJson(place) => invalid(
                None,
                None,
                &format!(
                    "We could not parse the JSON body of your request. (HINT: the JSON payload is not valid: {place})"
                ),
            ),
            Self::Missing(param) => invalid(
                Some("missing_required_parameter"),
                Some(param),
                &format!("Missing required parameter: '{param}'."),
            ),
            Self::WrongType { param, expected, found } => invalid(
                Some("invalid_type"),
                Some(param),
                &format!("Invalid type for '{param}': expected {expected}, but got {found} instead."),
            ),
            Self::InvalidValue { param, message } => invalid(Some("invalid_value"), Some(param), message),
            Self::Unsupported { param, message, code } => invalid(Some(code), Some(param), message),
            Self::ContextLength { tokens, limit, param: "input" } => invalid(
                Some("context_length_exceeded"),
                Some("input"),
                &format!(
                    "Your input exceeds the context window of this model ({tokens} > {limit}). Please adjust your input and try again."
                ),
            ),
            Self::ContextLength { tokens, limit, param } => invalid(
                Some("context_length_exceeded"),
                Some(param),
                &format!(
                    "This model's maximum context length is {limit} tokens. However, your messages resulted in {tokens} tokens. Please reduce the length of the messages."
                ),
            ),
            _ => self.refuse_openai_access(),
        }
    }

    /// Problems of who asks and for what, rather than of a field.
    fn refuse_openai_access(&self) -> Refusal {
        match self {
            Self::MissingKey => openai(
                401,
                Some("invalid_request_error"),
                None,
                None,
                "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            ),
            Self::BadKey | Self::TwoKeys => openai(
                401,
                Some("invalid_request_error"),
                Some("invalid_api_key"),
                None,
                "Incorrect API key provided: sk-***. You can find your API key at https://platform.openai.com/account/api-keys.",
            ),
            Self::UnknownModel(model) => openai(
                404,
                Some("invalid_request_error"),
                Some("model_not_found"),
                None,
                &format!("The model `{model}` does not exist or you do not have access to it."),
            ),
            Self::UnknownPath { method, path } => openai(
                404,
                Some("invalid_request_error"),
                None,
                None,
                &format!("Invalid URL ({method} {path})"),
            ),
            Self::WrongMethod { method } => openai(
                405,
                Some("invalid_request_error"),
                Some("method_not_supported"),
                None,
                &format!("Not allowed to {method} on this URL."),
            ),
            Self::TooLarge { limit } => openai(
                413,
                Some("invalid_request_error"),
                None,
                None,
                &format!("Maximum content size limit ({limit}) exceeded"),
            ),
            _ => openai(400, Some("invalid_request_error"), None, None, "Invalid request."),
        }
    }

    fn refuse_anthropic(&self) -> Refusal {
        let invalid = |message: &str| anthropic(400, "invalid_request_error", None, message);
        match self {
            Self::InvalidJson(place) => invalid(&format!("The request body is not valid JSON: {place}")),
            Self::Missing(param) => invalid(&format!("{}: Field required", dotted(param))),
            Self::WrongType { param, expected, .. } => {
                invalid(&format!("{}: Input should be a valid {expected}", dotted(param)))
            }
            Self::InvalidValue { param, message } | Self::Unsupported { param, message, .. } => {
                invalid(&format!("{}: {message}", dotted(param)))
            }
            Self::MissingKey => anthropic(401, "authentication_error", None, "x-api-key header is required"),
            Self::BadKey => anthropic(401, "authentication_error", None, "invalid x-api-key"),
            Self::TwoKeys => anthropic(
                401,
                "authentication_error",
                None,
                "Both x-api-key and Authorization were sent, with different credentials.",
            ),
            Self::UnknownModel(model) => anthropic(404, "not_found_error", None, &format!("model: {model}")),
            Self::UnknownPath { .. } => anthropic(404, "not_found_error", None, "Not found"),
            Self::WrongMethod { .. } => anthropic(405, "invalid_request_error", None, "Method Not Allowed"),
            Self::TooLarge { .. } => {
                anthropic(413, "request_too_large", None, "Request exceeds the maximum size")
            }
            Self::ContextLength { tokens, limit, .. } => {
                invalid(&format!("prompt is too long: {tokens} tokens > {limit} maximum"))
            }
        }
    }

    fn refuse_google(&self) -> Refusal {
        let invalid = |message: &str| google(400, "INVALID_ARGUMENT", message, Vec::new());
        match self {
            Self::InvalidJson(place) => {
                invalid(&format!("Invalid JSON payload received. Unable to parse the request: {place}"))
            }
            Self::Missing(param) => {
                invalid(&format!("* GenerateContentRequest.{param}: {param} is not specified\n"))
            }
            Self::WrongType { param, expected, found } => {
                invalid(&format!("Invalid value at '{param}' (expected {expected}), found {found}"))
            }
            Self::InvalidValue { param, message } | Self::Unsupported { param, message, .. } => {
                invalid(&format!("* GenerateContentRequest.{param}: {message}\n"))
            }
            Self::MissingKey => google(
                403,
                "PERMISSION_DENIED",
                "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API.",
                Vec::new(),
            ),
            Self::BadKey | Self::TwoKeys => google(
                400,
                "INVALID_ARGUMENT",
                "API key not valid. Please pass a valid API key.",
                vec![json!({
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com",
                    "metadata": {"service": "generativelanguage.googleapis.com"},
                })],
            ),
            Self::UnknownModel(model) => google(
                404,
                "NOT_FOUND",
                &format!(
                    "models/{model} is not found for this API version, or is not supported for this method. Call ListModels to see the list of available models and their supported methods."
                ),
                Vec::new(),
            ),
            Self::UnknownPath { path, .. } => {
                google(404, "NOT_FOUND", &format!("Requested entity was not found: {path}"), Vec::new())
            }
            Self::WrongMethod { method } => google(
                405,
                "INVALID_ARGUMENT",
                &format!("{method} is not allowed on this resource."),
                Vec::new(),
            ),
            Self::TooLarge { limit } => google(
                413,
                "INVALID_ARGUMENT",
                &format!("Request payload size exceeds the limit: {limit} bytes."),
                Vec::new(),
            ),
            Self::ContextLength { tokens, limit, .. } => invalid(&format!(
                "The input token count ({tokens}) exceeds the maximum number of tokens allowed ({limit})."
            )),
        }
    }

    fn refuse_grok(&self) -> Refusal {
        let invalid = |message: &str| grok(400, GROK_INVALID, message);
        let body = |detail: String| {
            let text = format!("Failed to deserialize the JSON body into the target type: {detail}");
            grok(422, "The request body is not valid", &text)
        };
        match self {
            Self::InvalidJson(place) => {
                invalid(&format!("Failed to parse the request body as JSON: {place}"))
            }
            Self::Missing(param) => body(format!("missing field `{param}`")),
            Self::WrongType { param, expected, found } => {
                body(format!("{param}: invalid type: {found}, expected {expected}"))
            }
            Self::InvalidValue { message, .. } | Self::Unsupported { message, .. } => invalid(message),
            Self::MissingKey => grok(
                401,
                "The request does not have valid authentication credentials for the operation",
                "No authorization header or API key was provided.",
            ),
            Self::BadKey | Self::TwoKeys => invalid(
                "Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai.",
            ),
            Self::UnknownModel(model) => grok(
                404,
                "Some requested entity was not found",
                &format!("The model {model} does not exist or your team does not have access to it."),
            ),
            Self::UnknownPath { path, .. } => {
                grok(404, "Some requested entity was not found", &format!("The URL {path} was not found."))
            }
            Self::WrongMethod { method } => {
                grok(405, "Method not allowed", &format!("{method} is not allowed on this URL."))
            }
            Self::TooLarge { limit } => {
                grok(413, "Request body too large", &format!("The request body exceeds {limit} bytes."))
            }
            Self::ContextLength { tokens, limit, .. } => invalid(&format!(
                "This model's maximum prompt length is {limit} but the request contains {tokens} tokens."
            )),
        }
    }
}

/// `messages[1].content` as Anthropic writes it: `messages.1.content`.
fn dotted(param: &str) -> String {
    param.replace('[', ".").replace(']', "")
}
