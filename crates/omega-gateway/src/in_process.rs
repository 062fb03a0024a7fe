//! The gateway without a socket: for a program that speaks a provider's protocol and can call a function instead.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use omega_client::UnifiedLLMClient;
use tower_service::Service as _;

use crate::routes;
use crate::state::Shared;

/// A gateway inside a program. Whoever can call it may: configured `keys:` are for callers from outside.
#[derive(Clone, Debug)]
pub struct InProcess {
    router: Router,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct InProcessAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Body,
}

/// The answer broke off: what came of it is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct BrokenOff;

impl InProcess {
    /// A gateway in front of this client. Opens nothing and starts nothing.
    pub fn new(client: UnifiedLLMClient) -> Self {
        Self { router: routes::router(Arc::new(Shared::in_process(client))) }
    }

    /// Serves one request. Its path decides, its host does not matter.
    pub async fn call(&self, mut request: Request<Bytes>) -> InProcessAnswer {
        // What is asked inside the program comes from no web page.
        request.headers_mut().remove(ORIGIN);
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        let mut router = self.router.clone();
        // A router is always ready.
        let answer = router.call(request.map(Body::from)).await;
        let (head, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
        InProcessAnswer { status: head.status, headers: head.headers, body }
    }
}

impl InProcessAnswer {
    /// The next piece of the body; `None` after the last.
    ///
    /// # Errors
    /// It broke off.
    pub async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(_) => return Some(Err(BrokenOff)),
            }
        }
    }
}
