//! Connects: one request goes out to a provider, the head of the answer and its body come back.
//!
//! This crate holds the only sockets towards the providers. [`Transport`] is the small contract the client calls;
//! [`HttpTransport`] fulfils it with HTTP/1.1 and HTTP/2 over TLS and a pool that knows how many streams each
//! HTTP/2 connection may carry. A pool that does not know this lets request 101 of 100 wait unseen inside a
//! connection, and every policy above would take that wait for a slow provider.
//!
//! Nothing here decides: no retry policy, no deadline over a whole call, no reading of status codes. What enters is
//! addresses and bytes; environment variables are read elsewhere and arrive as values in [`TransportConfig`].
//!
//! ```no_run
//! # async fn example() -> Result<(), omega_transport::TransportError> {
//! use omega_transport::{HttpTransport, Transport, TransportConfig};
//!
//! let transport = HttpTransport::new(TransportConfig::default())?;
//! let request = http::Request::get("https://api.openai.com/v1/models")
//!     .body(bytes::Bytes::new())
//!     .expect("the address is well formed");
//! let mut response = transport.send(request).await?;
//! let body = response.body.collect(1024 * 1024).await?;
//! println!("{} with {} bytes", response.head.status, body.len());
//! # Ok(())
//! # }
//! ```

mod body;
mod config;
mod connect;
mod driver;
mod error;
mod lease;
mod origin;
mod pool;
mod proxy;
mod stats;
mod tls;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub use body::Body;
pub use config::{Http2, TransportConfig};
pub use error::{TransportError, TransportErrorKind};
pub use pool::HttpTransport;
pub use proxy::ProxySettings;
pub use stats::{OriginStats, PoolStats};

/// The future [`Transport::send`] returns: boxed, so that the trait can be used as `dyn Transport`.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response, TransportError>> + Send + 'a>>;

/// Sends one request and gives back the head of the answer and its body.
///
/// The trait is object-safe, so a test can put a scripted upstream in the place of the network.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` and waits for the head of the answer; the body is read from [`Response::body`].
    ///
    /// The address must be absolute (`https://host/path`). Dropping the future cancels the request: an HTTP/2
    /// stream is reset, an HTTP/1.1 connection is closed.
    ///
    /// # Errors
    ///
    /// A [`TransportError`] says what broke and, by [`TransportError::sent`], whether the request may already have
    /// reached the server's application. An answer with an error status is not a transport error.
    fn send(&self, request: http::Request<Bytes>) -> Sending<'_>;
}

/// The answer to a request: its head at once, its body as it comes.
pub struct Response {
    /// Status, version and headers.
    pub head: http::response::Parts,
    /// The bytes that follow.
    pub body: Body,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers of an answer name accounts and organisations; they stay out of logs.
        f.debug_struct("Response").field("status", &self.head.status).field("body", &self.body).finish()
    }
}
