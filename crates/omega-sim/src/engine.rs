//! Virtual time: what happens next, and who is told.
//!
//! One heap of events, ordered by time and then by the order in which they were planned, merged with the arrivals of
//! the trace. The engine moves calls through the network and the provider; a [`Client`] decides everything a caller
//! would decide. Nothing here reads a clock, and equal inputs run in equal order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use omega_policy::Dimension;

use crate::fault::{Fault, FaultKind};
use crate::measure::Recorder;
use crate::service::{self, Draw, Purpose, SECOND};
use crate::trace::{Request, Trace};
use crate::upstream::{Bill, Charge, Headers, Provider, THROTTLED_AFTER, Upstream};

/// A provider that is down says so after this long.
const DOWN_AFTER: u64 = SECOND;
/// An overloaded one after this long.
const OVERLOADED_AFTER: u64 = 300_000_000;

/// The caller's side: a policy under test.
pub(crate) trait Client {
    /// Is [`Client::first_byte`] worth an event?
    const HEARS_FIRST_BYTES: bool;

    /// A request arrives. It ends with [`World::refuse`], or with the answer to a [`World::send`] that is not sent
    /// again.
    fn arrive(&mut self, number: u32, world: &mut World<'_>);
    /// A moment asked for with [`World::wake`] has come.
    fn wake(&mut self, token: u64, world: &mut World<'_>);
    /// Headers and first content of a call that is being answered.
    fn first_byte(&mut self, number: u32, headers: Option<Headers>, world: &mut World<'_>);
    /// A call ended. The client reports the request's end, or plans to send it again.
    fn answer(&mut self, number: u32, answer: Answer, world: &mut World<'_>);
}

/// How an attempt ended, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Complete.
    Success,
    /// 429.
    Throttled { retry_after: u32, exhausted: Option<Dimension>, headers: Option<Headers> },
    /// 500.
    ServerError,
    /// 529.
    Overloaded,
    /// No first byte in the time the client allows.
    Silence,
    /// The caller's own time was over while the answer was being written.
    OutOfTime,
}

/// How long a client waits for an attempt, as moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the first byte.
    pub(crate) first_byte: u64,
    /// For all of it.
    pub(crate) end: u64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A call reaches the provider.
    Reach {
        number: u32,
        patience: Patience,
    },
    /// Its first byte reaches the client.
    FirstByte {
        number: u32,
        headers: Option<Headers>,
    },
    /// It ends at the provider.
    Settle {
        bill: Bill,
    },
    /// Its end reaches the client.
    Answer {
        number: u32,
        answer: Answer,
    },
    Wake {
        token: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Event {
    at: u64,
    /// Ties are settled by the order of planning.
    order: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What is replayed and against whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) trace: &'a Trace,
    pub(crate) provider: Provider,
    pub(crate) faults: &'a [Fault],
    pub(crate) max_tokens: u32,
    pub(crate) seed: u64,
}

impl Setting<'_> {
    /// The output of a request: nobody writes beyond `max_tokens`.
    pub(crate) fn output(&self, request: &Request) -> u32 {
        request.output_tokens.min(self.max_tokens)
    }

    pub(crate) fn bill(&self, request: &Request) -> Bill {
        Bill::of(self.provider.charge, request.input_tokens, self.output(request), self.max_tokens)
    }

    pub(crate) fn draw(&self, number: u32) -> Draw {
        let request = &self.trace.requests()[number as usize];
        service::draw(self.seed, number, request, self.output(request))
    }

    /// The fault in force at `at`, the first that was named.
    pub(crate) fn fault(&self, at: u64) -> Option<FaultKind> {
        self.faults.iter().find(|fault| fault.window.contains(at)).map(|fault| fault.kind)
    }
}

/// Everything outside of the client.
#[derive(Debug)]
pub(crate) struct World<'a> {
    setting: Setting<'a>,
    now: u64,
    events: BinaryHeap<Reverse<Event>>,
    planned: u64,
    upstream: Upstream,
    pub(crate) recorder: Recorder,
}

impl<'a> World<'a> {
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Has everybody arrived?
    pub(crate) fn is_last_arrival_past(&self) -> bool {
        self.setting.trace.requests().last().is_none_or(|last| last.arrival < self.now)
    }

    pub(crate) fn setting(&self) -> &Setting<'a> {
        &self.setting
    }

    pub(crate) fn request(&self, number: u32) -> Request {
        self.setting.trace.requests()[number as usize]
    }

    /// The stream of chance of this request after its latest attempt.
    pub(crate) fn backoff_chance(&self, number: u32) -> fastrand::Rng {
        let attempt = self.recorder.attempts(number);
        service::chance(self.setting.seed, number, Purpose::Backoff { attempt })
    }

    /// Sends a request, now.
    pub(crate) fn send(&mut self, number: u32, patience: Patience) {
        self.recorder.sent(number, self.now);
        let there = self.setting.draw(number).there;
        self.plan(self.now + there, What::Reach { number, patience });
    }

    /// Asks to be woken.
    pub(crate) fn wake(&mut self, at: u64, token: u64) {
        self.plan(at.max(self.now), What::Wake { token });
    }

    /// The request was answered.
    pub(crate) fn succeed(&mut self, number: u32) {
        self.recorder.succeeded(number);
    }

    /// The request is given up after having been sent.
    pub(crate) fn fail(&mut self, number: u32) {
        self.recorder.failed(number);
    }

    /// The client's own policy turns the request away.
    pub(crate) fn refuse(&mut self, number: u32) {
        self.recorder.refused(number);
    }

    fn plan(&mut self, at: u64, what: What) {
        let order = self.planned;
        self.planned += 1;
        self.events.push(Reverse(Event { at, order, what }));
    }

    /// A call is at the provider's door.
    fn reach(&mut self, number: u32, patience: Patience, hears_first_byte: bool) {
        let request = self.request(number);
        let draw = self.setting.draw(number);
        let fault = self.setting.fault(self.now);
        let met = |share: f64| {
            let attempt = self.recorder.attempts(number);
            service::chance(self.setting.seed, number, Purpose::Fault { attempt }).f64() < share
        };
        let (slow, breaks) = match fault {
            Some(FaultKind::Down) => {
                return self.plan(
                    self.now + DOWN_AFTER + draw.back,
                    What::Answer { number, answer: Answer::ServerError },
                );
            }
            Some(FaultKind::Hang) => {
                let (at, answer) = self.given_up(patience);
                return self.plan(at, What::Answer { number, answer });
            }
            Some(FaultKind::Overload(share)) if met(share) => return self.overloaded(number, draw),
            Some(FaultKind::Brown(share)) => (true, met(share)),
            Some(FaultKind::Overload(_)) | None => (false, false),
        };
        let bill = self.setting.bill(&request);
        if !self.admitted(number, bill.at_arrival, draw) {
            return;
        }
        let headers = self.upstream.headers();
        let stretched = |span: u64| if slow { span + span / 2 } else { span };
        let first = self.now + stretched(draw.first_token);
        let end = first + stretched(draw.writing);
        if !breaks {
            self.plan(end, What::Settle { bill });
        } else if self.setting.provider.charge == Charge::Refund {
            // Nothing was written that the caller can be charged for.
            let back = u64::from(self.setting.max_tokens);
            self.plan(end, What::Settle { bill: Bill { at_arrival: 0, at_end: 0, back } });
        }
        // A call that will fail is silent until it does: no headers, no first token.
        let first = if breaks { end } else { first } + draw.back;
        let end = end + draw.back;
        let (given_up_at, answer) = self.given_up(patience);
        if first > patience.first_byte || first > patience.end {
            return self.plan(given_up_at, What::Answer { number, answer });
        }
        if breaks {
            return self.plan(end, What::Answer { number, answer: Answer::ServerError });
        }
        if hears_first_byte {
            self.plan(first, What::FirstByte { number, headers });
        }
        if end > patience.end {
            return self.plan(patience.end, What::Answer { number, answer: Answer::OutOfTime });
        }
        self.plan(end, What::Answer { number, answer: Answer::Success });
    }

    /// A 529 is charged as a request and costs no tokens; without a request left it is a 429.
    fn overloaded(&mut self, number: u32, draw: Draw) {
        if self.admitted(number, 0, draw) {
            let at = self.now + OVERLOADED_AFTER + draw.back;
            self.plan(at, What::Answer { number, answer: Answer::Overloaded });
        }
    }

    /// Takes the call, or answers 429.
    fn admitted(&mut self, number: u32, tokens: u64, draw: Draw) -> bool {
        let throttled = match self.upstream.arrive(tokens, self.now) {
            Ok(()) => {
                self.recorder.admitted(tokens, self.now);
                return true;
            }
            Err(throttled) => throttled,
        };
        let exhausted = (!self.setting.provider.blind).then_some(throttled.exhausted);
        let headers = self.upstream.headers();
        let answer = Answer::Throttled { retry_after: throttled.retry_after, exhausted, headers };
        self.plan(self.now + THROTTLED_AFTER + draw.back, What::Answer { number, answer });
        false
    }

    fn given_up(&self, patience: Patience) -> (u64, Answer) {
        if patience.first_byte <= patience.end {
            (patience.first_byte, Answer::Silence)
        } else {
            (patience.end, Answer::OutOfTime)
        }
    }
}

/// How often progress is told, in arrivals.
const PROGRESS_EVERY: usize = 16_384;

/// Replays the trace through `client`, to the end. `progress` hears how many requests have arrived.
pub(crate) fn run<C: Client>(
    setting: Setting<'_>,
    client: &mut C,
    progress: &mut dyn FnMut(usize),
) -> Recorder {
    let requests = setting.trace.requests();
    let mut world = World {
        setting,
        now: 0,
        events: BinaryHeap::with_capacity(1_024),
        planned: 0,
        upstream: Upstream::new(setting.provider),
        recorder: Recorder::new(setting.trace, setting.faults),
    };
    let mut arrived = 0;
    loop {
        let arrival = requests.get(arrived).map(|request| request.arrival);
        let event = world.events.peek().map(|Reverse(event)| event.at);
        match (arrival, event) {
            (Some(at), next) if next.is_none_or(|next| at <= next) => {
                world.now = at;
                let number = arrived as u32;
                arrived += 1;
                let tokens = setting.bill(&requests[number as usize]).net();
                world.recorder.arrived(tokens, at);
                client.arrive(number, &mut world);
                if arrived % PROGRESS_EVERY == 0 {
                    progress(arrived);
                }
            }
            (_, Some(_)) => {
                let Some(Reverse(event)) = world.events.pop() else { break };
                world.now = event.at;
                happen(event.what, client, &mut world);
            }
            (None, None) => break,
            // The guard above takes every arrival that has no earlier event.
            (Some(_), None) => break,
        }
    }
    progress(arrived);
    world.recorder
}

fn happen<C: Client>(what: What, client: &mut C, world: &mut World<'_>) {
    match what {
        What::Reach { number, patience } => world.reach(number, patience, C::HEARS_FIRST_BYTES),
        What::FirstByte { number, headers } => client.first_byte(number, headers, world),
        What::Settle { bill } => world.upstream.settle(bill, world.now),
        What::Answer { number, answer } => {
            let now = world.now;
            world.recorder.answered(number, answer, now);
            client.answer(number, answer, world);
        }
        What::Wake { token } => client.wake(token, world),
    }
}
