//! What was sent in the last minute: sixty one-second slots. For people; nothing is decided by it.

use crate::Timestamp;

const SLOTS: u64 = 60;

const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    second: u64,
    requests: u64,
    tokens: u64,
}

/// The last sixty seconds.
#[derive(Debug)]
pub(crate) struct Recent {
    slots: [Slot; SLOTS as usize],
    /// Where the present second's slot stands, and when that second began: most calls are sent in the second of the one
    /// before and need no division to find it.
    present: usize,
    began: u64,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self { slots: [Slot::default(); SLOTS as usize], present: 0, began: 0 }
    }

    /// A request was sent, expected to cost `tokens`.
    pub(crate) fn sent(&mut self, tokens: u64, at: Timestamp) {
        if at.as_nanos().wrapping_sub(self.began) >= SECOND {
            let second = second_of(at);
            (self.present, self.began) = ((second % SLOTS) as usize, second * SECOND);
            let slot = &mut self.slots[self.present];
            if slot.second != second {
                *slot = Slot { second, ..Slot::default() };
            }
        }
        let slot = &mut self.slots[self.present];
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
        self.slots.iter().filter(|slot| slot.second <= second && second - slot.second < SLOTS).fold(
            (0, 0),
            |(requests, tokens), slot| {
                (requests.saturating_add(slot.requests), tokens.saturating_add(slot.tokens))
            },
        )
    }

    fn slot(&mut self, at: Timestamp) -> Option<&mut Slot> {
        if at.as_nanos().wrapping_sub(self.began) < SECOND {
            return Some(&mut self.slots[self.present]);
        }
        let second = second_of(at);
        let slot = &mut self.slots[(second % SLOTS) as usize];
        (slot.second == second).then_some(slot)
    }
}

fn second_of(at: Timestamp) -> u64 {
    at.as_nanos() / SECOND
}
