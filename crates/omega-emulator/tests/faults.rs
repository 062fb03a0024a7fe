//! Every fault of the catalogue on a real socket, for every protocol it concerns.

mod support;

use std::time::Duration;

use omega_emulator::{Emulator, Fault, Finished, Provider, Rule, Scenario};
use serde_json::{Value, json};
use support::{Call, End, Reply, healthy};

const PATHS: [(Provider, &str); 4] = [
    (Provider::OpenAi, "/openai/v1/chat/completions"),
    (Provider::Anthropic, "/anthropic/v1/messages"),
    (Provider::Google, "/google/v1/models/gemini-2.5-flash"),
    (Provider::Grok, "/grok/v1/chat/completions"),
];

/// A call to one of the providers, whole or streamed.
fn call(provider: Provider, stream: bool) -> Call {
    let (_, path) = PATHS[provider as usize];
    let talk = json!([{"role": "user", "content": "hi"}]);
    match provider {
        Provider::Google => {
            let method = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            Call::post(&format!("{path}:{method}"), json!({"contents": [{"parts": [{"text": "hi"}]}]}))
        }
        Provider::Anthropic => Call::post(
            path,
            json!({"model": "claude-opus-5-5", "max_tokens": 50, "messages": talk, "stream": stream}),
        ),
        Provider::OpenAi => Call::post(path, json!({"model": "gpt-5.2", "messages": talk, "stream": stream})),
        Provider::Grok => Call::post(
            path,
            json!({"model": "grok-4-fast-non-reasoning", "messages": talk, "stream": stream}),
        ),
    }
}

async fn with_fault(emulator: &Emulator, provider: Provider, stream: bool, fault: &str) -> Reply {
    let call = call(provider, stream).fault(fault);
    // Where silence is expected, waiting for it should not take long.
    let silent = fault == "hang" || fault.starts_with("stall-after") || fault.ends_with(":60");
    let call = if silent { call.silence(Duration::from_millis(700)) } else { call };
    call.send(emulator.addr()).await
}

/// Status of a fault by provider, in the order OpenAI, Anthropic, Google, xAI.
const STATUSES: [(&str, [u16; 4]); 31] = [
    ("rate-limited", [429, 429, 429, 429]),
    ("rate-limited-no-hint", [429, 429, 429, 429]),
    ("rate-limited-ms", [429, 429, 429, 429]),
    ("rate-limited-date", [429, 429, 429, 429]),
    ("rate-limited-requested-over-limit", [429, 429, 429, 429]),
    ("slow-down", [429, 429, 429, 429]),
    ("insufficient-quota", [429, 429, 429, 429]),
    ("billing-not-active", [429, 402, 402, 402]),
    ("spend-limit", [429, 429, 429, 429]),
    ("payment-required", [402, 402, 402, 402]),
    ("per-day-quota", [429, 429, 429, 429]),
    ("limit-zero", [429, 429, 429, 429]),
    ("server-error", [500, 500, 500, 500]),
    ("bad-gateway-html", [502, 502, 502, 502]),
    ("unavailable", [503, 503, 503, 503]),
    ("overloaded", [503, 529, 503, 503]),
    ("gateway-timeout", [504, 504, 504, 504]),
    ("edge-520", [520, 520, 520, 520]),
    ("edge-524", [524, 524, 524, 524]),
    ("conflict", [409, 409, 409, 409]),
    ("request-timeout", [408, 408, 408, 408]),
    ("too-early", [425, 425, 425, 425]),
    ("bad-key", [401, 401, 400, 400]),
    ("forbidden", [403, 403, 403, 403]),
    ("model-not-found", [404, 404, 404, 404]),
    ("invalid-request", [400, 400, 400, 400]),
    ("too-large", [413, 413, 413, 413]),
    ("unprocessable", [422, 422, 422, 422]),
    ("context-length", [400, 400, 400, 400]),
    ("should-retry-false", [429, 429, 429, 429]),
    ("hostile-retry-after", [429, 429, 429, 429]),
];

#[tokio::test]
async fn refusals_have_the_vendors_status_and_body_whole_and_streamed() {
    let emulator = healthy().await;
    for (fault, statuses) in STATUSES {
        for (provider, status) in Provider::ALL.into_iter().zip(statuses) {
            for stream in [false, true] {
                let reply = with_fault(&emulator, provider, stream, fault).await;
                assert_eq!((reply.status, reply.end), (status, End::Complete), "{fault} {provider}");
                if reply.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
                    assert!(reply.text().contains("<html"), "{fault}");
                    continue;
                }
                let body = reply.json();
                let own = match provider {
                    Provider::OpenAi => {
                        body["error"]["message"].is_string() && body["error"].get("code").is_some()
                    }
                    Provider::Anthropic => body["type"] == "error" && body["request_id"].is_string(),
                    Provider::Google => {
                        body["error"]["code"] == status && body["error"]["status"].is_string()
                    }
                    Provider::Grok => body["code"].is_string() && body["error"].is_string(),
                };
                assert!(own, "{fault} {provider}: {body}");
            }
        }
    }
}

#[tokio::test]
async fn hints_come_in_each_vendors_form() {
    let emulator = healthy().await;
    let openai = with_fault(&emulator, Provider::OpenAi, false, "rate-limited:7").await;
    assert_eq!(openai.header("retry-after"), Some("7"));
    assert!(openai.text().contains("Please try again in 7s."));
    let google = with_fault(&emulator, Provider::Google, false, "rate-limited:1.681").await;
    assert_eq!(google.header("retry-after"), None);
    assert_eq!(google.json()["error"]["details"][2]["retryDelay"], "1.681s");
    let ms = with_fault(&emulator, Provider::Anthropic, false, "rate-limited-ms:0.25").await;
    assert_eq!((ms.header("retry-after-ms"), ms.header("retry-after")), (Some("250"), None));
    let date = with_fault(&emulator, Provider::OpenAi, false, "rate-limited-date:2").await;
    assert!(date.header("retry-after").is_some_and(|date| date.ends_with(" GMT") && date.len() == 29));
    let none = with_fault(&emulator, Provider::OpenAi, false, "rate-limited-no-hint").await;
    assert_eq!(none.header("retry-after"), None);
    let day = with_fault(&emulator, Provider::Google, false, "per-day-quota").await.json();
    let violation = &day["error"]["details"][1]["violations"][0];
    assert!(violation["quotaId"].as_str().is_some_and(|id| id.contains("PerDay")));
    assert_eq!(day["error"]["details"][2]["retryDelay"], "46s");
    let spent = with_fault(&emulator, Provider::Anthropic, false, "spend-limit").await;
    assert_eq!(spent.header("retry-after"), None);
    assert_eq!(spent.json()["error"]["details"]["error_code"], "enforced_spend_limit_reached");
    let stop = with_fault(&emulator, Provider::OpenAi, false, "should-retry-false").await;
    assert_eq!(stop.header("x-should-retry"), Some("false"));
    for (word, value) in [("huge", "999999999"), ("negative", "-30"), ("infinite", "inf")] {
        let fault = format!("hostile-retry-after:{word}");
        let reply = with_fault(&emulator, Provider::OpenAi, false, &fault).await;
        assert_eq!(reply.header("retry-after"), Some(value));
    }
}

#[tokio::test]
async fn a_quota_code_is_the_one_asked_for() {
    let emulator = healthy().await;
    for code in ["credit_balance_exhausted", "project_spend_limit_exceeded", "insufficient_quota"] {
        let fault = format!("insufficient-quota:{code}");
        let error = with_fault(&emulator, Provider::OpenAi, false, &fault).await.json()["error"].clone();
        assert_eq!((&error["type"], &error["code"]), (&json!("insufficient_quota"), &json!(code)));
    }
}

#[tokio::test]
async fn connections_end_without_an_answer_as_asked() {
    let emulator = healthy().await;
    for (fault, end) in
        [("reset-before-headers", End::Reset), ("close-before-headers", End::Closed), ("hang", End::Silent)]
    {
        for provider in Provider::ALL {
            let reply = with_fault(&emulator, provider, false, fault).await;
            assert_eq!((reply.status, reply.end, reply.body.len()), (0, end, 0), "{fault} {provider}");
        }
    }
    assert!(emulator.requests().iter().all(|request| request.status.is_none()));
}

/// How many content events arrived.
fn contents(reply: &Reply) -> usize {
    reply
        .events()
        .iter()
        .filter(|event| {
            event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
                || event["type"] == "content_block_delta"
                || event["type"] == "response.output_text.delta"
                || event["candidates"][0]["content"]["parts"][0]["text"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty())
        })
        .count()
}

/// Whether a stream says itself that it is finished.
fn finished(reply: &Reply) -> bool {
    ["\"finish_reason\":\"stop\"", "message_stop", "finishReason", "response.completed"]
        .iter()
        .any(|mark| reply.text().contains(mark))
}

#[tokio::test]
async fn streams_break_after_exactly_as_many_content_events_as_asked() {
    let emulator = healthy().await;
    for provider in Provider::ALL {
        for (fault, end) in
            [("cut-after:2", End::Closed), ("end-after:2", End::Complete), ("stall-after:2", End::Silent)]
        {
            let reply = with_fault(&emulator, provider, true, fault).await;
            assert_eq!((reply.status, contents(&reply), reply.end), (200, 2, end), "{fault} {provider}");
            assert!(!finished(&reply), "{fault} {provider}");
        }
        let early = with_fault(&emulator, provider, true, "cut-after:0").await;
        assert_eq!((early.status, contents(&early), early.end), (200, 0, End::Closed), "{provider}");
        let late = with_fault(&emulator, provider, true, "cut-after:99").await;
        assert_eq!((contents(&late), finished(&late)), (3, false), "{provider}");
    }
}

#[tokio::test]
async fn a_missing_terminator_leaves_the_finish_reason() {
    let emulator = healthy().await;
    let openai = with_fault(&emulator, Provider::OpenAi, true, "missing-done").await;
    assert!(finished(&openai) && !openai.text().contains("[DONE]") && openai.end == End::Complete);
    let anthropic = with_fault(&emulator, Provider::Anthropic, true, "missing-done").await;
    assert!(
        anthropic.text().contains("\"stop_reason\":\"end_turn\"")
            && !anthropic.text().contains("message_stop")
    );
}

#[tokio::test]
async fn errors_inside_a_stream_have_the_known_forms() {
    let emulator = healthy().await;
    let send = async |provider, fault: &str| with_fault(&emulator, provider, true, fault).await;
    let openai = send(Provider::OpenAi, "error-in-stream:1").await;
    assert!(openai.events().last().is_some_and(|event| event["error"]["type"] == "server_error"));
    assert!(send(Provider::OpenAi, "error-in-stream-alternative:1").await.text().contains("event: error\n"));
    let anthropic = send(Provider::Anthropic, "error-in-stream:1").await;
    assert_eq!(anthropic.event_names().last().map(String::as_str), Some("error"));
    assert!(anthropic.events().last().is_some_and(|event| event["error"]["type"] == "overloaded_error"));
    let bare = send(Provider::Google, "error-in-stream:1").await.text();
    let (_, tail) = bare.rsplit_once("\r\n\r\n").expect("an event before it");
    assert!(tail.starts_with("{\n") && tail.lines().count() > 3, "{tail}");
    let error: Value = serde_json::from_str(tail).expect("bare JSON");
    assert_eq!(error["error"]["status"], "UNAVAILABLE");
    let prefixed = send(Provider::Google, "error-in-stream-alternative:1").await;
    assert!(prefixed.events().last().is_some_and(|event| event["error"]["code"] == 503));
    let grok = send(Provider::Grok, "error-in-stream-alternative:1").await;
    assert!(grok.events().last().is_some_and(|event| event["error"].is_string()));
    for (fault, pointer) in [("error-in-stream:1", "/error/code"), ("error-in-stream-alternative:1", "/code")]
    {
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true});
        let reply = Call::post("/openai/v1/responses", body).fault(fault).send(emulator.addr()).await;
        let last = reply.events().pop().expect("events");
        assert_eq!(last.pointer(pointer), Some(&json!("server_is_overloaded")), "{fault}");
    }
}

#[tokio::test]
async fn an_error_in_a_stream_is_an_http_error_where_the_answer_is_whole() {
    let emulator = healthy().await;
    assert_eq!(with_fault(&emulator, Provider::Anthropic, false, "error-in-stream").await.status, 529);
    assert_eq!(with_fault(&emulator, Provider::OpenAi, false, "status-failed").await.status, 500);
}

#[tokio::test]
async fn a_response_can_fail_with_status_200() {
    let emulator = healthy().await;
    let call = |stream| {
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": stream});
        Call::post("/openai/v1/responses", body)
            .fault("status-failed:rate_limit_exceeded")
            .send(emulator.addr())
    };
    let whole = call(false).await;
    assert_eq!((whole.status, &whole.json()["status"]), (200, &json!("failed")));
    assert_eq!(whole.json()["error"]["code"], "rate_limit_exceeded");
    let stream = call(true).await;
    assert_eq!(stream.event_names().last().map(String::as_str), Some("response.failed"));
}

#[tokio::test]
async fn whole_answers_break_too() {
    let emulator = healthy().await;
    for provider in Provider::ALL {
        let send = async |fault: &str| with_fault(&emulator, provider, false, fault).await;
        let cut = send("cut-after").await;
        assert_eq!((cut.status, cut.end), (200, End::Closed), "{provider}");
        assert_eq!(send("stall-after").await.end, End::Silent);
        for fault in ["end-after", "malformed-body"] {
            let reply = send(fault).await;
            assert_eq!((reply.status, reply.end), (200, End::Complete), "{fault}");
            assert!(serde_json::from_slice::<Value>(&reply.body).is_err(), "{fault}");
        }
        let huge = send("huge-body:3").await;
        assert!(huge.body.len() > 3 * 1024 * 1024);
        huge.json();
    }
}

#[tokio::test]
async fn malformed_events_stand_between_good_ones() {
    let emulator = healthy().await;
    for provider in Provider::ALL {
        let reply = with_fault(&emulator, provider, true, "malformed-chunk:1").await;
        let broken =
            reply.events().iter().filter(|event| event.as_str().is_some_and(|text| text != "[DONE]")).count();
        assert_eq!((broken, contents(&reply), finished(&reply)), (1, 3, true), "{provider}");
    }
}

#[tokio::test]
async fn silence_before_the_first_content_comes_with_and_without_pings() {
    let emulator = healthy().await;
    for provider in Provider::ALL {
        let pings = call(provider, true).fault("pings-only:0.02").limit(600).send(emulator.addr()).await;
        assert_eq!((pings.status, contents(&pings)), (200, 0), "{provider}");
        assert!(pings.body.len() > 100, "keep-alives arrive");
        let slow = with_fault(&emulator, provider, true, "slow-first-token:60").await;
        assert_eq!((slow.status, contents(&slow), slow.end), (200, 0, End::Silent), "{provider}");
        let soon = with_fault(&emulator, provider, true, "slow-first-token:0.05").await;
        assert!(finished(&soon), "{provider}");
    }
    let slow = with_fault(&emulator, Provider::OpenAi, false, "slow-headers:60").await;
    assert_eq!((slow.status, slow.end), (0, End::Silent));
}

#[tokio::test]
async fn an_endless_event_never_ends_and_a_trickle_arrives_whole() {
    let emulator = healthy().await;
    for provider in Provider::ALL {
        let limit = 8 * 1024 * 1024;
        let endless = call(provider, true).fault("endless-event").limit(limit).send(emulator.addr()).await;
        assert!(endless.body.len() > limit / 2, "{provider}");
        let trickle = with_fault(&emulator, provider, false, "trickle:0.001").await;
        assert_eq!((trickle.status, trickle.end), (200, End::Complete), "{provider}");
        trickle.json();
    }
}

#[tokio::test]
async fn a_content_filter_withholds_the_answer_in_each_vendors_way() {
    let emulator = healthy().await;
    let send = async |provider| with_fault(&emulator, provider, false, "content-filter").await.json();
    assert_eq!(send(Provider::OpenAi).await["choices"][0]["finish_reason"], "content_filter");
    let refusal = send(Provider::Anthropic).await;
    assert_eq!((&refusal["stop_reason"], &refusal["content"]), (&json!("refusal"), &json!([])));
    let blocked = send(Provider::Google).await;
    assert!(blocked.get("candidates").is_none() && blocked["promptFeedback"]["blockReason"] == "SAFETY");
}

#[tokio::test]
async fn every_fault_can_be_asked_of_every_provider_and_is_recorded() {
    let emulator = healthy().await;
    for fault in Fault::ALL {
        for provider in Provider::ALL {
            for stream in [false, true] {
                emulator.clear_requests();
                let quick = match fault.name() {
                    "slow-headers" | "slow-first-token" => format!("{fault}:0.01"),
                    "pings-only" => format!("{fault}:0.01"),
                    "trickle" => format!("{fault}:0.0001"),
                    "huge-body" => format!("{fault}:1"),
                    name => name.to_owned(),
                };
                let call = call(provider, stream).fault(&quick).silence(Duration::from_millis(60));
                // Pings never end by themselves; neither does an endless event.
                let limit = if fault.name() == "pings-only" { 100 } else { 3 * 1024 * 1024 };
                call.limit(limit).send(emulator.addr()).await;
                let noted = async {
                    while emulator.requests().first().is_none_or(|request| request.fault.is_none()) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::time::timeout(support::PATIENCE, noted).await.expect("the fault is recorded");
                let requests = emulator.requests();
                assert_eq!(requests.len(), 1);
                assert_eq!(requests[0].fault.as_deref(), Some(quick.as_str()));
            }
        }
    }
}

#[tokio::test]
async fn a_model_suffix_asks_for_a_fault_and_a_count_ends_it() {
    let emulator = healthy().await;
    let send = |model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        Call::post("/v1/chat/completions", body).send(emulator.addr())
    };
    let statuses = [
        send("gpt-5.2+overloaded,times=2").await.status,
        send("gpt-5.2+overloaded,times=2").await.status,
        send("gpt-5.2+overloaded,times=2").await.status,
    ];
    assert_eq!(statuses, [503, 503, 200]);
    let path = "/google/v1/models/gemini-2.5-flash%2Bcut-after:1:streamGenerateContent?alt=sse";
    let reply =
        Call::post(path, json!({"contents": [{"parts": [{"text": "hi"}]}]})).send(emulator.addr()).await;
    assert_eq!((contents(&reply), reply.end), (1, End::Closed));
    let wrong = send("gpt-5.2+overlooded").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("did you mean `overloaded`?"));
}

#[tokio::test]
async fn a_scenario_decides_by_provider_and_can_be_replaced() {
    let emulator =
        support::configured("scenario: {rules: [{provider: openai, first: 1, fault: server-error}]}").await;
    let status = async |provider| call(provider, false).send(emulator.addr()).await.status;
    assert_eq!(
        [status(Provider::Anthropic).await, status(Provider::OpenAi).await, status(Provider::OpenAi).await],
        [200, 500, 200]
    );
    let rules = vec![Rule { provider: Some(Provider::Anthropic), ..Rule::new(Fault::Overloaded) }];
    emulator.set_scenario(Scenario { output_tokens: None, rules });
    assert_eq!([status(Provider::Anthropic).await, status(Provider::OpenAi).await], [529, 200]);
}

#[tokio::test]
async fn the_journal_says_how_each_request_ended() {
    let emulator = healthy().await;
    with_fault(&emulator, Provider::OpenAi, true, "cut-after:1").await;
    call(Provider::OpenAi, true).send(emulator.addr()).await;
    with_fault(&emulator, Provider::OpenAi, true, "stall-after:1").await;
    // The client of the stalled stream has gone; the emulator notices when it next looks at the socket.
    let noticed = async {
        while emulator.requests()[2].finished == Finished::InProgress {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, noticed).await.expect("the emulator notices");
    let requests = emulator.requests();
    let ends: Vec<_> = requests.iter().map(|request| (request.finished, request.content_events)).collect();
    assert_eq!(ends, [(Finished::Cut, 1), (Finished::Completed, 3), (Finished::ClientDisconnected, 1)]);
    assert!(requests.iter().all(|request| request.finished_at.is_some_and(|at| at >= request.at)));
}
