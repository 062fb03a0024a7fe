//! A fleet of processes, one quota, one provider that counts: what `examples/fleet.rs` measures.

pub mod link;
pub mod store;
pub mod tally;
pub mod worker;

/// The models and the prompt do not matter; that every call costs the same does.
pub const MODEL: &str = "gpt-5.2";
/// What a call asks for at most, in tokens.
pub const MAX_TOKENS: u64 = 100;

/// What a worker is told, as JSON in its last argument.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Orders {
    /// The provider's address.
    pub base_url: String,
    /// `state`.
    pub state: String,
    /// Requests per minute of the whole quota.
    pub requests_per_minute: u64,
    /// How much of it may be spent at once, in seconds.
    pub burst_seconds: f64,
    /// Calls per second of this worker.
    pub rate: f64,
    /// For so long.
    pub seconds: f64,
    /// How long a call may wait.
    pub max_wait_seconds: f64,
    /// Where its chance begins.
    pub seed: u64,
}

/// What a worker has met, as JSON on its standard output.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Met {
    /// Answered.
    pub answered: u64,
    /// Refused by its own limits.
    pub refused: u64,
    /// Everything else, with one message of each kind.
    pub failed: u64,
    /// One message of them.
    pub failure: Option<String>,
    /// How long each answered call took, in milliseconds.
    pub took_ms: Vec<f64>,
    /// Questions to the store.
    pub exchanges: u64,
    /// Of these, not answered in time.
    pub lost: u64,
}
