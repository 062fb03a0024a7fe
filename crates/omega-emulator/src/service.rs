//! The walk of one request: route, read, choose a fault, check the credential, read the fields, take from the quota,
//! compose, deliver. Each stage either hands on or answers.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::answer::{Answer, Prompt};
use crate::body::ScriptBody;
use crate::clock::wall;
use crate::control;
use crate::credential::{Credential, seen};
use crate::delivery::{self, Inserts, Pace};
use crate::fault::{Fault, FaultSpec};
use crate::limits;
use crate::problem::{Problem, Refusal, RefusalBody};
use crate::protocol::Protocol;
use crate::provider::{Endpoint, Provider, Route, route};
use crate::quota::Worth;
use crate::record::{Finished, RequestRecord};
use crate::replies;
use crate::scenario::{Asked, Fired};
use crate::server::Reset;
use crate::state::{State, Ticket};
use crate::wire::{Mint, lists};

/// The header that asks for a fault.
pub(crate) const FAULT_HEADER: &str = "x-emulate-fault";
/// The header that asks for a length.
const LENGTH_HEADER: &str = "x-emulate-output-tokens";

/// No answer at all: the connection (HTTP/2: the stream) ends here.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose, without an answer")]
pub(crate) struct Abort;

/// Answers one request.
pub(crate) async fn respond(
    state: Arc<State>,
    reset: Reset,
    request: Request<Incoming>,
) -> Result<Response<ScriptBody>, Abort> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let body = match Limited::new(body, state.config.body_limit_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::TooLarge { limit: state.config.body_limit_bytes })
        }
        // The client went away while sending.
        Err(_) => return Err(Abort),
    };
    if path.starts_with(control::PREFIX) {
        return Ok(control::respond(&state, &parts.method, path, &body.unwrap_or_default()));
    }
    let Some(route) = route(path) else {
        let refusal = Problem::UnknownPath { method: parts.method.to_string(), path: path.to_owned() };
        return Ok(refusal_response(refusal.refuse(Provider::OpenAi), Provider::OpenAi, "", None));
    };
    let exchange = Exchange::open(state, reset, parts, route, body);
    exchange.run().await
}

/// One request and what is known about it.
struct Exchange {
    state: Arc<State>,
    reset: Reset,
    parts: Parts,
    route: Route,
    /// The body as JSON; null for GET.
    body: Result<Value, Problem>,
    /// The model's name without fault suffix.
    model: String,
    stream: bool,
    fault: Result<Option<Fired>, Problem>,
    credential: Credential,
    dice: fastrand::Rng,
    mint: Mint,
    ticket: Ticket,
    /// The limit headers, written when the quota decided. They are stale by the time they arrive, as real ones are.
    /// `None`: nothing was decided, so they say what is there at the end.
    decided: Option<HeaderMap>,
}

impl Exchange {
    fn open(
        state: Arc<State>,
        reset: Reset,
        parts: Parts,
        route: Route,
        body: Result<Bytes, Problem>,
    ) -> Self {
        let provider = route.provider;
        let seed = state.request_seed(provider);
        let body = body.and_then(|bytes| match parts.method {
            Method::GET => Ok(Value::Null),
            _ => serde_json::from_slice::<Value>(&bytes)
                .map_err(|error| Problem::InvalidJson(error.to_string())),
        });
        let asked_model = route.model.clone().or_else(|| {
            body.as_ref().ok().and_then(|body| body.get("model")).and_then(Value::as_str).map(str::to_owned)
        });
        let asked_model = asked_model.unwrap_or_default();
        let stream = route.endpoint == Endpoint::StreamGenerateContent
            || body.as_ref().is_ok_and(|body| body.get("stream") == Some(&Value::Bool(true)));
        let at = state.clock.trace_now();
        let ticket = state.open(provider, |number| RequestRecord {
            number,
            provider,
            endpoint: route.endpoint,
            model: asked_model.clone(),
            stream,
            status: None,
            at,
            finished_at: None,
            fault: None,
            headers: seen(&parts),
            input_tokens: 0,
            output_tokens: 0,
            tokens_charged: 0,
            content_events: 0,
            finished: Finished::InProgress,
        });
        let (model, suffix) = split_model(&asked_model);
        let mut dice = fastrand::Rng::with_seed(seed);
        let asked = Asked { provider, endpoint: route.endpoint, model: &model, stream, at };
        let fault = choose_fault(&state, &parts.headers, suffix.as_deref(), &asked, &mut dice);
        let credential = Credential::of(provider, &parts);
        let mint = Mint::new(dice.u64(..), wall().as_second());
        let decided = None;
        Self {
            state,
            reset,
            parts,
            route,
            body,
            model,
            stream,
            fault,
            credential,
            dice,
            mint,
            ticket,
            decided,
        }
    }

    async fn run(mut self) -> Result<Response<ScriptBody>, Abort> {
        let fired = match std::mem::replace(&mut self.fault, Ok(None)) {
            Ok(fired) => fired,
            Err(problem) => return Ok(self.refuse(problem)),
        };
        if let Some(fired) = &fired {
            let text = fired.fault.to_string();
            self.ticket.note(|record| record.fault = Some(text));
            self.pause(fired.after_s).await;
            if fired.fault.fault == Fault::SlowHeaders {
                self.pause(fired.fault.seconds()).await;
            }
        }
        if let Some(aborted) = self.silence(fired.as_ref()).await {
            return aborted;
        }
        let settings = &self.state.config.providers[self.route.provider];
        if let Err(problem) = self.credential.check(self.route.provider, &self.parts.headers, &settings.keys)
        {
            return Ok(self.refuse(problem));
        }
        if let Err(problem) = self.check_route() {
            return Ok(self.refuse(problem));
        }
        let context = replies::Context {
            provider: self.route.provider,
            endpoint: self.route.endpoint,
            model: &self.model,
            clock: &self.state.clock,
        };
        if let Some(refusal) = fired.as_ref().and_then(|fired| context.reply(&fired.fault)) {
            return Ok(self.refuse_by_fault(refusal, fired.as_ref()).await);
        }
        if let Err(problem) = &self.body {
            let problem = problem.clone();
            return Ok(self.refuse(problem));
        }
        if self.route.endpoint.generates() {
            self.generate(fired).await
        } else {
            Ok(self.look_up(fired.as_ref()))
        }
    }

    /// Faults that never answer.
    async fn silence(&mut self, fired: Option<&Fired>) -> Option<Result<Response<ScriptBody>, Abort>> {
        match fired?.fault.fault {
            Fault::ResetBeforeHeaders => {
                // Under HTTP/2 the refused stream is reset instead; the connection carries others.
                if self.parts.version < http::Version::HTTP_2 {
                    self.reset.demand();
                }
            }
            Fault::CloseBeforeHeaders => {}
            // Ends when the client leaves or the emulator stops: both drop this future.
            Fault::Hang => std::future::pending().await,
            _ => return None,
        }
        let provider = self.route.provider;
        self.state.count_failed(provider, self.credential.key(), &self.model);
        self.ticket.cut();
        Some(Err(Abort))
    }

    fn check_route(&self) -> Result<(), Problem> {
        let method = self.parts.method.to_string();
        let unknown =
            || Problem::UnknownPath { method: method.clone(), path: self.parts.uri.path().to_owned() };
        if self.route.endpoint == Endpoint::Unknown {
            return Err(unknown());
        }
        if self.route.endpoint.is_get() != (self.parts.method == Method::GET) {
            return Err(Problem::WrongMethod { method });
        }
        let known = &self.state.config.providers[self.route.provider].models;
        let concerns_model = !self.model.is_empty();
        if concerns_model && !known.is_empty() && !known.contains(&self.model) {
            return Err(Problem::UnknownModel(self.model.clone()));
        }
        Ok(())
    }

    async fn pause(&self, trace_seconds: f64) {
        if trace_seconds > 0.0 {
            tokio::time::sleep(self.state.clock.real(trace_seconds)).await;
        }
    }

    /// A fault's refusal: it takes time and a request unit, and tokens only if the scenario says so.
    async fn refuse_by_fault(mut self, refusal: Refusal, fired: Option<&Fired>) -> Response<ScriptBody> {
        let provider = self.route.provider;
        let parsed = fired.is_some_and(|fired| fired.charge_tokens).then(|| self.parse().ok()).flatten();
        let reservation = parsed.and_then(|(prompt, _)| {
            let worth = Worth { input: prompt.input_tokens, max_output: prompt.max_output.unwrap_or(0) };
            self.state.admit(provider, self.credential.key(), &self.model, worth).ok()
        });
        match reservation {
            Some(reservation) => self.ticket.reserve(reservation),
            None => self.state.count_failed(provider, self.credential.key(), &self.model),
        }
        self.pause(self.state.config.providers[provider].latency.refusal_s).await;
        self.respond_with(refusal)
    }

    fn refuse(self, problem: Problem) -> Response<ScriptBody> {
        let refusal = problem.refuse(self.route.provider);
        self.respond_with(refusal)
    }

    fn respond_with(self, mut refusal: Refusal) -> Response<ScriptBody> {
        let mut headers = self.limit_headers();
        headers.extend(std::mem::take(&mut refusal.headers));
        refusal.headers = headers;
        let status = refusal.status.as_u16();
        self.ticket.note(|record| record.status = Some(status));
        refusal_response(refusal, self.route.provider, &self.mint.request_id, Some(self.ticket))
    }

    /// Reads the prompt. The body is known to be JSON.
    fn parse(&self) -> Result<(Prompt, Protocol), Problem> {
        let body = self.body.as_ref().map_err(Clone::clone)?;
        let (prompt, protocol) = Protocol::parse(&self.route, &self.model, body, &self.parts)?;
        Ok((prompt.counted_as_told(), protocol))
    }

    /// Models, counts, embeddings: answers that take nothing from the token quota.
    fn look_up(self, fired: Option<&Fired>) -> Response<ScriptBody> {
        let body = match &self.body {
            Ok(body) => body,
            Err(problem) => {
                let problem = problem.clone();
                return self.refuse(problem);
            }
        };
        let models = &self.state.config.providers[self.route.provider].models;
        match lists::answer(&self.route, &self.model, models, body, &self.parts) {
            Ok(value) => {
                let fault = fired.map(|fired| &fired.fault);
                let (steps, length) =
                    delivery::whole_steps(Bytes::from(value.to_string()), fault, &self.state.clock);
                self.ticket.note(|record| record.status = Some(200));
                let headers = self.headers("application/json");
                respond_steps(headers, ScriptBody::new(steps, length, Some(self.ticket)), length)
            }
            Err(problem) => self.refuse(problem),
        }
    }

    async fn generate(mut self, fired: Option<Fired>) -> Result<Response<ScriptBody>, Abort> {
        let (prompt, protocol) = match self.parse() {
            Ok(parsed) => parsed,
            Err(problem) => return Ok(self.refuse(problem)),
        };
        let provider = self.route.provider;
        let input = prompt.input_tokens;
        self.ticket.note(|record| record.input_tokens = input);
        let settings = &self.state.config.providers[provider];
        if let Some(limit) = settings.context_tokens.filter(|limit| input > *limit) {
            let param = if self.route.endpoint == Endpoint::Responses { "input" } else { "messages" };
            return Ok(self.refuse(Problem::ContextLength { tokens: input, limit, param }));
        }
        let mut answer = Answer::compose(&prompt, self.wanted_length(), &mut self.dice);
        let fault = fired.map(|fired| fired.fault);
        if fault.as_ref().is_some_and(|spec| spec.fault == Fault::ContentFilter) {
            answer = answer.filtered();
        }
        // Cache reads do not count against Anthropic's input limit. Source: platform.claude.com, Rate limits.
        let counted = if provider == Provider::Anthropic { input - answer.usage.cached } else { input };
        let worth =
            Worth { input: counted, max_output: prompt.max_output.unwrap_or(answer.usage.produced()) };
        let admission = self.state.admit(provider, self.credential.key(), &self.model, worth);
        self.decided = Some(self.limit_headers());
        match admission {
            Ok(reservation) => self.ticket.reserve(reservation),
            Err(over) => {
                self.ticket.note(|record| record.fault = Some("quota".into()));
                let refusal = limits::refuse(provider, &over, &self.model, &self.state.clock);
                self.pause(settings.latency.refusal_s).await;
                return Ok(self.respond_with(refusal));
            }
        }
        if let Some(refusal) = protocol.failed(fault.as_ref(), self.stream, &self.model, &self.state.clock) {
            return Ok(self.respond_with(refusal));
        }
        Ok(self.deliver(&prompt, &protocol, &answer, fault.as_ref()).await)
    }

    fn wanted_length(&self) -> Option<u64> {
        let header =
            self.parts.headers.get(LENGTH_HEADER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        header.or_else(|| self.state.scenario_output_tokens())
    }

    async fn deliver(
        mut self,
        prompt: &Prompt,
        protocol: &Protocol,
        answer: &Answer,
        fault: Option<&FaultSpec>,
    ) -> Response<ScriptBody> {
        let latency = &self.state.config.providers[self.route.provider].latency;
        // Drawn also where a marker says better, so that the draws of everything else stay the same.
        let mut first = latency.first_token_s(answer.usage.input, &mut self.dice);
        let mut token_s = latency.token_s(&mut self.dice);
        if let Some(told) = prompt.seconds_told("first-token-us") {
            first = told;
        }
        if let Some(told) = prompt.seconds_told("writing-us") {
            token_s = told / answer.usage.produced().max(1) as f64;
        }
        let at_once =
            fault.is_some_and(|spec| matches!(spec.fault, Fault::SlowFirstToken | Fault::PingsOnly));
        let clock = self.state.clock;
        self.ticket.note(|record| record.status = Some(200));
        let malformed = fault.is_some_and(|spec| spec.fault == Fault::MalformedBody);
        if self.stream && !malformed {
            if !at_once {
                self.pause(first).await;
            }
            // Tokens that would follow each other within 4 ms travel together: more events would only cost time.
            let together =
                if token_s > 0.0 { (0.004 / clock.real_seconds(token_s)).ceil() as usize } else { 1 };
            let per_event = together.max(latency.tokens_per_event as usize);
            let frames = protocol.frames(prompt, answer, per_event, fault, &mut self.mint);
            let shown: u64 = frames.iter().map(|frame| u64::from(frame.tokens)).sum();
            let hidden = answer.usage.produced().saturating_sub(shown);
            self.ticket.produced(hidden);
            let pace = Pace { hidden_s: hidden as f64 * token_s, token_s };
            let inserts: Inserts = protocol.inserts(fault, &mut self.mint);
            let steps = delivery::stream_steps(frames, pace, fault, &inserts, &clock);
            let headers = self.headers(protocol.stream_type());
            return respond_steps(headers, ScriptBody::new(steps, None, Some(self.ticket)), None);
        }
        if !at_once {
            self.pause(first + answer.usage.produced() as f64 * token_s).await;
        }
        self.ticket.produced(answer.usage.produced());
        let body = protocol.whole(prompt, answer, fault, &mut self.mint).to_string();
        let (steps, length) = delivery::whole_steps(Bytes::from(body), fault, &clock);
        let headers = self.headers("application/json");
        respond_steps(headers, ScriptBody::new(steps, length, Some(self.ticket)), length)
    }

    fn limit_headers(&self) -> HeaderMap {
        let now = || {
            let buckets = self.state.buckets(self.route.provider, self.credential.key(), &self.model);
            limits::headers(self.route.provider, &buckets, &self.state.clock)
        };
        self.decided.clone().unwrap_or_else(now)
    }

    /// The headers of a success.
    fn headers(&self, content_type: &'static str) -> HeaderMap {
        let provider = self.route.provider;
        let mut headers = self.limit_headers();
        identify(&mut headers, provider, &self.mint.request_id);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers
    }
}

/// Diagnostics every answer carries. Sources: OpenAI, Debugging requests; Anthropic, Response headers; 2026-11-23.
fn identify(headers: &mut HeaderMap, provider: Provider, request_id: &str) {
    let id = HeaderValue::from_str(request_id).ok();
    let mut put = |name: &'static str, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    match provider {
        Provider::OpenAi => {
            put("x-request-id", id);
            put("openai-version", Some(HeaderValue::from_static("2020-10-01")));
            put("openai-organization", Some(HeaderValue::from_static("org-emulated")));
            put("openai-processing-ms", Some(HeaderValue::from_static("1")));
        }
        Provider::Anthropic => {
            put("request-id", id);
            let organization = HeaderValue::from_static("00000000-0000-4000-8000-000000000000");
            put("anthropic-organization-id", Some(organization));
        }
        Provider::Google => {}
        Provider::Grok => put("x-request-id", id),
    }
}

fn respond_steps(headers: HeaderMap, body: ScriptBody, length: Option<u64>) -> Response<ScriptBody> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

fn refusal_response(
    refusal: Refusal,
    provider: Provider,
    request_id: &str,
    ticket: Option<Ticket>,
) -> Response<ScriptBody> {
    let (content_type, body) = match refusal.body {
        RefusalBody::Json(mut value) => {
            if provider == Provider::Anthropic && value.get("request_id").is_some() {
                value["request_id"] = request_id.into();
            }
            ("application/json", value.to_string())
        }
        RefusalBody::Html(page) => ("text/html; charset=UTF-8", page),
    };
    let mut response = Response::new(ScriptBody::whole(Bytes::from(body), ticket));
    *response.status_mut() = refusal.status;
    identify(response.headers_mut(), provider, request_id);
    response.headers_mut().extend(refusal.headers);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if refusal.status == StatusCode::PAYLOAD_TOO_LARGE {
        // The rest of the body is still on its way; nobody will read it.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A model's name and the fault after its first plus sign.
fn split_model(asked: &str) -> (String, Option<String>) {
    match asked.split_once('+') {
        Some((model, fault)) => (model.to_owned(), Some(fault.to_owned())),
        None => (asked.to_owned(), None),
    }
}

/// The header decides, then the model's suffix, then the scenario.
fn choose_fault(
    state: &State,
    headers: &HeaderMap,
    suffix: Option<&str>,
    asked: &Asked<'_>,
    dice: &mut fastrand::Rng,
) -> Result<Option<Fired>, Problem> {
    let header =
        headers.get(FAULT_HEADER).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    for (text, param) in [(header.as_deref(), FAULT_HEADER), (suffix, "model")] {
        let Some(text) = text else { continue };
        let spec: FaultSpec = text.parse().map_err(|error: crate::fault::FaultParseError| {
            Problem::InvalidValue { param: param.into(), message: error.to_string() }
        })?;
        if state.still_due(asked.provider, &spec) {
            return Ok(Some(Fired { fault: spec, after_s: 0.0, charge_tokens: false }));
        }
        return Ok(None);
    }
    Ok(state.fire(asked, dice))
}
