//! Which way a request leaves the house: straight to the server, or by way of a proxy.
//!
//! The rules are those of curl and of the `*_PROXY` variables, matched by hyper-util. The values come in from the
//! caller, because the environment is read in one place of the project and that place is not here.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::error::{TransportError, TransportErrorKind};

/// Which proxy is used for which address. [`ProxySettings::none`] is the default.
#[derive(Clone, Default)]
pub struct ProxySettings {
    matcher: Option<Arc<Matcher>>,
}

impl ProxySettings {
    /// Every connection goes straight to the server.
    pub fn none() -> Self {
        Self { matcher: None }
    }

    /// The rules given by the values of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    ///
    /// - `https_proxy`, `http_proxy`: the proxy for `https://` and for `http://` addresses, falling back to
    ///   `all_proxy`. `http://`, `https://`, `socks5://` and `socks5h://` proxies are known; no scheme means
    ///   `http://`. A user name and password in the address are sent to the proxy. Both SOCKS forms let the proxy
    ///   resolve the name.
    /// - `no_proxy`: host names (with their subdomains), addresses and networks, separated by commas; `*` is all.
    ///
    /// An absent or empty value sets no rule.
    ///
    /// # Errors
    ///
    /// A value that is not the address of a proxy of a known kind; the error names the variable, not the value,
    /// which may hold a password.
    pub fn from_values(
        https_proxy: Option<&str>,
        http_proxy: Option<&str>,
        all_proxy: Option<&str>,
        no_proxy: Option<&str>,
    ) -> Result<Self, TransportError> {
        let values = [("HTTPS_PROXY", https_proxy), ("HTTP_PROXY", http_proxy), ("ALL_PROXY", all_proxy)];
        for (name, value) in values {
            validate(name, value.unwrap_or_default().trim())?;
        }
        let text = |value: Option<&str>| value.unwrap_or_default().trim().to_owned();
        if values.iter().all(|(_, value)| text(*value).is_empty()) {
            return Ok(Self::none());
        }
        let matcher = Matcher::builder()
            .https(text(https_proxy))
            .http(text(http_proxy))
            .all(text(all_proxy))
            .no(text(no_proxy))
            .build();
        Ok(Self { matcher: Some(Arc::new(matcher)) })
    }

    /// The way to `target`.
    pub(crate) fn route(&self, target: &Uri) -> Route {
        let intercept = self.matcher.as_ref().and_then(|matcher| matcher.intercept(target));
        intercept.map_or(Route::Direct, |proxy| Route::through(&proxy, target))
    }
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.matcher {
            // The matcher leaves user name and password out of its own Debug.
            Some(matcher) => matcher.fmt(f),
            None => f.write_str("ProxySettings::none"),
        }
    }
}

/// The way to one origin.
pub(crate) enum Route {
    /// Straight to the server.
    Direct,
    /// A plain request handed to an HTTP proxy, with the whole address in its first line.
    Forward { proxy: Uri, authorization: Option<HeaderValue> },
    /// A tunnel through an HTTP proxy (CONNECT), so that TLS reaches the server itself.
    Tunnel { proxy: Uri, authorization: Option<HeaderValue> },
    /// A tunnel through a SOCKS5 proxy.
    Socks { proxy: Uri, credentials: Option<(String, String)> },
}

impl Route {
    fn through(intercept: &Intercept, target: &Uri) -> Self {
        let proxy = with_port(intercept.uri());
        if proxy.scheme_str().is_some_and(|scheme| scheme.starts_with("socks")) {
            let credentials = intercept.raw_auth().map(|(user, password)| (user.into(), password.into()));
            return Self::Socks { proxy, credentials };
        }
        let authorization = intercept.basic_auth().cloned();
        match target.scheme_str() {
            Some("http") => Self::Forward { proxy, authorization },
            _ => Self::Tunnel { proxy, authorization },
        }
    }
}

/// `proxy` with its port written out: the connector knows no default for SOCKS.
fn with_port(proxy: &Uri) -> Uri {
    let (Some(authority), None) = (proxy.authority(), proxy.port_u16()) else { return proxy.clone() };
    let port = match proxy.scheme_str() {
        Some("https") => 443,
        // The port the SOCKS protocol was registered with. Source: RFC 1928 section 3.
        Some(scheme) if scheme.starts_with("socks") => 1080,
        _ => 80,
    };
    let mut parts = proxy.clone().into_parts();
    parts.authority = format!("{}:{port}", authority.host()).parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| proxy.clone())
}

/// hyper-util drops what it cannot use without a word; a mistyped proxy would then be a silent direct connection.
fn validate(name: &str, value: &str) -> Result<(), TransportError> {
    if value.is_empty() {
        return Ok(());
    }
    let refuse = |why: &str| {
        Err(TransportError::new(
            TransportErrorKind::Proxy,
            format!(
                "the value of {name} is not a proxy address: {why}; expected for example http://host:3128"
            ),
        ))
    };
    let Ok(uri) = value.parse::<Uri>() else { return refuse("it cannot be read as an address") };
    if uri.host().is_none_or(str::is_empty) {
        return refuse("it has no host");
    }
    match uri.scheme_str() {
        None | Some("http" | "https" | "socks5" | "socks5h") => Ok(()),
        Some(_) => refuse("only http, https, socks5 and socks5h proxies are known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(https: &str, http: &str, all: &str, no: &str) -> ProxySettings {
        ProxySettings::from_values(Some(https), Some(http), Some(all), Some(no)).expect("valid proxies")
    }

    fn target(address: &str) -> Uri {
        address.parse().expect("an address")
    }

    #[test]
    fn https_goes_through_a_tunnel_and_http_is_forwarded() {
        let proxies = settings("proxy.example:3128", "http://plain.example", "", "");
        let Route::Tunnel { proxy, .. } = proxies.route(&target("https://api.openai.com/v1")) else {
            panic!("expected a tunnel")
        };
        assert_eq!(proxy.authority().map(|a| a.as_str()), Some("proxy.example:3128"));
        let Route::Forward { proxy, .. } = proxies.route(&target("http://localhost:11434/v1")) else {
            panic!("expected a forward proxy")
        };
        assert_eq!(proxy.authority().map(|a| a.as_str()), Some("plain.example:80"));
    }

    #[test]
    fn no_proxy_names_hosts_subdomains_and_networks() {
        let proxies = settings("", "", "http://proxy.example:3128", "internal.example,10.0.0.0/8");
        for direct in ["https://internal.example/", "https://llm.internal.example/", "http://10.1.2.3:8000/"]
        {
            assert!(matches!(proxies.route(&target(direct)), Route::Direct), "{direct}");
        }
        assert!(!matches!(proxies.route(&target("https://api.x.ai/")), Route::Direct));
    }

    #[test]
    fn socks_gets_its_port_and_credentials() {
        let proxies = settings("socks5h://user:secret@proxy.example", "", "", "");
        let Route::Socks { proxy, credentials } = proxies.route(&target("https://api.x.ai/")) else {
            panic!("expected socks")
        };
        assert_eq!(proxy.port_u16(), Some(1080));
        assert_eq!(credentials, Some(("user".to_owned(), "secret".to_owned())));
    }

    #[test]
    fn a_mistyped_proxy_is_refused_without_repeating_its_password() {
        for bad in ["ftp://user:hunter2@proxy:21", "http://user:hunter2@", "socks4://user:hunter2@proxy"] {
            let error = ProxySettings::from_values(Some(bad), None, None, None).expect_err(bad);
            assert_eq!(error.kind(), TransportErrorKind::Proxy);
            assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn debug_output_has_no_password() {
        let proxies = settings("http://user:hunter2@proxy.example:3128", "", "", "");
        assert!(!format!("{proxies:?}").contains("hunter2"));
    }

    #[test]
    fn empty_values_set_no_rule() {
        let proxies = settings("", " ", "", "*");
        assert!(matches!(proxies.route(&target("https://api.x.ai/")), Route::Direct));
    }
}
