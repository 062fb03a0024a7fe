//! The policies to compare with: what programs do today without OMEGA.
//!
//! None of this is the product's. Each is written from its own documentation, with its own delays and limits, and
//! shares with the product only the world it lives in.

use std::collections::VecDeque;

use crate::engine::{Answer, Client, Patience, World};
use crate::service::SECOND;
use crate::upstream::{Charge, Headers};

/// How long these wait for an answer: the default timeout of OpenAI's Python SDK (600 s, its README, version 1.x).
/// None of them bounds the first byte apart.
const TIMEOUT: u64 = 600 * SECOND;

/// What to do after a failed attempt, counted from 1.
pub(crate) trait Habit {
    /// The wait before the next attempt; `None`: give up.
    fn retry(&self, attempt: u32, answer: Answer, chance: &mut fastrand::Rng) -> Option<u64>;
}

/// Send once, take what comes.
#[derive(Debug)]
pub(crate) struct NoProtection;

impl Habit for NoProtection {
    fn retry(&self, _attempt: u32, _answer: Answer, _chance: &mut fastrand::Rng) -> Option<u64> {
        None
    }
}

/// OpenAI's and Anthropic's official Python SDKs: 2 retries after `min(0.5 * 2^n, 8)` seconds less up to a quarter;
/// a `Retry-After` of at most 60 s is honoured instead. Source: `_base_client.py` of openai-python 1.x.
#[derive(Debug)]
pub(crate) struct OfficialSdk;

impl Habit for OfficialSdk {
    fn retry(&self, attempt: u32, answer: Answer, chance: &mut fastrand::Rng) -> Option<u64> {
        if attempt > 2 {
            return None;
        }
        if let Answer::Throttled { retry_after, .. } = answer
            && retry_after <= 60
        {
            return Some(u64::from(retry_after) * SECOND);
        }
        let delay = (0.5 * f64::from(1_u32 << (attempt - 1))).min(8.0);
        Some((delay * (1.0 - 0.25 * chance.f64()) * 1e9) as u64)
    }
}

/// `tenacity.wait_random_exponential(min=1, max=60)` with `stop_after_attempt(6)`, as OpenAI's cookbook shows it:
/// uniform between 1 s and `min(60, 2^n)`. Knows nothing of `Retry-After`. Source: OpenAI cookbook, "How to handle
/// rate limits"; tenacity 8.x `wait.py`.
#[derive(Debug)]
pub(crate) struct Tenacity;

impl Habit for Tenacity {
    fn retry(&self, attempt: u32, _answer: Answer, chance: &mut fastrand::Rng) -> Option<u64> {
        if attempt >= 6 {
            return None;
        }
        let high = f64::from(1_u32 << attempt.saturating_sub(1)).clamp(1.0, 60.0);
        Some(((1.0 + (high - 1.0) * chance.f64()) * 1e9) as u64)
    }
}

/// Sends at once, and again by its habit.
#[derive(Debug)]
pub(crate) struct Retrying<H>(pub(crate) H);

impl<H: Habit> Client for Retrying<H> {
    const HEARS_FIRST_BYTES: bool = false;

    fn arrive(&mut self, number: u32, world: &mut World<'_>) {
        send(number, world);
    }

    fn wake(&mut self, token: u64, world: &mut World<'_>) {
        send(token as u32, world);
    }

    fn first_byte(&mut self, _number: u32, _headers: Option<Headers>, _world: &mut World<'_>) {}

    fn answer(&mut self, number: u32, answer: Answer, world: &mut World<'_>) {
        if answer == Answer::Success {
            return world.succeed(number);
        }
        let attempt = world.recorder.attempts(number);
        match self.0.retry(attempt, answer, &mut world.backoff_chance(number)) {
            Some(wait) => world.wake(world.now() + wait, u64::from(number)),
            None => world.fail(number),
        }
    }
}

fn send(number: u32, world: &mut World<'_>) {
    let by = world.now() + TIMEOUT;
    world.send(number, Patience { first_byte: by, end: by });
}

/// What many home-made wrappers do: sliding windows of a minute over requests and tokens that turn a call away when
/// they are full, three attempts with doubling delays, and a breaker that opens for a minute after five failures in a
/// row, 429s among them.
#[derive(Debug)]
pub(crate) struct MinuteWindows {
    requests_per_minute: u64,
    tokens_per_minute: u64,
    /// (when, request, tokens counted) of the last minute.
    sent: VecDeque<(u64, u32, u64)>,
    tokens: u64,
    failures: u32,
    open_until: u64,
}

const WINDOW: u64 = 60 * SECOND;
const WINDOW_ATTEMPTS: u32 = 3;
const WINDOW_FAILURES: u32 = 5;

impl MinuteWindows {
    pub(crate) fn new(requests_per_minute: u64, tokens_per_minute: u64) -> Self {
        Self {
            requests_per_minute,
            tokens_per_minute,
            sent: VecDeque::new(),
            tokens: 0,
            failures: 0,
            open_until: 0,
        }
    }

    fn try_send(&mut self, number: u32, world: &mut World<'_>) {
        let now = world.now();
        while let Some((at, _, tokens)) = self.sent.front().copied() {
            if at + WINDOW > now {
                break;
            }
            self.tokens -= tokens;
            self.sent.pop_front();
        }
        let tokens = world.setting().bill(&world.request(number)).at_arrival;
        let full = self.sent.len() as u64 >= self.requests_per_minute
            || (self.tokens + tokens > self.tokens_per_minute && !self.sent.is_empty());
        if now < self.open_until || full {
            return world.refuse(number);
        }
        self.sent.push_back((now, number, tokens));
        self.tokens += tokens;
        send(number, world);
    }

    /// The window counts what was really used, once that is known.
    fn correct(&mut self, number: u32, world: &World<'_>) {
        let charge = world.setting().provider.charge;
        if charge == Charge::Estimate {
            return;
        }
        let used = world.setting().bill(&world.request(number)).net();
        if let Some(entry) = self.sent.iter_mut().rev().find(|(_, each, _)| *each == number) {
            self.tokens = self.tokens - entry.2 + used;
            entry.2 = used;
        }
    }
}

impl Client for MinuteWindows {
    const HEARS_FIRST_BYTES: bool = false;

    fn arrive(&mut self, number: u32, world: &mut World<'_>) {
        self.try_send(number, world);
    }

    fn wake(&mut self, token: u64, world: &mut World<'_>) {
        self.try_send(token as u32, world);
    }

    fn first_byte(&mut self, _number: u32, _headers: Option<Headers>, _world: &mut World<'_>) {}

    fn answer(&mut self, number: u32, answer: Answer, world: &mut World<'_>) {
        if answer == Answer::Success {
            self.failures = 0;
            self.correct(number, world);
            return world.succeed(number);
        }
        self.failures += 1;
        if self.failures >= WINDOW_FAILURES {
            self.failures = 0;
            self.open_until = world.now() + WINDOW;
        }
        let attempt = world.recorder.attempts(number);
        if attempt >= WINDOW_ATTEMPTS {
            return world.fail(number);
        }
        let delay = f64::from(1_u32 << (attempt - 1)) * (1.0 + world.backoff_chance(number).f64());
        world.wake(world.now() + (delay * 1e9) as u64, u64::from(number));
    }
}

#[cfg(test)]
mod tests;
