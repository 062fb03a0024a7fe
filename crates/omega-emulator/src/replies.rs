//! Faults that are whole answers: a status, headers and a body as the vendor would send them.
//!
//! Where a fault belongs to one vendor, the others answer with their nearest equivalent, so that every fault can be
//! asked of every provider. Sources: the vendors' error documentation and SDKs, read 2026-11-23.

use serde_json::json;

use crate::clock::{Clock, wall};
use crate::fault::{Fault, FaultSpec};
use crate::limits::{self, decimal, hint_openai};
use crate::problem::{Problem, Refusal, RefusalBody, anthropic, google, grok, openai};
use crate::provider::{Endpoint, Provider};

const GROK_EXHAUSTED: &str = "Some resource has been exhausted";
const GROK_INVALID: &str = "Client specified an invalid argument";

/// What a refusal may mention.
pub(crate) struct Context<'a> {
    pub(crate) provider: Provider,
    pub(crate) endpoint: Endpoint,
    pub(crate) model: &'a str,
    pub(crate) clock: &'a Clock,
}

impl Context<'_> {
    /// The refusal of a fault; `None` if the fault is not a refusal but happens to a healthy answer.
    pub(crate) fn reply(&self, spec: &FaultSpec) -> Option<Refusal> {
        self.limit_reply(spec).or_else(|| self.billing_reply(spec)).or_else(|| self.status_reply(spec))
    }

    /// The plain 429, without any hint.
    fn rate_limit(&self) -> Refusal {
        let model = self.model;
        match self.provider {
            Provider::OpenAi => openai(
                429,
                Some("requests"),
                Some("rate_limit_exceeded"),
                None,
                &format!(
                    "Rate limit reached for {model} in organization org-emulated on requests per min (RPM)."
                ),
            ),
            Provider::Anthropic => anthropic(
                429,
                "rate_limit_error",
                None,
                "This request would exceed your organization's rate limit. Please try again later.",
            ),
            Provider::Google => google(
                429,
                "RESOURCE_EXHAUSTED",
                "Resource has been exhausted (e.g. check quota).",
                Vec::new(),
            ),
            Provider::Grok => grok(429, GROK_EXHAUSTED, "Too many requests for team emulated."),
        }
    }

    /// The plain 429 with the vendor's own hint.
    fn rate_limit_with_hint(&self, trace_seconds: f64) -> Refusal {
        let real = self.clock.real_seconds(trace_seconds);
        match self.provider {
            Provider::OpenAi => {
                let again = limits::go_duration(real);
                let message = format!(
                    "Rate limit reached for {} in organization org-emulated on requests per min (RPM): Limit 60, Used 60, Requested 1. Please try again in {again}.",
                    self.model
                );
                openai(429, Some("requests"), Some("rate_limit_exceeded"), None, &message)
                    .with("retry-after", decimal(real))
            }
            Provider::Google => limits::google_quota(
                "generate_requests_per_model",
                "GenerateRequestsPerMinutePerProjectPerModel-PaidTier",
                60,
                self.model,
                Some(real),
            ),
            Provider::Anthropic | Provider::Grok => self.rate_limit().with("retry-after", decimal(real)),
        }
    }

    fn limit_reply(&self, spec: &FaultSpec) -> Option<Refusal> {
        let real = self.clock.real_seconds(spec.seconds());
        let refusal = match spec.fault {
            Fault::RateLimited => self.rate_limit_with_hint(spec.seconds()),
            Fault::RateLimitedNoHint => self.rate_limit(),
            Fault::RateLimitedMs => {
                self.rate_limit().with("retry-after-ms", decimal((real * 1_000.0).ceil()))
            }
            Fault::RateLimitedDate => {
                // Rounded up: a date has whole seconds, and coming back early would not be obeying it.
                let ahead = jiff::SignedDuration::from_secs(real.ceil() as i64 + 1);
                let at = wall().checked_add(ahead).unwrap_or_else(|_| wall());
                self.rate_limit().with("retry-after", at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
            }
            Fault::RateLimitedRequestedOverLimit => self.over_limit(),
            Fault::SlowDown => self.slow_down(spec.seconds()),
            Fault::ShouldRetryFalse => {
                self.rate_limit().with("retry-after", "1").with("x-should-retry", "false")
            }
            Fault::ShouldRetryTrue => Problem::InvalidValue {
                param: "model".into(),
                message: "This request is refused although it may be repeated.".into(),
            }
            .refuse(self.provider)
            .with("x-should-retry", "true"),
            Fault::HostileRetryAfter => {
                let value = match spec.word() {
                    "negative" => "-30",
                    "garbage" => "soon, perhaps; later",
                    "infinite" => "inf",
                    _ => "999999999",
                };
                self.rate_limit().with("retry-after", value)
            }
            _ => return None,
        };
        Some(refusal)
    }

    fn over_limit(&self) -> Refusal {
        let model = self.model;
        match self.provider {
            Provider::OpenAi => openai(
                429,
                Some("tokens"),
                Some("rate_limit_exceeded"),
                None,
                &format!(
                    "Request too large for {model} in organization org-emulated on tokens per min (TPM): Limit 30000, Requested 48000. The input or output tokens must be reduced in order to run successfully."
                ),
            ),
            Provider::Anthropic => anthropic(
                429,
                "rate_limit_error",
                None,
                "This request would exceed your organization's rate limit of 30000 input tokens per minute.",
            ),
            Provider::Google => limits::google_quota(
                "generate_content_paid_tier_input_token_count",
                "GenerateContentInputTokensPerModelPerMinute-PaidTier",
                30_000,
                model,
                None,
            ),
            Provider::Grok => grok(
                429,
                GROK_EXHAUSTED,
                "Too many tokens for team emulated. Your team's rate limit is — Tokens per Minute (actual/limit): 65605/16000.",
            ),
        }
    }

    fn slow_down(&self, trace_seconds: f64) -> Refusal {
        match self.provider {
            Provider::OpenAi => hint_openai(
                openai(
                    429,
                    Some("rate_limit_error"),
                    Some("slow_down"),
                    None,
                    "Your traffic grew too quickly. Please slow down and increase it gradually.",
                ),
                trace_seconds,
                self.clock,
            ),
            Provider::Anthropic => anthropic(
                429,
                "rate_limit_error",
                Some("ramp_limit_exceeded"),
                "Your organization's usage increased too quickly. Please ramp up gradually.",
            )
            .with("retry-after", limits::retry_after(trace_seconds, self.clock)),
            Provider::Google | Provider::Grok => self.rate_limit_with_hint(trace_seconds),
        }
    }

    fn billing_reply(&self, spec: &FaultSpec) -> Option<Refusal> {
        let refusal = match spec.fault {
            Fault::InsufficientQuota => self.insufficient_quota(spec.word()),
            Fault::BillingNotActive => match self.provider {
                Provider::OpenAi => openai(
                    429,
                    Some("billing_not_active"),
                    Some("billing_not_active"),
                    None,
                    "Your account is not active, please check your billing details on our website.",
                ),
                _ => self.payment_required(),
            },
            Fault::SpendLimit => self.spend_limit(spec.word()),
            Fault::PaymentRequired => self.payment_required(),
            Fault::PerDayQuota => match self.provider {
                Provider::Google => limits::google_quota(
                    "generate_content_free_tier_requests",
                    "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
                    250,
                    self.model,
                    Some(self.clock.real_seconds(spec.seconds())),
                ),
                Provider::OpenAi => openai(
                    429,
                    Some("requests"),
                    Some("rate_limit_exceeded"),
                    None,
                    &format!(
                        "Rate limit reached for {} in organization org-emulated on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.",
                        self.model
                    ),
                ),
                _ => self.rate_limit(),
            },
            Fault::LimitZero => match self.provider {
                Provider::Google => limits::google_quota(
                    "generate_content_free_tier_requests",
                    "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
                    0,
                    self.model,
                    Some(self.clock.real_seconds(30.0)),
                ),
                Provider::OpenAi => openai(
                    429,
                    Some("requests"),
                    Some("rate_limit_exceeded"),
                    None,
                    &format!(
                        "Rate limit reached for {} in organization org-emulated on requests per min (RPM): Limit 0, Used 0, Requested 1.",
                        self.model
                    ),
                ),
                _ => self.rate_limit(),
            },
            _ => return None,
        };
        Some(refusal)
    }

    fn insufficient_quota(&self, code: &str) -> Refusal {
        match self.provider {
            Provider::OpenAi => openai(
                429,
                Some("insufficient_quota"),
                Some(code),
                None,
                "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
            ),
            Provider::Anthropic => self.spend_limit("enforced"),
            Provider::Google => google(
                429,
                "RESOURCE_EXHAUSTED",
                "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your project and billing.",
                Vec::new(),
            ),
            Provider::Grok => grok(
                429,
                GROK_EXHAUSTED,
                "Your team emulated has either used all available credits or reached its monthly spending limit. To continue making API requests, please purchase more credits or raise your spending limit.",
            ),
        }
    }

    fn spend_limit(&self, which: &str) -> Refusal {
        if self.provider != Provider::Anthropic {
            let code = if which == "credit-balance" {
                "credit_balance_exhausted"
            } else {
                "organization_spend_limit_exceeded"
            };
            return self.insufficient_quota(code);
        }
        match which {
            "contract" => anthropic(
                429,
                "rate_limit_error",
                Some("contract_spend_limit_reached"),
                "Your organization has reached the spend limit of its contract.",
            ),
            "usage-limits" => anthropic(
                400,
                "invalid_request_error",
                None,
                "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
            ),
            "credit-balance" => anthropic(
                400,
                "invalid_request_error",
                None,
                "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.",
            ),
            _ => anthropic(
                429,
                "rate_limit_error",
                Some("enforced_spend_limit_reached"),
                "Your organization has reached its monthly spend limit. Access resumes on 2026-12-01 at 00:00 UTC.",
            ),
        }
    }

    fn payment_required(&self) -> Refusal {
        match self.provider {
            Provider::Google => google(
                402,
                "RESOURCE_EXHAUSTED",
                "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your project and billing.",
                Vec::new(),
            ),
            Provider::Anthropic => anthropic(
                402,
                "billing_error",
                None,
                "There is a problem with your organization's payment method.",
            ),
            Provider::OpenAi => openai(
                402,
                Some("billing_error"),
                Some("payment_required"),
                None,
                "Payment is required to continue.",
            ),
            Provider::Grok => grok(402, "Payment required", "Your team has used all available credits."),
        }
    }

    fn status_reply(&self, spec: &FaultSpec) -> Option<Refusal> {
        let html = |status, title| Some(edge_page(status, title));
        let refusal = match spec.fault {
            Fault::BadGatewayHtml => return html(502, "Bad gateway"),
            Fault::Edge520 => return html(520, "Web server is returning an unknown error"),
            Fault::Edge521 => return html(521, "Web server is down"),
            Fault::Edge522 => return html(522, "Connection timed out"),
            Fault::Edge523 => return html(523, "Origin is unreachable"),
            Fault::Edge524 => return html(524, "A timeout occurred"),
            Fault::Overloaded | Fault::Unavailable => {
                let refusal =
                    if spec.fault == Fault::Overloaded { self.overloaded() } else { self.plain(503) };
                if spec.seconds() > 0.0 {
                    refusal.with("retry-after", decimal(self.clock.real_seconds(spec.seconds())))
                } else {
                    refusal
                }
            }
            Fault::ServerError => self.plain(500),
            Fault::GatewayTimeout => self.plain(504),
            Fault::Conflict => self.plain(409),
            Fault::RequestTimeout => self.plain(408),
            Fault::TooEarly => self.plain(425),
            Fault::Forbidden => self.plain(403),
            Fault::Unprocessable => self.plain(422),
            Fault::BadKey => Problem::BadKey.refuse(self.provider),
            Fault::ModelNotFound => Problem::UnknownModel(self.model.to_owned()).refuse(self.provider),
            Fault::TooLarge => Problem::TooLarge { limit: 33_554_432 }.refuse(self.provider),
            Fault::InvalidRequest => {
                let message = "Invalid value: this request is refused on purpose.".to_owned();
                Problem::InvalidValue { param: "messages".into(), message }.refuse(self.provider)
            }
            Fault::ContextLength => {
                let param = if self.endpoint == Endpoint::Responses { "input" } else { "messages" };
                Problem::ContextLength { tokens: 130_912, limit: 128_000, param }.refuse(self.provider)
            }
            _ => return None,
        };
        Some(refusal)
    }

    /// The vendor's word for overload.
    fn overloaded(&self) -> Refusal {
        match self.provider {
            Provider::OpenAi => openai(
                503,
                Some("service_unavailable_error"),
                Some("server_is_overloaded"),
                None,
                "Our servers are currently overloaded. Please try again later.",
            ),
            Provider::Anthropic => anthropic(529, "overloaded_error", None, "Overloaded"),
            Provider::Google => {
                google(503, "UNAVAILABLE", "The model is overloaded. Please try again later.", Vec::new())
            }
            Provider::Grok => grok(
                503,
                "The service is currently unavailable",
                "The model is currently at capacity. Please try again later.",
            ),
        }
    }

    /// A status with the vendor's usual words.
    fn plain(&self, status: u16) -> Refusal {
        match self.provider {
            Provider::OpenAi => {
                let (kind, message) = openai_words(status);
                openai(status, Some(kind), None, None, message)
            }
            Provider::Anthropic => {
                let (kind, message) = anthropic_words(status);
                anthropic(status, kind, None, message)
            }
            Provider::Google => {
                let (name, message) = google_words(status);
                google(status, name, message, Vec::new())
            }
            Provider::Grok => {
                let (code, message) = grok_words(status);
                grok(status, code, message)
            }
        }
    }
}

fn openai_words(status: u16) -> (&'static str, &'static str) {
    match status {
        403 => ("invalid_request_error", "Project does not have access to this model."),
        408 => ("invalid_request_error", "Request timed out while it was being read."),
        409 => ("invalid_request_error", "The resource is locked by another request. Please try again."),
        422 => ("invalid_request_error", "The request is well-formed but cannot be processed."),
        425 => ("invalid_request_error", "Too early."),
        503 => ("service_unavailable_error", "The engine is currently overloaded, please try again later"),
        504 => ("server_error", "Gateway timeout."),
        _ => ("server_error", "The server had an error while processing your request. Sorry about that!"),
    }
}

fn anthropic_words(status: u16) -> (&'static str, &'static str) {
    match status {
        403 => ("permission_error", "Your API key does not have permission to use the specified resource."),
        409 => ("conflict_error", "The resource is in conflict with another request."),
        408 => ("timeout_error", "Request timed out while it was being read."),
        422 => ("invalid_request_error", "The request is well-formed but cannot be processed."),
        425 => ("invalid_request_error", "Too early."),
        504 => ("timeout_error", "Request timed out."),
        _ => ("api_error", "Internal server error"),
    }
}

fn google_words(status: u16) -> (&'static str, &'static str) {
    match status {
        403 => ("PERMISSION_DENIED", "The caller does not have permission"),
        408 => ("CANCELLED", "The operation was cancelled."),
        409 => ("ABORTED", "The operation was aborted."),
        422 | 425 => ("FAILED_PRECONDITION", "Precondition check failed."),
        503 => (
            "UNAVAILABLE",
            "This model is currently experiencing high demand. Spikes in demand are usually temporary. Please try again later.",
        ),
        504 => ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
        _ => (
            "INTERNAL",
            "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting",
        ),
    }
}

fn grok_words(status: u16) -> (&'static str, &'static str) {
    match status {
        403 => (
            "The caller does not have permission to execute the specified operation",
            "Your team is not allowed to use this model.",
        ),
        408 => ("The operation was cancelled", "The request timed out while it was being read."),
        409 => ("The operation was aborted", "The request is in conflict with another one."),
        422 => ("The request body is not valid", "Failed to deserialize the JSON body into the target type."),
        425 => (GROK_INVALID, "Too early."),
        503 => ("The service is currently unavailable", "Service temporarily unavailable."),
        504 => ("The deadline expired before the operation could complete", "Gateway timeout."),
        _ => ("Internal error", "Internal server error."),
    }
}

/// An edge server's page: not JSON, and long enough that quoting it whole would be a mistake.
fn edge_page(status: u16, title: &str) -> Refusal {
    let mut refusal = Refusal::json(status, json!(null));
    let filler = "<!-- a padding to disable MSIE and Chrome friendly error page -->\n".repeat(6);
    refusal.body = RefusalBody::Html(format!(
        "<!DOCTYPE html>\n<html lang=\"en-US\">\n<head><title>{status}: {title}</title></head>\n<body>\n<h1>{title}</h1>\n<p>Error code {status}</p>\n<hr><center>edge</center>\n</body>\n</html>\n{filler}"
    ));
    refusal
}
