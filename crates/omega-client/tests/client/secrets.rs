//! No key and no prompt in any log, error, `Debug` or statistic: everything the client says is searched for them, at
//! the most talkative level, over real sockets.

use std::time::Duration;

use omega_client::{ChatCall, Environment, FileChoice, Sources, UnifiedLLMClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

const KEYS: [&str; 4] = ["sk-SECRETOPENAI", "sk-ant-SECRETANTHROPIC", "AIzaSECRETGOOGLE", "xai-SECRETGROK"];
const PROMPT: &str = "PROMPT-OF-A-PERSON";

/// A server that reads a request and answers with `answer`, then closes.
async fn server(answer: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // The prompt is the last thing in the body.
            while !request.windows(PROMPT.len()).any(|window| window == PROMPT.as_bytes()) {
                match socket.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&buffer[..read]),
                }
            }
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn client(base: &str) -> UnifiedLLMClient {
    let sources = Sources { file: FileChoice::None, environment: Environment::empty(), ..Sources::default() };
    let builder = UnifiedLLMClient::builder()
        .sources(sources)
        .openai_api_key(KEYS[0])
        .anthropic_api_key(KEYS[1])
        .google_api_key(KEYS[2])
        .grok_api_key(KEYS[3])
        .base_url("openai", format!("{base}/v1"))
        .base_url("anthropic", base)
        .base_url("google", base)
        .base_url("grok", format!("{base}/v1"))
        .setting("backoff.base_delay", "0.01")
        // Real time: waiting for quota would only make the test slow. (The circuits stay on and speak.)
        .enable_rate_limiting(false)
        .max_retries(2);
    let shown = format!("{builder:?}");
    assert!(KEYS.iter().all(|key| !shown.contains(key)), "{shown}");
    builder.build().unwrap()
}

#[tokio::test]
async fn keys_and_prompts_appear_nowhere() {
    let log = Log::capture();
    let mut said = String::new();
    let answers = [
        http("500 Internal Server Error", r#"{"error":{"message":"no","type":"server_error","code":null}}"#),
        http(
            "401 Unauthorized",
            r#"{"error":{"message":"no","type":"invalid_request_error","code":"invalid_api_key"}}"#,
        ),
        http(
            "429 Too Many Requests",
            r#"{"error":{"message":"no","type":"insufficient_quota","code":null}}"#,
        ),
        http("200 OK", "data: {broken\n\n"),
        "not http at all\r\n\r\n".to_owned(),
        String::new(),
    ];
    for answer in answers {
        let base = server(answer).await;
        let client = client(&base);
        for model in ["gpt-5.2", "claude-opus-5-5", "gemini-3-pro", "grok-5"] {
            let request = omega_client::ChatRequest::new(model, [omega_client::Message::user(PROMPT)]);
            let call = ChatCall::from(request).timeout(Duration::from_secs(20));
            said.push_str(&format!("{call:?}\n"));
            let stream = client.chat_stream(call.clone()).await.map(|stream| format!("{stream:?}"));
            let whole = client.chat(call).await.map(|answer| format!("{answer:?}"));
            for result in [stream, whole] {
                match result {
                    Ok(shown) => said.push_str(&shown),
                    Err(error) => {
                        said.push_str(&format!("{error}\n{error:?}\n{error:#?}\n{:?}\n", error.attempts()));
                        let mut source = std::error::Error::source(&error);
                        while let Some(inner) = source {
                            said.push_str(&format!("{inner}\n{inner:?}\n"));
                            source = inner.source();
                        }
                    }
                }
            }
        }
        let stats = client.resilience_stats();
        said.push_str(&format!("{client:?}\n{stats:?}\n{}\n", serde_json::to_string(&stats).unwrap()));
        said.push_str(&format!("{:?}\n{:?}\n", client.configuration(), client.pool_stats()));
    }
    let lines = log.lines();
    assert!(lines.len() > 100, "the transport talks at this level too: {} lines", lines.len());
    let all = lines.join("\n") + &said;
    for secret in KEYS.iter().chain([&PROMPT]) {
        assert!(
            !all.contains(secret),
            "{secret} in: {}",
            all.lines().find(|line| line.contains(secret)).unwrap()
        );
    }
}

#[tokio::test]
async fn an_unusable_key_is_refused_without_showing_it() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let error = bare(&upstream).openai_api_key("sk-SECRET with blanks").build().unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("SECRET"), "{shown}");
}
