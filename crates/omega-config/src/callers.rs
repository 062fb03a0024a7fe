//! Who may call a gateway.

use omega_policy::Priority;

/// How the hash of a secret is written.
pub const HASH_SCHEME: &str = "sha256:";

/// One caller of a gateway: known by the hash of its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerKey {
    /// Its name in logs, metrics and statistics.
    pub name: String,
    /// [`HASH_SCHEME`] and the SHA-256 of the secret in 64 lower-case hexadecimal digits.
    pub hash: String,
    /// Whose calls these are. `None`: the key's own name.
    pub tenant: Option<String>,
    /// The tenant's part of the quota while calls wait, relative to the others'; 1 to 1,000. Default 1.
    pub weight: u32,
    /// How urgent its calls are. Default normal.
    pub priority: Priority,
    /// Requests per minute. `None`: as many as there is quota for.
    pub max_requests_per_minute: Option<u64>,
    /// Tokens per minute, input and output. `None`: as many as there is quota for.
    pub max_tokens_per_minute: Option<u64>,
    /// Requests under way at once. `None`: any number.
    pub max_concurrent_requests: Option<u64>,
    /// Models and aliases it may ask for: exact names, or prefixes that end in `*`. Empty: all.
    pub models: Vec<String>,
    /// It may look at statistics and metrics and ask for a reload. Default no.
    pub admin: bool,
}

impl CallerKey {
    /// A key of which nothing is said yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            hash: String::new(),
            tenant: None,
            weight: 1,
            priority: Priority::Normal,
            max_requests_per_minute: None,
            max_tokens_per_minute: None,
            max_concurrent_requests: None,
            models: Vec::new(),
            admin: false,
        }
    }

    /// Whose calls these are.
    pub fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(&self.name)
    }
}
