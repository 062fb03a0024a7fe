//! The rows of the limits: the switch, each provider's, and those of single models.

use omega_policy::{ChargeRule, CountedTokens, ModelLimits, TokenLimits};

use super::providers::{edit, provider};
use super::{DAY, Key, Place, count, seconds};
use crate::config::Config;
use crate::provider::Tier;
use crate::value::{Kind, Value};

pub(super) static KEYS: [Key; 21] = [
    Key::new(
        "rate_limiting.enabled",
        Kind::Switch,
        "The switch of every limiter. Off: nothing waits, everything is still counted.",
        |c, _| Value::Switch(c.rate_limiting),
        |c, _, v| c.rate_limiting = v.on(),
    ),
    Key::new(
        "rate_limiting.<provider>.limits",
        Kind::Word(&["configured", "auto"]),
        "`auto`: instead of the requests and tokens per minute below, take for each model what the provider's limit headers show; until they show any, follow 429s.",
        |c, p| Value::word_of(&provider(c, p).auto_limits, &WHENCE),
        |c, p, v| edit(c, p).auto_limits = v.chosen(&WHENCE),
    ),
    // Before the explicit limits, which override it.
    Key::new(
        "rate_limiting.<provider>.tier",
        Kind::Word(&["free", "tier1", "tier2", "tier3"]),
        "OpenAI's usage tier: sets requests and tokens per minute; explicit numbers override it.",
        |c, p| provider(c, p).tier.map_or(Value::Unset, |tier| Value::word_of(&tier, &TIERS)),
        |c, p, v| {
            let tier = v.chosen(&TIERS);
            let (requests, tokens) = tier.limits();
            let settings = edit(c, p);
            settings.tier = Some(tier);
            settings.limits.requests_per_minute = Some(requests);
            settings.limits.tokens = TokenLimits::Total(Some(tokens));
        },
    ),
    Key::new(
        "rate_limiting.<provider>.max_requests_per_minute",
        PER_MINUTE,
        "Requests per minute.",
        |c, p| Value::count_or_absent(provider(c, p).limits.requests_per_minute),
        |c, p, v| edit(c, p).limits.requests_per_minute = v.count_or_none(),
    )
    .or("unlimited")
    .also(&["OMEGA_<PROVIDER>_MAX_RPM"]),
    Key::new(
        "rate_limiting.<provider>.max_tokens_per_minute",
        PER_MINUTE,
        "Tokens per minute, input and output together.",
        |c, p| match provider(c, p).limits.tokens {
            TokenLimits::Total(limit) => Value::count_or_absent(limit),
            TokenLimits::Split { .. } => Value::Unset,
        },
        |c, p, v| edit(c, p).limits.tokens = TokenLimits::Total(v.count_or_none()),
    )
    .or("unlimited")
    .also(&["OMEGA_<PROVIDER>_MAX_TPM"]),
    Key::new(
        "rate_limiting.<provider>.max_input_tokens_per_minute",
        PER_MINUTE,
        "Input tokens per minute, where a provider limits input and output apart; instead of `max_tokens_per_minute`.",
        |c, p| match provider(c, p).limits.tokens {
            TokenLimits::Total(_) => Value::Unset,
            TokenLimits::Split { input, .. } => Value::count_or_absent(input),
        },
        |c, p, v| split(c, p, |input, _| *input = v.count_or_none()),
    )
    .or("unlimited"),
    Key::new(
        "rate_limiting.<provider>.max_output_tokens_per_minute",
        PER_MINUTE,
        "Output tokens per minute, likewise.",
        |c, p| match provider(c, p).limits.tokens {
            TokenLimits::Total(_) => Value::Unset,
            TokenLimits::Split { output, .. } => Value::count_or_absent(output),
        },
        |c, p, v| split(c, p, |_, output| *output = v.count_or_none()),
    )
    .or("unlimited"),
    Key::new(
        "rate_limiting.<provider>.max_concurrent_requests",
        CONCURRENT,
        "Requests in flight at once.",
        |c, p| Value::count_or_absent(provider(c, p).limits.max_concurrent.map(u64::from)),
        |c, p, v| edit(c, p).limits.max_concurrent = v.count_or_none().map(|_| v.count32()),
    )
    .or("unlimited")
    .also(&["OMEGA_<PROVIDER>_MAX_CONCURRENT"]),
    Key::new(
        "rate_limiting.<provider>.burst_seconds",
        seconds(0.1, 60.0),
        "How much of the minute may be spent at once.",
        |c, p| Value::Seconds(provider(c, p).limits.burst),
        |c, p, v| edit(c, p).limits.burst = v.seconds(),
    ),
    Key::new(
        "rate_limiting.<provider>.depth_margin_seconds",
        seconds(0.0, 60.0),
        "Quota kept back from a burst against clock and network skew; at most a tenth of the burst, and never so much that less than one request fits.",
        |c, p| Value::Seconds(provider(c, p).limits.depth_margin),
        |c, p, v| edit(c, p).limits.depth_margin = v.seconds(),
    ),
    Key::new(
        "rate_limiting.<provider>.learn_burst",
        Kind::Switch,
        "Believe in a smaller burst when a 429 comes although there was room, or when headers show one.",
        |c, p| Value::Switch(provider(c, p).limits.learn_burst),
        |c, p, v| edit(c, p).limits.learn_burst = v.on(),
    ),
    Key::new(
        "rate_limiting.<provider>.pace_unknown",
        Kind::Switch,
        "Where no limit is configured, follow 429s with a rate found by trial (CUBIC).",
        |c, p| Value::Switch(provider(c, p).limits.pace_unknown),
        |c, p, v| edit(c, p).limits.pace_unknown = v.on(),
    ),
    Key::new(
        "rate_limiting.<provider>.ease_off",
        Kind::Switch,
        "While the provider says that it is overloaded, keep fewer calls in flight, as long as that helps (AIMD).",
        |c, p| Value::Switch(provider(c, p).limits.ease_off),
        |c, p, v| edit(c, p).limits.ease_off = v.on(),
    ),
    Key::new(
        "rate_limiting.<provider>.aging_seconds",
        seconds(0.0, DAY),
        "A priority that was passed over for this long, per priority above it, gets one turn. 0: never.",
        |c, p| Value::Seconds(provider(c, p).limits.aging),
        |c, p, v| edit(c, p).limits.aging = v.seconds(),
    ),
    Key::new(
        "rate_limiting.<provider>.max_wait_seconds",
        seconds(0.0, DAY),
        "The longest wait for a first admission; a call that would wait longer is refused at once. 0: never wait.",
        |c, p| Value::Seconds(provider(c, p).max_wait),
        |c, p, v| edit(c, p).max_wait = v.seconds(),
    ),
    Key::new(
        "rate_limiting.<provider>.max_queue",
        count(0, 1_000_000),
        "Calls that may wait at once.",
        |c, p| Value::Count(provider(c, p).limits.max_queue as u64),
        |c, p, v| edit(c, p).limits.max_queue = v.count32() as usize,
    ),
    Key::new(
        "rate_limiting.<provider>.charge",
        Kind::Word(&["estimate", "refund", "actual"]),
        "When it charges tokens: `estimate`: input and `max_tokens` at the start, never returned; `refund`: the unused part is returned; `actual`: output when it is known.",
        |c, p| Value::word_of(&provider(c, p).limits.charge, &CHARGES),
        |c, p, v| edit(c, p).limits.charge = v.chosen(&CHARGES),
    ),
    Key::new(
        "rate_limiting.<provider>.counted_tokens",
        Kind::Word(&["all", "without_cache_reads", "input_only"]),
        "Which tokens it counts.",
        |c, p| Value::word_of(&provider(c, p).limits.counted, &COUNTED),
        |c, p, v| edit(c, p).limits.counted = v.chosen(&COUNTED),
    ),
    Key::new(
        "rate_limiting.<provider>.models.<model>.max_requests_per_minute",
        PER_MINUTE,
        "Requests per minute of one model, inside the provider's.",
        |c, p| Value::count_or_absent(model(c, p).and_then(|limits| limits.requests_per_minute)),
        |c, p, v| edit_model(c, p).requests_per_minute = v.count_or_none(),
    )
    .or("unlimited"),
    Key::new(
        "rate_limiting.<provider>.models.<model>.max_tokens_per_minute",
        PER_MINUTE,
        "Tokens per minute of one model, inside the provider's.",
        |c, p| Value::count_or_absent(model(c, p).and_then(|limits| limits.tokens_per_minute)),
        |c, p, v| edit_model(c, p).tokens_per_minute = v.count_or_none(),
    )
    .or("unlimited"),
    Key::new(
        "rate_limiting.<provider>.models.<model>.max_concurrent_requests",
        CONCURRENT,
        "Requests of one model in flight at once, inside the provider's.",
        |c, p| Value::count_or_absent(model(c, p).and_then(|limits| limits.max_concurrent).map(u64::from)),
        |c, p, v| edit_model(c, p).max_concurrent = v.count_or_none().map(|_| v.count32()),
    )
    .or("unlimited"),
];

/// Far above any quota that is sold, far below what would overflow anything.
const PER_MINUTE: Kind = count(1, 1_000_000_000_000);
const CONCURRENT: Kind = count(1, 1_000_000);

const WHENCE: [(&str, bool); 2] = [("configured", false), ("auto", true)];

pub(crate) const TIERS: [(&str, Tier); 4] =
    [("free", Tier::Free), ("tier1", Tier::Tier1), ("tier2", Tier::Tier2), ("tier3", Tier::Tier3)];

const CHARGES: [(&str, ChargeRule); 3] = [
    ("estimate", ChargeRule::Estimate),
    ("refund", ChargeRule::EstimateThenRefund),
    ("actual", ChargeRule::Actual),
];

const COUNTED: [(&str, CountedTokens); 3] = [
    ("all", CountedTokens::All),
    ("without_cache_reads", CountedTokens::WithoutCacheReads),
    ("input_only", CountedTokens::InputOnly),
];

/// Limits input and output apart. Whatever limited their sum until now (a default or a tier) goes.
fn split(config: &mut Config, place: &Place, set: impl FnOnce(&mut Option<u64>, &mut Option<u64>)) {
    let tokens = &mut edit(config, place).limits.tokens;
    let (mut input, mut output) = match *tokens {
        TokenLimits::Split { input, output } => (input, output),
        TokenLimits::Total(_) => (None, None),
    };
    set(&mut input, &mut output);
    *tokens = TokenLimits::Split { input, output };
}

fn model<'c>(config: &'c Config, place: &Place) -> Option<&'c ModelLimits> {
    provider(config, place).model_limits.get(&place.model)
}

fn edit_model<'c>(config: &'c mut Config, place: &Place) -> &'c mut ModelLimits {
    edit(config, place).model_limits.entry(place.model.clone()).or_default()
}
