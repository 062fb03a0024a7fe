//! The names of tenants, as the small numbers the policies know them by.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use omega_policy::TenantId;

/// Names told apart at most, as many as the policies keep accounts for; any other is nobody in particular.
const TENANTS_MAX: usize = 4_095;
/// A longer name is nobody in particular either: names come from outside.
const NAME_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Tenants(Mutex<HashMap<Box<str>, TenantId>>);

impl Tenants {
    /// The number of a tenant, a new one if it is new and there is room.
    pub(crate) fn intern(&self, name: &str) -> TenantId {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known.get(name) {
            return *id;
        }
        if known.len() >= TENANTS_MAX || name.len() > NAME_MAX {
            return TenantId::NONE;
        }
        let id = TenantId(known.len() as u32 + 1);
        known.insert(name.into(), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_number_and_there_are_only_so_many() {
        let tenants = Tenants::default();
        assert_eq!(tenants.intern("a"), TenantId(1));
        assert_eq!(tenants.intern("b"), TenantId(2));
        assert_eq!(tenants.intern("a"), TenantId(1));
        assert_eq!(tenants.intern(&"x".repeat(NAME_MAX + 1)), TenantId::NONE);
        for number in 0..TENANTS_MAX {
            tenants.intern(&number.to_string());
        }
        assert_eq!(tenants.intern("one too many"), TenantId::NONE);
        assert_eq!(tenants.intern("b"), TenantId(2));
    }
}
