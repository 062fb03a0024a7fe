//! The control endpoint under `/__emulator/`: what was asked, which faults there are, and changes while it runs.

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::ScriptBody;
use crate::fault::Fault;
use crate::provider::Provider;
use crate::quota::Quota;
use crate::scenario::{Scenario, parse_error};
use crate::state::State;

/// The path all of it lives under.
pub(crate) const PREFIX: &str = "/__emulator/";

/// New quotas by provider.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quotas {
    openai: Option<Quota>,
    anthropic: Option<Quota>,
    google: Option<Quota>,
    grok: Option<Quota>,
}

/// Answers a control request.
pub(crate) fn respond(state: &State, method: &Method, path: &str, body: &Bytes) -> Response<ScriptBody> {
    let what = path.strip_prefix(PREFIX).unwrap_or_default();
    match (method, what) {
        (&Method::GET, "health") => {
            reply(StatusCode::OK, &json!({"status": "ok", "at": state.clock.trace_now()}))
        }
        (&Method::GET, "requests") => {
            let now = state.clock.trace_now();
            reply(StatusCode::OK, &json!({"now": now, "requests": state.requests()}))
        }
        (&Method::DELETE, "requests") => {
            state.clear_requests();
            reply(StatusCode::OK, &json!({"status": "cleared"}))
        }
        (&Method::GET, "faults") => reply(StatusCode::OK, &catalogue()),
        (&Method::PUT, "scenario") => match Scenario::parse(&String::from_utf8_lossy(body)) {
            Ok(scenario) => {
                let rules = scenario.rules.len();
                state.set_scenario(scenario);
                reply(StatusCode::OK, &json!({"status": "set", "rules": rules}))
            }
            Err(error) => bad(&error.to_string()),
        },
        (&Method::PUT, "quota") => put_quota(state, body),
        (_, "health" | "requests" | "faults" | "scenario" | "quota") => {
            let message =
                format!("{method} is not offered here; see GET {PREFIX}faults, PUT {PREFIX}scenario");
            reply(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": message}))
        }
        _ => {
            let known = "health, requests, faults, scenario, quota";
            reply(
                StatusCode::NOT_FOUND,
                &json!({"error": format!("unknown control path; known are {known}")}),
            )
        }
    }
}

fn put_quota(state: &State, body: &Bytes) -> Response<ScriptBody> {
    let quotas: Quotas = match serde_saphyr::from_str(&String::from_utf8_lossy(body)) {
        Ok(quotas) => quotas,
        Err(error) => return bad(&parse_error("quota", &error).to_string()),
    };
    let given = [
        (Provider::OpenAi, quotas.openai),
        (Provider::Anthropic, quotas.anthropic),
        (Provider::Google, quotas.google),
        (Provider::Grok, quotas.grok),
    ];
    // All or nothing: a mistake in one leaves the others as they were.
    for (provider, quota) in &given {
        if let Some(Err(what)) = quota.as_ref().map(Quota::check) {
            return bad(&format!("quota: {provider}: {what}"));
        }
    }
    let mut changed = Vec::new();
    for (provider, quota) in given {
        if let Some(quota) = quota {
            state.set_quota(provider, quota);
            changed.push(provider.name());
        }
    }
    reply(StatusCode::OK, &json!({"status": "set", "providers": changed}))
}

fn catalogue() -> Value {
    let faults: Vec<Value> = Fault::ALL
        .iter()
        .map(|fault| {
            json!({"name": fault.name(), "usage": fault.usage(), "default": fault.parameter_default(),
                "description": fault.description()})
        })
        .collect();
    json!({"faults": faults})
}

fn bad(message: &str) -> Response<ScriptBody> {
    reply(StatusCode::BAD_REQUEST, &json!({"error": message}))
}

fn reply(status: StatusCode, body: &Value) -> Response<ScriptBody> {
    let mut response = Response::new(ScriptBody::whole(Bytes::from(body.to_string()), None));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
