//! What browsers ask before a page of another origin may call: answered for the origins that were named, and only those.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderValue, Method, StatusCode};

use crate::state::Shared;

/// A browser asks again after this many seconds: a page that may no longer call has that long.
const REMEMBERED_S: &str = "600";
/// What a page may read of an answer's head.
const SHOWN: &str = "x-request-id, request-id, retry-after, retry-after-ms, x-omega-provider, x-omega-model, \
x-omega-attempts, x-omega-queued-ms";

/// Lets pages of the configured origins call.
pub(crate) fn allowed(router: Router<Arc<Shared>>, shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    router.layer(middleware::from_fn_with_state(Arc::clone(shared), answer))
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    // Programs send no origin: nothing to do, and nothing to pay.
    let Some(origin) = request.headers().get(ORIGIN).cloned() else { return next.run(request).await };
    let said = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let is_allowed = shared.current().settings.allowed_origins.contains(&said);
    let asks_first =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !is_allowed {
        return next.run(request).await;
    }
    let wanted = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response =
        if asks_first { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, HeaderValue::from_static("origin"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(SHOWN));
    if asks_first {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED_S));
        if let Some(wanted) = wanted {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        }
    }
    response
}
