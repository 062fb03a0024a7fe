//! Several clients, one quota.
//!
//! Which client has which request is drawn by chance, evenly or by Zipf's law. How they share is the store's business:
//! `leases` is the product: a pipeline for each client, the account of its stores, and delays between them. `shared` is
//! one pipeline for all (leases that arrive at once and are never wasted: the best a store can do),
//! `static` cuts the quota into equal parts, `none` lets every client believe that the whole quota is its own.

use std::str::FromStr;

use crate::fault::Window;
use crate::service::{self, Purpose, SECOND};

/// How a fleet spends one quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fleet {
    /// How many clients. At least 1.
    pub clients: u32,
    /// How they share.
    pub store: Store,
    /// When the store is away: each client goes on with its share.
    pub store_down: Option<Window>,
    /// From a client to the store, and as long back, in nanoseconds. With `leases` only. More than half of the 25 ms that
    /// a client waits means that the store is never reached. Default 0.5 ms.
    pub store_delay: u64,
    /// How requests fall to clients.
    pub skew: Skew,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            clients: 1,
            store: Store::Leases,
            store_down: None,
            store_delay: SECOND / 2_000,
            skew: Skew::Even,
        }
    }
}

/// How clients share the quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// One account that all borrow from, as the product does.
    #[default]
    Leases,
    /// One state for all.
    Shared,
    /// Equal parts, fixed.
    Static,
    /// Nobody knows of the others.
    None,
}

/// How requests fall to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Skew {
    /// Evenly.
    #[default]
    Even,
    /// The n-th client has a share proportional to `1 / n^exponent`.
    Zipf(f64),
}

/// `even`, `zipf` (exponent 1), or `zipf:1.2`.
impl FromStr for Skew {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "even" => Ok(Self::Even),
            None if text == "zipf" => Ok(Self::Zipf(1.0)),
            Some(("zipf", exponent)) => exponent
                .parse()
                .ok()
                .filter(|value: &f64| (0.0..=10.0).contains(value))
                .map(Self::Zipf)
                .ok_or_else(|| format!("{exponent:?} is not an exponent from 0 to 10")),
            _ => Err(format!("unknown skew {text:?}; known: even, zipf, zipf:EXPONENT")),
        }
    }
}

/// A client's share is judged by this much of the past.
const MINUTE: u64 = 60 * SECOND;

/// Every client's use is taken to have been so many requests more: what a client sent in a minute or two is a small
/// sample of what it will, and shares by the bare count give one that happened to be quiet next to nothing.
const PRIOR: u64 = 4;

/// Who has which request, and who used how much lately.
#[derive(Debug)]
pub(crate) struct Shares {
    seed: u64,
    /// Cumulative weights, ending at 1.
    up_to: Vec<f64>,
    /// Requests sent in this minute and the one before.
    used: Vec<[u64; 2]>,
    minute: u64,
}

impl Shares {
    pub(crate) fn new(fleet: Fleet, seed: u64) -> Self {
        let clients = fleet.clients.max(1);
        let weight = |rank: u32| match fleet.skew {
            Skew::Even => 1.0,
            Skew::Zipf(exponent) => f64::from(rank).powf(-exponent),
        };
        let total: f64 = (1..=clients).map(weight).sum();
        let mut sum = 0.0;
        let up_to = (1..=clients)
            .map(|rank| {
                sum += weight(rank) / total;
                sum
            })
            .collect();
        Self { seed, up_to, used: vec![[0; 2]; clients as usize], minute: 0 }
    }

    /// The client that has this request.
    pub(crate) fn client(&self, number: u32) -> usize {
        if self.up_to.len() == 1 {
            return 0;
        }
        let draw = service::chance(self.seed, number, Purpose::Client).f64();
        self.up_to.partition_point(|up_to| *up_to <= draw).min(self.up_to.len() - 1)
    }

    /// A client sent something.
    pub(crate) fn sent(&mut self, number: u32, now: u64) {
        if self.used.len() > 1 {
            self.roll(now);
            let client = self.client(number);
            self.used[client][0] += 1;
        }
    }

    /// Every client's share of what was sent in the last one to two minutes. They sum to 1.
    pub(crate) fn last(&mut self, now: u64) -> Vec<f64> {
        self.roll(now);
        let total: u64 = self.used.iter().flatten().sum::<u64>() + PRIOR * self.used.len() as u64;
        self.used.iter().map(|[now, before]| (now + before + PRIOR) as f64 / total as f64).collect()
    }

    fn roll(&mut self, now: u64) {
        let minute = now / MINUTE;
        if minute > self.minute {
            let gap = minute - self.minute;
            for [current, before] in &mut self.used {
                *before = if gap == 1 { *current } else { 0 };
                *current = 0;
            }
            self.minute = minute;
        }
    }
}

#[cfg(test)]
mod tests;
