//! The `x-ratelimit-*` headers.
//!
//! Source: OpenAI's rate-limit guide, read 2026-11-23. xAI and compatible servers are reported to send the same names;
//! they are read if they come.

use std::time::Duration;

use http::HeaderMap;
use omega_policy::{Dimension, HintedQuota, QuotaHint};

use crate::hints::{count, go_duration, header};

/// What the headers say of requests and tokens per minute. Daily limits are not in them.
pub(crate) fn quota_hint(headers: &HeaderMap) -> Option<QuotaHint> {
    let requests = triple(
        headers,
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    );
    let tokens = tokens(headers);
    (requests.is_some() || tokens.is_some()).then_some(QuotaHint { requests, tokens, ..QuotaHint::default() })
}

/// The bucket that is empty and when it is full again; of two, the one that takes longer: both must have room.
pub(super) fn exhausted(headers: &HeaderMap) -> Option<(Dimension, Option<Duration>)> {
    let hint = quota_hint(headers)?;
    let empty = |quota: Option<HintedQuota>, dimension| {
        quota.filter(|quota| quota.remaining == Some(0)).map(|quota| (dimension, quota.reset))
    };
    [empty(hint.requests, Dimension::Requests), empty(hint.tokens, Dimension::Tokens)]
        .into_iter()
        .flatten()
        .max_by_key(|(_, reset)| *reset)
}

/// Tokens of the organisation or of the project, whichever leaves less: both bind.
fn tokens(headers: &HeaderMap) -> Option<HintedQuota> {
    let organization = triple(
        headers,
        ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
    );
    let project = triple(
        headers,
        [
            "x-ratelimit-limit-project-tokens",
            "x-ratelimit-remaining-project-tokens",
            "x-ratelimit-reset-project-tokens",
        ],
    );
    let left = |quota: &HintedQuota| quota.remaining.unwrap_or(u64::MAX);
    [organization, project].into_iter().flatten().min_by_key(left)
}

fn triple(headers: &HeaderMap, [limit, remaining, reset]: [&str; 3]) -> Option<HintedQuota> {
    let quota = HintedQuota {
        limit: header(headers, limit).and_then(count),
        remaining: header(headers, remaining).and_then(count),
        reset: header(headers, reset).and_then(go_duration),
    };
    (quota != HintedQuota::default()).then_some(quota)
}
