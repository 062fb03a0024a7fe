//! How long things take when nothing is in the way.
//!
//! Every request has its own draw, made from the seed and its number alone: whichever policy sends it, and whenever,
//! the same request takes the same time. Policies are compared on the same luck.
//!
//! Source of the numbers: the goodput study of this project, section 1 (the provider model).

use crate::trace::Request;

pub(crate) const SECOND: u64 = 1_000_000_000;

/// One way through the network at least.
const NETWORK: f64 = 0.020;
/// Mean of what the network adds to that.
const NETWORK_JITTER: f64 = 0.005;
/// To the first token of an empty prompt, at least.
const FIRST_TOKEN: f64 = 0.35;
/// Mean of what chance adds to that.
const FIRST_TOKEN_JITTER: f64 = 0.15;
/// Input tokens read per second.
const READ_RATE: f64 = 8_000.0;
/// Output tokens written per second, in the median.
const WRITE_RATE: f64 = 70.0;
/// Sigma of the logarithm of the rate.
const WRITE_SPREAD: f64 = 0.2;

/// The times of one request, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// From the client to the provider.
    pub there: u64,
    /// From the provider to the client.
    pub back: u64,
    /// At the provider, until the first token.
    pub first_token: u64,
    /// From the first token to the last.
    pub writing: u64,
}

/// How long request `number` of a trace takes when nothing is in the way: what every run with this seed meets.
///
/// - `number`: its place in the trace, counted from 0.
/// - `output`: tokens of its answer, at most the `max_tokens` that callers send.
pub fn draw(seed: u64, number: u32, request: &Request, output: u32) -> Draw {
    let mut chance = chance(seed, number, Purpose::Service);
    let there = NETWORK + exponential(&mut chance, NETWORK_JITTER);
    let back = NETWORK + exponential(&mut chance, NETWORK_JITTER);
    let first = FIRST_TOKEN
        + f64::from(request.input_tokens) / READ_RATE
        + exponential(&mut chance, FIRST_TOKEN_JITTER);
    let rate = WRITE_RATE * (WRITE_SPREAD * normal(&mut chance)).exp();
    let writing = f64::from(output) / rate;
    Draw { there: nanos(there), back: nanos(back), first_token: nanos(first), writing: nanos(writing) }
}

/// What a stream of chance is for: no two purposes share their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Service,
    /// Does this attempt meet the fault?
    Fault {
        attempt: u32,
    },
    /// The jitter after this attempt.
    Backoff {
        attempt: u32,
    },
    /// Which client of the fleet has the request?
    Client,
}

/// The stream of chance for one request and one purpose.
pub(crate) fn chance(seed: u64, number: u32, purpose: Purpose) -> fastrand::Rng {
    let salt: u64 = match purpose {
        Purpose::Service => 1,
        Purpose::Client => 2,
        Purpose::Fault { attempt } => 3 | (u64::from(attempt) << 2),
        Purpose::Backoff { attempt } => (u64::from(attempt) + 1) << 2,
    };
    // SplitMix64 (Steele, Lea, Flood 2014): neighbouring numbers must not begin neighbouring streams.
    let mut mixed = seed ^ (u64::from(number) << 24) ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for factor in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(factor);
    }
    fastrand::Rng::with_seed(mixed ^ (mixed >> 31))
}

fn exponential(chance: &mut fastrand::Rng, mean: f64) -> f64 {
    -mean * (1.0 - chance.f64()).ln()
}

/// Box and Muller: one normal deviate from two uniform ones.
fn normal(chance: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - chance.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * chance.f64()).cos()
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

#[cfg(test)]
mod tests;
