//! Addresses, credentials and names of providers.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use omega_protocol::{AnthropicVersion, Dialect, Endpoint, EndpointError, EndpointOptions, GoogleVersion};

fn endpoint(dialect: Dialect, base: &str) -> Result<Endpoint, EndpointError> {
    Endpoint::new(dialect, base, Some("key"), EndpointOptions::default())
}

#[test]
fn a_base_url_is_taken_as_the_sdks_take_it() {
    for (dialect, base, path) in [
        (Dialect::OpenAi, "https://api.openai.com/v1/", "https://api.openai.com/v1/x"),
        (Dialect::OpenAi, "http://localhost:8000/openai/v1", "http://localhost:8000/openai/v1/x"),
        (Dialect::Anthropic, "https://api.anthropic.com", "https://api.anthropic.com/x"),
        (Dialect::Anthropic, "https://api.anthropic.com/v1/", "https://api.anthropic.com/x"),
        (Dialect::Google, "http://127.0.0.1:1/google/v1beta", "http://127.0.0.1:1/google/x"),
        (Dialect::Google, "http://127.0.0.1:1/google/v1", "http://127.0.0.1:1/google/x"),
        (Dialect::Grok, " https://api.x.ai/v1 ", "https://api.x.ai/v1/x"),
        (Dialect::OpenAi, "http://[::1]:8000/v1", "http://[::1]:8000/v1/x"),
        (Dialect::OpenAi, "http://[::1]/v1", "http://[::1]/v1/x"),
    ] {
        let request = endpoint(dialect, base).unwrap().post("/x", "{}").unwrap();
        assert_eq!(request.uri(), path, "{base}");
    }
}

#[test]
fn a_base_url_that_is_none_is_refused() {
    for base in [
        "",
        "api.openai.com/v1",
        "ftp://example.com",
        "/v1",
        "https://",
        "https://user:pw@example.com/v1",
        "https://example.com/v1?key=1",
        "https://example.com/#x",
        "https://exa mple.com",
        "https://example.com/\r\nx-injected: 1",
        "https://example.com:99999/v1",
        "https://example.com:0/v1",
        "https://example.com:/v1",
    ] {
        let error = endpoint(Dialect::OpenAi, base).unwrap_err();
        assert!(matches!(error, EndpointError::BaseUrl { .. }), "{base}: {error}");
        assert!(!error.to_string().contains("pw@"));
    }
}

#[test]
fn each_vendor_gets_its_key_where_it_looks_for_it() {
    let sent = |dialect: Dialect, options| {
        let endpoint = Endpoint::new(dialect, dialect.default_base_url(), Some(" key\n"), options).unwrap();
        endpoint.post("/x", "").unwrap().into_parts().0.headers
    };
    let old = sent(Dialect::Anthropic, EndpointOptions::default());
    assert_eq!(
        (&old["x-api-key"], &old["anthropic-version"]),
        (&"key".parse().unwrap(), &"2023-06-01".parse().unwrap())
    );
    assert!(!old.contains_key("authorization"), "two credentials are refused");
    let version = AnthropicVersion::V2026_10_21;
    let new = sent(Dialect::Anthropic, EndpointOptions { anthropic_version: version, ..Default::default() });
    assert_eq!(
        (&new["authorization"], &new["anthropic-version"]),
        (&"Bearer key".parse().unwrap(), &"2026-10-21".parse().unwrap())
    );
    assert!(!new.contains_key("x-api-key"));
    assert_eq!(sent(Dialect::Google, EndpointOptions::default())["x-goog-api-key"], "key");
    assert_eq!(sent(Dialect::Grok, EndpointOptions::default())["authorization"], "Bearer key");
    let options = EndpointOptions {
        organization: Some("org-1".to_owned()),
        project: Some("proj_1".to_owned()),
        headers: vec![
            ("X-Team".to_owned(), "a".to_owned()),
            ("Authorization".to_owned(), "Basic b".to_owned()),
        ],
        ..Default::default()
    };
    let openai = sent(Dialect::OpenAi, options);
    assert_eq!(
        (&openai["openai-organization"], &openai["openai-project"]),
        (&"org-1".parse().unwrap(), &"proj_1".parse().unwrap())
    );
    assert_eq!(
        (&openai["x-team"], &openai["authorization"]),
        (&"a".parse().unwrap(), &"Basic b".parse().unwrap())
    );
    assert_eq!(openai.get_all("authorization").iter().count(), 1);
}

#[test]
fn unusable_keys_and_headers_are_refused_without_being_shown() {
    for key in ["", "  ", "two words", "line\nbreak", "schlüssel"] {
        let error = Endpoint::new(Dialect::OpenAi, "https://e.com", Some(key), EndpointOptions::default())
            .unwrap_err();
        assert_eq!(error, EndpointError::Key);
    }
    for (name, value) in [
        ("bad name", "x"),
        ("x", "bad\nvalue"),
        ("x", "bad\r\nx-injected: 1"),
        ("host", "evil.example"),
        ("", "x"),
        // Where a message ends is the transport's to say.
        ("Content-Length", "5"),
        ("transfer-encoding", "chunked"),
        ("Connection", "close"),
        ("upgrade", "websocket"),
    ] {
        let headers = vec![(name.to_owned(), value.to_owned())];
        let options = EndpointOptions { headers, ..EndpointOptions::default() };
        let error = Endpoint::new(Dialect::OpenAi, "https://e.com", None, options).unwrap_err();
        assert_eq!(error, EndpointError::Header { name: name.to_owned() });
        assert!(!error.to_string().contains("evil"));
    }
}

#[test]
fn a_server_may_want_no_key() {
    let endpoint =
        Endpoint::new(Dialect::OpenAi, "http://localhost:11434/v1", None, EndpointOptions::default())
            .unwrap();
    assert!(!endpoint.post("/x", "").unwrap().headers().contains_key("authorization"));
}

#[test]
fn names_of_dialects_are_read_and_written() {
    for dialect in Dialect::ALL {
        assert_eq!(dialect.to_string().parse(), Ok(dialect));
        assert_eq!(serde_json::to_value(dialect).unwrap(), dialect.to_string());
        assert_eq!(dialect.provider().dialect(), dialect);
    }
    assert_eq!("xAI".parse(), Ok(Dialect::Grok));
    assert_eq!(serde_json::from_str::<Dialect>("\"xai\"").unwrap(), Dialect::Grok);
    assert_eq!("gemini".parse(), Ok(Dialect::Google));
    let error = "mistral".parse::<Dialect>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown protocol `mistral`; known are openai, anthropic, google and grok (or xai)"
    );
    assert_eq!(GoogleVersion::V1Beta.as_str(), "v1beta");
}
