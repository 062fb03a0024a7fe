//! What each vendor's refusals become: the kind, how often it was asked, and who answered instead.

use std::time::Duration;

use omega_client::{ChatCall, ChatRequest, Error, ErrorKind, FinishReason, Message, Origin};
use omega_emulator::{Emulator, Provider, Quota, Rule};

use crate::support::*;

fn call(vendor: &Vendor, text: &str) -> ChatCall {
    ChatCall::new(ChatRequest::new(vendor.model, [Message::user(text)]))
}

/// A vendor that is not `vendor`, to turn to.
fn other(vendor: &Vendor) -> &'static Vendor {
    if vendor.emulated == "anthropic" { &VENDORS[2] } else { &VENDORS[1] }
}

/// Asks a vendor that fails, alone; then with another one to turn to, which must answer.
async fn refused_then_failed_over(wire: &Wire, vendor: &Vendor, way: Way) -> Error {
    wire.emulator.clear_requests();
    let error = wire.ask(way, call(vendor, "Hello")).await.unwrap_err();
    assert_eq!(error.provider(), Some(vendor.name), "{error}");
    let heard = wire.ask(way, call(vendor, "Hello").fallbacks([other(vendor).model])).await.unwrap();
    assert_eq!(heard.provider, other(vendor).name, "{} {way:?}", vendor.name);
    assert_eq!(heard.response.text(), "You said: Hello");
    error
}

#[tokio::test]
async fn a_model_the_provider_does_not_know_is_asked_for_once_and_then_elsewhere() {
    let mut config = config();
    for provider in Provider::ALL {
        config.providers[provider].models = vec!["another-model".into()];
    }
    for vendor in &VENDORS {
        let mut config = config.clone();
        let there = Provider::from_name(other(vendor).emulated).unwrap();
        config.providers[there].models = Vec::new();
        let wire = Wire::with(config, "").await;
        for way in WAYS {
            let error = refused_then_failed_over(&wire, vendor, way).await;
            assert_eq!((error.kind(), error.status()), (ErrorKind::InvalidRequest, Some(404)), "{error}");
            assert_eq!(asked(&wire.emulator, vendor.emulated), 2, "once alone, once before the fallback");
            let stats = wire.client(way).resilience_stats();
            assert_eq!(stats.circuit_breakers[vendor.name].failure_count, 0);
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_an_authentication_error_and_is_not_shown() {
    let emulator = emulator().await;
    for vendor in &VENDORS[..4] {
        let client = builder(&emulator, "").api_key(vendor.name, "sk-WRONGKEY").build().unwrap();
        for way in [Way::Guarded, Way::Stream] {
            emulator.clear_requests();
            let error = heard(&client, way, call(vendor, "Hello")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Authentication, "{} {error}", vendor.name);
            assert_eq!(error.origin(), Origin::Provider);
            assert_eq!(emulator.requests().len(), 1, "{}: a wrong key does not become right", vendor.name);
            assert!(!format!("{error} {error:?}").contains("WRONGKEY"), "{error}");
        }
        assert_eq!(client.resilience_stats().circuit_breakers[vendor.name].failure_count, 0);
        let heard = heard(&client, Way::Stream, call(vendor, "Hello").fallbacks([other(vendor).model]));
        assert_eq!(heard.await.unwrap().provider, other(vendor).name);
    }
}

#[tokio::test]
async fn a_spent_quota_is_asked_about_once_and_says_status_type_and_code() {
    // OpenAI's codes; its type stays `insufficient_quota`.
    for code in [
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    ] {
        let wire = Wire::new().await;
        fail(&wire.emulator, Some("openai"), &format!("insufficient-quota:{code}"));
        for way in WAYS {
            let error = refused_then_failed_over(&wire, &OPENAI, way).await;
            assert_eq!(error.kind(), ErrorKind::QuotaExhausted, "{error}");
            let text = error.to_string();
            assert!(text.contains("429") && text.contains("insufficient_quota"), "{text}");
            assert!(text.contains(code), "{text}");
            assert_eq!((error.error_type(), error.code()), (Some("insufficient_quota"), Some(code)));
            assert_eq!(asked(&wire.emulator, "openai"), 2, "once alone, once before the fallback");
        }
    }
}

#[tokio::test]
async fn money_that_is_gone_is_never_retried_whatever_the_vendor_calls_it() {
    for vendor in &VENDORS {
        for fault in [
            "insufficient-quota",
            "billing-not-active",
            "payment-required",
            "spend-limit:enforced",
            "spend-limit:contract",
            "spend-limit:usage-limits",
            "spend-limit:credit-balance",
        ] {
            let wire = Wire::new().await;
            fail(&wire.emulator, Some(vendor.emulated), fault);
            let error = refused_then_failed_over(&wire, vendor, Way::Guarded).await;
            assert_eq!(error.kind(), ErrorKind::QuotaExhausted, "{} {fault}: {error}", vendor.name);
            let status = error.status().unwrap().to_string();
            assert!(error.to_string().contains(&status), "{error}");
            assert_eq!(asked(&wire.emulator, vendor.emulated), 2, "{} {fault}", vendor.name);
            let stats = wire.client(Way::Guarded).resilience_stats();
            assert_eq!(stats.circuit_breakers[vendor.name].failure_count, 2, "it counts: {fault}");
        }
    }
}

/// Gaps between the arrivals of consecutive requests, in real seconds at a time scale of 1.
fn gaps(emulator: &Emulator) -> Vec<f64> {
    let times: Vec<f64> = emulator.requests().iter().map(|record| record.at).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test]
async fn a_wait_the_provider_names_is_never_undercut() {
    // Each in its own emulator, all at once: the waits are real time.
    let cases = VENDORS.iter().flat_map(|vendor| {
        let hints = [("rate-limited:0.4", 0.4), ("rate-limited-ms:0.35", 0.35)];
        hints.into_iter().map(move |(fault, seconds)| (vendor, fault, seconds))
    });
    let dates = VENDORS.iter().map(|vendor| (vendor, "rate-limited-date:1", 1.0));
    let cases = cases.chain(dates).map(async |(vendor, fault, seconds)| {
        let emulator = emulator().await;
        play(&emulator, Rule { first: Some(1), ..rule(fault) });
        let answer = client(&emulator).chat(call(vendor, "Hello")).await.unwrap();
        assert_eq!(answer.attempts.len(), 2, "{} {fault}", vendor.name);
        let statuses: Vec<_> = emulator.requests().iter().map(|record| record.status).collect();
        assert_eq!(statuses, [Some(429), Some(200)], "{} {fault}", vendor.name);
        let gap = gaps(&emulator)[0];
        assert!(gap >= seconds, "{} {fault}: came back after {gap} s", vendor.name);
    });
    futures_util::future::join_all(cases).await;
}

/// A real quota: one request, then one each tenth of a second. Whoever comes when they were told to is served.
#[tokio::test]
async fn a_quota_is_obeyed_as_its_429s_say() {
    let cases = VENDORS[..4].iter().map(async |vendor| {
        let provider = Provider::from_name(vendor.emulated).unwrap();
        let mut config = config();
        config.providers[provider].quota =
            Quota { rpm: Some(600), burst_seconds: 0.1, free_429: true, ..Quota::default() };
        let emulator = Emulator::start(config).await.unwrap();
        let client = builder(&emulator, "").max_retries(2).build().unwrap();
        for _ in 0..6 {
            client.chat(call(vendor, "Hello")).await.unwrap();
        }
        let statuses: Vec<u16> = emulator.requests().iter().filter_map(|record| record.status).collect();
        let refused = statuses.iter().filter(|status| **status == 429).count();
        // Google has no headers that would tell before; at the others they may have kept every call from a refusal.
        assert!(refused >= 1 || vendor.name != "google", "the quota never bound");
        for pair in statuses.windows(2) {
            assert!(pair != [429, 429], "{}: came back too early: {statuses:?}", vendor.name);
        }
        let stats = client.resilience_stats();
        assert_eq!(stats.circuit_breakers[vendor.name].failure_count, 0, "a 429 is no failure");
        assert_eq!(stats.details.providers[vendor.name].throttled_total, refused as u64);
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn an_answer_withheld_by_policy_is_asked_for_once_and_nowhere_else() {
    for vendor in &VENDORS {
        for way in WAYS {
            let wire = Wire::new().await;
            fail(&wire.emulator, Some(vendor.emulated), "content-filter");
            let result = wire.ask(way, call(vendor, "Hello").fallbacks([other(vendor).model])).await;
            let shown = format!("{} {way:?}", vendor.name);
            match result {
                // A blocked prompt has no answer at all.
                Err(error) => {
                    assert_eq!((vendor.name, error.kind()), ("google", ErrorKind::ContentFilter), "{error}");
                }
                Ok(heard) => {
                    assert_ne!(vendor.name, "google");
                    assert_eq!(heard.response.finish_reason(), Some(FinishReason::ContentFilter), "{shown}");
                    assert_eq!(heard.provider, vendor.name);
                }
            }
            assert_eq!(wire.emulator.requests().len(), 1, "{shown}");
            let stats = wire.client(way).resilience_stats();
            assert_eq!(stats.circuit_breakers[vendor.name].failure_count, 0, "{shown}");
        }
    }
}

#[tokio::test]
async fn a_prompt_that_is_too_long_goes_to_a_larger_window() {
    for vendor in &VENDORS {
        let mut config = config();
        config.providers[Provider::from_name(vendor.emulated).unwrap()].context_tokens = Some(50);
        let wire = Wire::with(config, "").await;
        let long = "a long story ".repeat(100);
        for way in WAYS {
            wire.emulator.clear_requests();
            let error = wire.ask(way, call(vendor, &long)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ContextLength, "{} {way:?}: {error}", vendor.name);
            let heard = wire.ask(way, call(vendor, &long).fallbacks([other(vendor).model])).await.unwrap();
            assert_eq!(heard.provider, other(vendor).name);
            assert_eq!(asked(&wire.emulator, vendor.emulated), 2, "once alone, once before the fallback");
        }
    }
}

#[tokio::test]
async fn an_invalid_request_is_asked_once_and_nowhere_else() {
    for vendor in &VENDORS {
        let wire = Wire::new().await;
        for fault in ["invalid-request", "unprocessable", "too-large", "should-retry-true"] {
            if (vendor.name, fault) == ("google", "unprocessable") {
                // Google has no 422; the emulator says FAILED_PRECONDITION, which there is about the account.
                continue;
            }
            fail(&wire.emulator, None, fault);
            wire.emulator.clear_requests();
            let asked = call(vendor, "Hello").fallbacks([other(vendor).model]);
            let error = wire.ask(Way::Guarded, asked).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{} {fault}: {error}", vendor.name);
            assert_eq!(wire.emulator.requests().len(), 1, "{} {fault}", vendor.name);
        }
    }
}

#[tokio::test]
async fn a_quota_per_day_blocks_its_model_and_no_other() {
    let wire = Wire::new().await;
    let once = Rule { model: Some(GOOGLE.model.into()), first: Some(1), ..rule("per-day-quota") };
    play(&wire.emulator, once);
    let client = wire.client(Way::Guarded);

    let error = client.chat(call(&GOOGLE, "Hello")).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::QuotaExhausted, Some(429)), "{error}");
    // Google says 46 s; its day ends at midnight in the Pacific, and that is at least a moment and at most a day away.
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_secs(25 * 3600), "{wait:?}");

    // The fault is over, but nobody asks: this client knows when the day ends.
    let error = client.chat(call(&GOOGLE, "Hello")).await.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::QuotaExhausted, Origin::Local), "{error}");
    assert_eq!(wire.emulator.requests().len(), 1);

    // Another model of the same provider is served, and the circuit has not moved.
    let answer = client.chat(ChatRequest::new("gemini-2.5-pro", [Message::user("Hello")])).await.unwrap();
    assert_eq!((answer.provider.as_str(), answer.text()), ("google", "You said: Hello"));
    let breaker = &client.resilience_stats().circuit_breakers["google"];
    assert_eq!(breaker.failure_count, 0);

    // With another target the blocked model is passed by without a pause.
    let answer = client.chat(call(&GOOGLE, "Hello").fallbacks(["gemini-2.5-pro"])).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.attempts.len()), ("gemini-2.5-pro", 2));
}
