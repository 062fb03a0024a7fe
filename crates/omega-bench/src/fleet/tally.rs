//! What the provider counted.

use omega_emulator::RequestRecord;

/// One stretch of time at the provider.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stretch {
    /// Requests it took.
    pub admitted: u64,
    /// Requests it answered with 429.
    pub throttled: u64,
}

/// Counts what arrived from `from` to `to`, in seconds of the provider's time.
pub fn stretch(records: &[RequestRecord], from: f64, to: f64) -> Stretch {
    let mut stretch = Stretch::default();
    for record in records.iter().filter(|record| (from..to).contains(&record.at)) {
        match record.status {
            Some(429) => stretch.throttled += 1,
            _ => stretch.admitted += 1,
        }
    }
    stretch
}

/// By how many requests any window of time held more than the burst and what flows in during it: the deepest that a bucket
/// of `depth` requests would have been overdrawn, refused requests included.
pub fn overdrawn(records: &[RequestRecord], per_second: f64, depth: f64) -> f64 {
    let mut level = depth;
    let (mut as_of, mut deepest) = (0.0, 0.0_f64);
    for record in records {
        level = (level + (record.at - as_of) * per_second).min(depth) - 1.0;
        as_of = record.at;
        deepest = deepest.max(-level);
    }
    deepest
}

/// The value below which `part` of them lie.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(0.0)
}
