//! A configuration at another speed: spans divided, rates multiplied, by the same factor. A replay that runs that many
//! times faster then meets the policies it would meet at full length. Numbers in, numbers out; nothing here runs.

use std::time::Duration;

use omega_config::{Config, StreamClocks};
use omega_policy::TokenLimits;

/// Every span of `config` divided by `time_scale`, every rate multiplied by it.
pub(crate) fn compress(config: &mut Config, time_scale: f64) {
    let scale = |span: &mut Duration| *span = span.div_f64(time_scale);
    scale(&mut config.timeout);
    scale(&mut config.failover_wait);
    let breaker = &mut config.breaker;
    for span in
        [&mut breaker.timeout, &mut breaker.half_open_timeout, &mut breaker.max_open, &mut breaker.ramp]
    {
        scale(span);
    }
    scale(&mut config.backoff.base_delay);
    scale(&mut config.backoff.max_delay);
    let per_second = faster(config.retry_budget.per_second.into(), time_scale);
    config.retry_budget.per_second = u32::try_from(per_second).unwrap_or(u32::MAX);
    scale_clocks(&mut config.streaming, scale);
    for settings in config.providers_mut() {
        scale(&mut settings.max_wait);
        scale_clocks(&mut settings.streaming, scale);
        let limits = &mut settings.limits;
        scale(&mut limits.burst);
        scale(&mut limits.depth_margin);
        limits.requests_per_minute = limits.requests_per_minute.map(|limit| faster(limit, time_scale));
        if let TokenLimits::Total(Some(limit)) = limits.tokens {
            limits.tokens = TokenLimits::Total(Some(faster(limit, time_scale)));
        }
    }
}

/// A rate of trace time as a rate of real time.
pub(crate) fn faster(rate: u64, time_scale: f64) -> u64 {
    // Rates are far below 2^53, so the conversion is exact enough; at least one, or nothing could ever pass.
    ((rate as f64 * time_scale) as u64).max(1)
}

/// How much longer than by default a compressed replay tolerates silence in streams. The time a machine needs to
/// compute does not shrink with the time scale: the default of 30 s to the first byte would be 2 s in which a busy
/// machine has to serve a burst of hundreds of requests, clients and providers alike.
pub(crate) const STREAM_CLOCKS: u32 = 4;

/// Makes the clocks over streams as patient as [`STREAM_CLOCKS`] says.
pub(crate) fn stretch(clocks: &mut StreamClocks) {
    scale_clocks(clocks, |span| *span *= STREAM_CLOCKS);
}

fn scale_clocks(clocks: &mut StreamClocks, scale: impl Fn(&mut Duration)) {
    for span in [
        &mut clocks.first_byte,
        &mut clocks.first_content,
        &mut clocks.reasoning_first_content,
        &mut clocks.gap,
    ] {
        scale(span);
    }
}
