//! Who may call: secrets known by their hashes, and what each of them may use.
//!
//! A secret is 32 random bytes, so a plain SHA-256 of it can neither be guessed nor looked up in a table: slow hashes are
//! for passwords that people think of. Every known hash is compared with every secret, in constant time, so that how long
//! an answer takes tells nothing about how much of it was right.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, rand};
use omega_client::{Gate, GateLimits, Priority, UnifiedLLMClient};
use omega_config::{CallerKey, HASH_SCHEME};
use secrecy::SecretString;

/// What every secret begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "omk_";
/// Random bytes in a secret.
const SECRET_BYTES: usize = 32;

/// A new secret and the hash to write down.
#[derive(Debug)]
pub struct KeySecret {
    /// For the caller; it is shown once and kept nowhere.
    pub secret: SecretString,
    /// For the configuration.
    pub hash: String,
}

/// Makes a secret.
///
/// # Errors
/// The operating system has no randomness to give.
pub fn new_key() -> Result<KeySecret, std::io::Error> {
    let mut random = [0; SECRET_BYTES];
    rand::fill(&mut random)
        .map_err(|_| std::io::Error::other("the operating system gave no random bytes"))?;
    let secret = format!("{PREFIX}{}", hex(&random));
    let hash = format!("{HASH_SCHEME}{}", hex(hashed(&secret).as_ref()));
    Ok(KeySecret { secret: secret.into(), hash })
}

fn hashed(secret: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, secret.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The keys of a configuration, with their gates.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Arc<Key>>);

/// One caller.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    hash: [u8; 32],
    pub(crate) tenant: String,
    pub(crate) priority: Priority,
    pub(crate) is_admin: bool,
    models: Vec<String>,
    limits: GateLimits,
    pub(crate) gate: Option<Gate>,
}

impl Keys {
    /// - `before`: the keys so far, whose gates go on counting where nothing has changed.
    pub(crate) fn new(keys: &[CallerKey], client: &UnifiedLLMClient, before: Option<&Self>) -> Self {
        Self(keys.iter().filter_map(|key| Key::new(key, client, before).map(Arc::new)).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.0.iter()
    }

    /// Whose secret this is.
    pub(crate) fn find(&self, secret: &str) -> Option<Arc<Key>> {
        let hash = hashed(secret);
        // All of them, also behind the right one.
        let found = self.0.iter().fold(None, |found, key| {
            match constant_time::verify_slices_are_equal(&key.hash, hash.as_ref()) {
                Ok(()) => Some(key),
                Err(_) => found,
            }
        });
        found.cloned()
    }
}

impl Key {
    fn new(key: &CallerKey, client: &UnifiedLLMClient, before: Option<&Keys>) -> Option<Self> {
        let limits = GateLimits {
            requests_per_minute: key.max_requests_per_minute,
            tokens_per_minute: key.max_tokens_per_minute,
            max_concurrent: key.max_concurrent_requests.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        };
        let known = before.and_then(|before| before.iter().find(|known| known.name == key.name));
        let gate = match known.filter(|known| known.limits == limits) {
            Some(known) => known.gate.clone(),
            None => {
                (limits != GateLimits::default()).then(|| client.gate(&format!("key {}", key.name), &limits))
            }
        };
        Some(Self {
            hash: unhex(key.hash.strip_prefix(HASH_SCHEME)?)?,
            name: key.name.clone(),
            tenant: key.tenant().to_owned(),
            priority: key.priority,
            is_admin: key.admin,
            models: key.models.clone(),
            limits,
            gate,
        })
    }

    /// Whether it may ask for this model.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.models.is_empty()
            || self.models.iter().any(|allowed| match allowed.strip_suffix('*') {
                Some(prefix) => model.starts_with(prefix),
                None => model == allowed,
            })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_new_key_is_known_by_the_hash_that_was_written_down() {
        let made = new_key().expect("random bytes");
        let other = new_key().expect("random bytes");
        assert_ne!(made.hash, other.hash);
        let hash = unhex(made.hash.strip_prefix(HASH_SCHEME).expect("the scheme")).expect("64 hex digits");
        let secret = made.secret.expose_secret();
        assert!(secret.starts_with("omk_") && secret.len() == 68, "{}", secret.len());
        assert_eq!(hashed(secret).as_ref(), hash);
    }

    #[test]
    fn only_sixty_four_hex_digits_are_a_hash() {
        assert!(unhex(&"0f".repeat(32)).is_some());
        for wrong in ["", "0f", &"0f".repeat(33), &"zz".repeat(32), &"é".repeat(32)] {
            assert!(unhex(wrong).is_none(), "{wrong}");
        }
    }
}
