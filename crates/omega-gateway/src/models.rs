//! The models somebody may ask for here, in one object that OpenAI's, Anthropic's and Google's SDKs all read.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use omega_client::CallerProtocol;
use serde_json::{Value, json};

use crate::answer::{self, Refusal};
use crate::door::{self, Right};
use crate::keys::Key;
use crate::state::{Current, Shared};

/// `GET /v1/models`.
pub(crate) async fn list(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let current = shared.current();
    let key = match door::let_in(&shared, &current, request.headers(), request.uri(), Right::Call) {
        Ok(key) => key,
        Err(refusal) => return refusal.answer(CallerProtocol::ChatCompletions, ""),
    };
    let models: Vec<Model> = known(&current, key.as_deref());
    let entry = Model::entry;
    let data: Vec<Value> = models.iter().map(entry).collect();
    let first = models.first().map(|model| &model.id);
    let last = models.last().map(|model| &model.id);
    let google: Vec<Value> = models.iter().map(Model::google).collect();
    let body = json!({
        "object": "list", "data": data, "has_more": false, "first_id": first, "last_id": last, "models": google,
    });
    answer::json(StatusCode::OK, body.to_string())
}

/// `GET /v1/models/{model}`.
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let current = shared.current();
    let protocol = CallerProtocol::ChatCompletions;
    let key = match door::let_in(&shared, &current, request.headers(), request.uri(), Right::Call) {
        Ok(key) => key,
        Err(refusal) => return refusal.answer(protocol, ""),
    };
    match known(&current, key.as_deref()).iter().find(|model| model.id == id) {
        Some(model) => {
            let mut entry = model.entry();
            if let (Value::Object(entry), Value::Object(google)) = (&mut entry, model.google()) {
                entry.extend(google);
            }
            answer::json(StatusCode::OK, entry.to_string())
        }
        None => Refusal::new(
            StatusCode::NOT_FOUND,
            "model_not_found",
            "the configuration names no such model; a provider may serve it all the same: ask for it",
        )
        .answer(protocol, ""),
    }
}

/// A model the configuration names.
struct Model {
    id: String,
    owner: String,
}

impl Model {
    fn entry(&self) -> Value {
        json!({
            "id": self.id, "object": "model", "created": 0, "owned_by": self.owner,
            "type": "model", "display_name": self.id, "created_at": "1970-01-01T00:00:00Z",
        })
    }

    fn google(&self) -> Value {
        json!({
            "name": format!("models/{}", self.id), "displayName": self.id,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        })
    }
}

/// Aliases, the usual model and its fallbacks, and what providers are configured to serve: what this caller may use of
/// it, each once, in order of names.
fn known(current: &Current, key: Option<&Key>) -> Vec<Model> {
    let config = &current.client.configuration().config;
    let owner = |model: &str| current.client.provider_of(model).unwrap_or_else(|| "omega".to_owned());
    let mut ids: Vec<(String, String)> = Vec::new();
    ids.extend(config.aliases.keys().map(|alias| (alias.clone(), "omega".to_owned())));
    let aliased = config.aliases.values().flatten();
    for model in std::iter::once(&config.model).chain(&config.fallbacks).chain(aliased) {
        if !config.aliases.contains_key(model) {
            ids.push((model.clone(), owner(model)));
        }
    }
    for provider in config.providers() {
        let exact = provider.models.iter().filter(|model| !model.ends_with('*'));
        ids.extend(exact.map(|model| (model.clone(), provider.name.clone())));
        let limited = config.model_limits(&provider.name).map(|(model, _)| model.to_owned());
        ids.extend(limited.map(|model| (model, provider.name.clone())));
    }
    ids.retain(|(id, _)| key.is_none_or(|key| key.may_use(id)));
    ids.sort();
    ids.dedup_by(|one, other| one.0 == other.0);
    ids.into_iter().map(|(id, owner)| Model { id, owner }).collect()
}
