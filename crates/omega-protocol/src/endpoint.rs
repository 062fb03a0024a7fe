//! Where a provider is and as whom it is spoken to. Headers are built once; a request clones them.

use std::fmt;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use serde::{Deserialize, Serialize};

use crate::{Dialect, EncodeError, EndpointError};

/// A provider's address and credential.
#[derive(Clone)]
pub struct Endpoint {
    dialect: Dialect,
    /// Without a slash at the end.
    base: String,
    headers: HeaderMap,
    options: EndpointOptions,
}

/// What may be said about an endpoint beside its address and key.
#[derive(Clone, Default)]
pub struct EndpointOptions {
    /// Anthropic's API version.
    pub anthropic_version: AnthropicVersion,
    /// Google's API version.
    pub google_version: GoogleVersion,
    /// OpenAI's organisation (`OpenAI-Organization`).
    pub organization: Option<String>,
    /// OpenAI's project (`OpenAI-Project`).
    pub project: Option<String>,
    /// Headers to send with every request. They replace the ones this crate sets, whatever the letter case.
    pub headers: Vec<(String, String)>,
    /// A server that speaks like OpenAI but is not: it gets `max_tokens` and the role `system`, and fields of other
    /// vendors' making are kept (`reasoning_content`).
    pub is_compatible: bool,
}

impl fmt::Debug for EndpointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointOptions")
            .field("anthropic_version", &self.anthropic_version)
            .field("google_version", &self.google_version)
            .field("organization", &self.organization)
            .field("project", &self.project)
            // Values may be credentials (a proxy's own key, for instance).
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("is_compatible", &self.is_compatible)
            .finish()
    }
}

/// Anthropic's API version. The two differ in what they refuse and, as its SDKs have it, in how the key travels.
///
/// Source: platform.claude.com; `anthropic` 2.12.0 and `@anthropic-ai/sdk` 1.12.0, read 2026-11-23.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AnthropicVersion {
    /// `2023-06-01`, with `x-api-key`. The default: it takes sampling parameters from models that take them, and every
    /// Anthropic-compatible server knows it.
    #[default]
    #[serde(rename = "2023-06-01")]
    V2023_06_01,
    /// `2026-10-21`, with `Authorization: Bearer`; `temperature`, `top_p` and `top_k` are not sent.
    #[serde(rename = "2026-10-21")]
    V2026_10_21,
}

impl AnthropicVersion {
    /// The value of `anthropic-version`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2023_06_01 => "2023-06-01",
            Self::V2026_10_21 => "2026-10-21",
        }
    }
}

/// Google's API version: a segment of every path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GoogleVersion {
    /// `v1`, as the SDKs since 3.0 call it.
    #[default]
    #[serde(rename = "v1")]
    V1,
    /// `v1beta`, as older SDKs call it; the newest features come here first.
    #[serde(rename = "v1beta")]
    V1Beta,
}

impl GoogleVersion {
    /// The path segment.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Beta => "v1beta",
        }
    }
}

/// Headers that say where a message goes and where it ends. The transport writes them; a second opinion would make one
/// request into two for whoever believes it.
static TRANSPORTS: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

impl Endpoint {
    /// An endpoint.
    ///
    /// - `base_url`: as the vendor's SDK takes it: with `/v1` for OpenAI and xAI, without a version for Anthropic and
    ///   Google (one at the end is taken off).
    /// - `key`: `None` for servers that want none. White space around it is ignored: keys come from files.
    ///
    /// # Errors
    /// The URL is not `http` or `https`, carries a user name, a query or a fragment; the key or a header contains what
    /// HTTP forbids. No message shows the key.
    pub fn new(
        dialect: Dialect,
        base_url: &str,
        key: Option<&str>,
        options: EndpointOptions,
    ) -> Result<Self, EndpointError> {
        let base = normalised_base(dialect, base_url)?;
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Streams are asked for in the body or the path; the official SDKs send this for both.
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(key) = key {
            let (name, value) = credential(dialect, key.trim(), options.anthropic_version)?;
            headers.insert(name, value);
        }
        match dialect {
            Dialect::Anthropic => {
                let version = HeaderValue::from_static(options.anthropic_version.as_str());
                headers.insert(HeaderName::from_static("anthropic-version"), version);
            }
            Dialect::OpenAi => {
                for (name, value) in
                    [("openai-organization", &options.organization), ("openai-project", &options.project)]
                {
                    if let Some(value) = value {
                        headers.insert(HeaderName::from_static(name), header_value(name, value)?);
                    }
                }
            }
            Dialect::Google | Dialect::Grok => {}
        }
        for (name, value) in &options.headers {
            let parsed =
                HeaderName::try_from(name.as_str()).ok().filter(|parsed| !TRANSPORTS.contains(parsed));
            let parsed = parsed.ok_or_else(|| EndpointError::Header { name: name.clone() })?;
            let mut value = header_value(name, value)?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        Ok(Self { dialect, base, headers, options })
    }

    /// Puts another key into a request that this endpoint made, in the place of its own.
    ///
    /// # Errors
    /// The key is empty or contains what HTTP forbids.
    pub fn authorize(&self, request: &mut Request<Bytes>, key: &str) -> Result<(), EndpointError> {
        let (name, value) = credential(self.dialect, key.trim(), self.options.anthropic_version)?;
        request.headers_mut().insert(name, value);
        Ok(())
    }

    /// The protocol spoken there.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The address, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// Anthropic's API version.
    pub fn anthropic_version(&self) -> AnthropicVersion {
        self.options.anthropic_version
    }

    /// Google's API version.
    pub fn google_version(&self) -> GoogleVersion {
        self.options.google_version
    }

    /// Whether it is a server that speaks like OpenAI but is not.
    pub fn is_compatible(&self) -> bool {
        self.options.is_compatible
    }

    /// A `POST` of this body to a path below the base, with the endpoint's headers.
    ///
    /// - `path`: begins with a slash; what comes from a caller in it must be percent-encoded.
    ///
    /// # Errors
    /// The path does not make an address.
    pub fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Request<Bytes>, EncodeError> {
        let mut address = String::with_capacity(self.base.len() + path.len());
        address.push_str(&self.base);
        address.push_str(path);
        let mut request = Request::new(body.into());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::try_from(address).map_err(|_| EncodeError::Address)?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("dialect", &self.dialect)
            .field("base", &self.base)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

fn normalised_base(dialect: Dialect, base_url: &str) -> Result<String, EndpointError> {
    let refuse = |reason| Err(EndpointError::BaseUrl { reason });
    let base = base_url.trim().trim_end_matches('/');
    if base.contains(['?', '#']) {
        return refuse("it has a query or a fragment");
    }
    let Ok(uri) = Uri::try_from(base) else { return refuse("it is not a URL") };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return refuse("it does not begin with http:// or https://");
    }
    match uri.authority() {
        None => return refuse("it names no host"),
        // It would be shown wherever the URL is.
        Some(authority) if authority.as_str().contains('@') => {
            return refuse("it contains a user name or a password");
        }
        Some(authority) if authority.host().is_empty() => return refuse("it names no host"),
        // What stands behind the host is a port, or meant to be one.
        Some(authority)
            if authority.as_str() != authority.host() && !matches!(authority.port_u16(), Some(1..)) =>
        {
            return refuse("its port is not a number between 1 and 65535");
        }
        Some(_) => {}
    }
    let versions: &[&str] = match dialect {
        Dialect::Anthropic => &["/v1"],
        Dialect::Google => &["/v1beta", "/v1"],
        Dialect::OpenAi | Dialect::Grok => &[],
    };
    let bare = versions.iter().find_map(|version| base.strip_suffix(version)).unwrap_or(base);
    Ok(bare.trim_end_matches('/').to_owned())
}

fn credential(
    dialect: Dialect,
    key: &str,
    version: AnthropicVersion,
) -> Result<(HeaderName, HeaderValue), EndpointError> {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(EndpointError::Key);
    }
    let bare = |name| (HeaderName::from_static(name), HeaderValue::from_str(key));
    let (name, value) = match dialect {
        Dialect::Google => bare("x-goog-api-key"),
        Dialect::Anthropic if version == AnthropicVersion::V2023_06_01 => bare("x-api-key"),
        _ => (AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}"))),
    };
    let mut value = value.map_err(|_| EndpointError::Key)?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, EndpointError> {
    HeaderValue::from_str(value).map_err(|_| EndpointError::Header { name: name.to_owned() })
}
