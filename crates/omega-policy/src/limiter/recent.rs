//! What was sent in the last minute: sixty one-second slots. For people; nothing is decided by it.

use crate::Timestamp;

const SLOTS: u64 = 60;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    second: u64,
    requests: u64,
    tokens: u64,
}

/// The last sixty seconds.
#[derive(Debug)]
pub(crate) struct Recent([Slot; SLOTS as usize]);

impl Recent {
    pub(crate) fn new() -> Self {
        Self([Slot::default(); SLOTS as usize])
    }

    /// A request was sent, expected to cost `tokens`.
    pub(crate) fn sent(&mut self, tokens: u64, at: Timestamp) {
        let second = second_of(at);
        let slot = &mut self.0[(second % SLOTS) as usize];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot.requests = slot.requests.saturating_add(1);
        slot.tokens = slot.tokens.saturating_add(tokens);
    }

    /// The request sent `at` turned out to cost `actual` tokens instead of `expected`.
    pub(crate) fn settled(&mut self, expected: u64, actual: u64, at: Timestamp) {
        if let Some(slot) = self.slot(at) {
            slot.tokens = slot.tokens.saturating_sub(expected).saturating_add(actual);
        }
    }

    /// The request granted `at` was never sent.
    pub(crate) fn unsent(&mut self, tokens: u64, at: Timestamp) {
        if let Some(slot) = self.slot(at) {
            slot.requests = slot.requests.saturating_sub(1);
            slot.tokens = slot.tokens.saturating_sub(tokens);
        }
    }

    /// (requests, tokens) of the sixty slots that end with the present one.
    pub(crate) fn totals(&self, now: Timestamp) -> (u64, u64) {
        let second = second_of(now);
        self.0.iter().filter(|slot| slot.second <= second && second - slot.second < SLOTS).fold(
            (0, 0),
            |(requests, tokens), slot| {
                (requests.saturating_add(slot.requests), tokens.saturating_add(slot.tokens))
            },
        )
    }

    fn slot(&mut self, at: Timestamp) -> Option<&mut Slot> {
        let second = second_of(at);
        let slot = &mut self.0[(second % SLOTS) as usize];
        (slot.second == second).then_some(slot)
    }
}

fn second_of(at: Timestamp) -> u64 {
    at.as_nanos() / 1_000_000_000
}
