//! A pipeline with a clock, for tests that read like a story.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::time::Duration;

use omega_policy::*;

pub const FAR: Timestamp = Timestamp::from_secs(1_000_000);

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub struct Rig {
    pub pipeline: Pipeline,
    pub now: Timestamp,
}

impl Rig {
    /// The specification's defaults with a whole minute of burst, no margin and no bound on concurrency, changed.
    pub fn with(change: impl FnOnce(&mut PipelineConfig)) -> Self {
        let mut config = PipelineConfig::default();
        config.limiter.burst = seconds(60);
        config.limiter.depth_margin = Duration::ZERO;
        config.limiter.max_concurrent = None;
        change(&mut config);
        let now = Timestamp::from_secs(1_000);
        Self { pipeline: Pipeline::new(config, now), now }
    }

    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    /// A small call that may wait for long.
    pub fn call(&self) -> Call {
        let demand = Demand { input_tokens: 1, max_output_tokens: Some(1) };
        Call { failover_wait: seconds(5), ..Call::new(ModelId(1), demand, FAR, self.now) }
    }

    pub fn of_model(&self, model: u32) -> Call {
        Call { model: ModelId(model), ..self.call() }
    }

    /// A call of so many input tokens and no output.
    pub fn of_tokens(&self, tokens: u64) -> Call {
        Call { demand: Demand { input_tokens: tokens, max_output_tokens: Some(0) }, ..self.call() }
    }

    /// One that may wait so many seconds.
    pub fn within(&self, wait: u64) -> Call {
        Call { admit_by: self.now + seconds(wait), ..self.call() }
    }

    pub fn admit(&mut self, call: &Call) -> Admission {
        self.pipeline.admit(call, self.now)
    }

    pub fn granted(&mut self, call: &Call) -> Permit {
        match self.admit(call) {
            Admission::Granted(permit) => permit,
            other => panic!("expected a grant, got {other:?}"),
        }
    }

    pub fn queued(&mut self, call: &Call) -> Ticket {
        match self.admit(call) {
            Admission::Queued(ticket) => ticket,
            other => panic!("expected a place in the queue, got {other:?}"),
        }
    }

    pub fn rejected(&mut self, call: &Call) -> Rejection {
        match self.admit(call) {
            Admission::Rejected(why) => why,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    /// Takes all the requests there are and lets them go on.
    pub fn exhaust(&mut self, count: usize) -> Vec<Permit> {
        (0..count)
            .map(|_| {
                let call = self.call();
                self.granted(&call)
            })
            .collect()
    }

    pub fn end(&mut self, call: &mut Call, permit: Permit, outcome: &Outcome) -> Verdict {
        self.pipeline.complete(call, permit, outcome, self.now, Chance::ZERO)
    }

    pub fn fail(&mut self, call: &mut Call, failure: Failure) -> Verdict {
        let permit = self.granted(call);
        self.end(call, permit, &Outcome::Failure(failure))
    }

    /// One call, asked, sent and ended like this.
    pub fn once(&mut self, outcome: &Outcome) -> Verdict {
        let mut call = self.call();
        let permit = self.granted(&call);
        self.end(&mut call, permit, outcome)
    }

    /// So many of them, one after the other.
    pub fn repeat(&mut self, times: u32, outcome: &Outcome) {
        for _ in 0..times {
            self.once(outcome);
        }
    }

    /// Five server errors.
    pub fn open(&mut self) {
        self.repeat(5, &failure(FailureKind::Server));
        assert_eq!(self.state(), BreakerState::Open);
    }

    pub fn poll(&mut self) -> Option<(Ticket, Result<Permit, Rejection>)> {
        self.pipeline.poll_granted(self.now)
    }

    pub fn poll_all(&mut self) -> Vec<(Ticket, Result<Permit, Rejection>)> {
        let mut answers = Vec::new();
        while let Some(answer) = self.poll() {
            answers.push(answer);
        }
        answers
    }

    /// Goes from timeout to timeout until nobody waits; who was answered when.
    pub fn run(&mut self) -> Vec<(Timestamp, Ticket, Result<Permit, Rejection>)> {
        let mut answers = Vec::new();
        for _ in 0..1_000_000 {
            answers.extend(self.poll_all().into_iter().map(|(ticket, answer)| (self.now, ticket, answer)));
            match self.pipeline.next_timeout() {
                Some(at) => {
                    assert!(at > self.now, "woken at a moment at which there was nothing to do");
                    self.now = at;
                }
                None => return answers,
            }
        }
        panic!("the pipeline never comes to rest");
    }

    pub fn stats(&self) -> Stats {
        self.pipeline.stats(self.now)
    }

    pub fn state(&self) -> BreakerState {
        self.stats().breaker.state
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.pipeline.poll_event()).collect()
    }
}

pub fn success() -> Outcome {
    Outcome::Success { usage: None }
}

pub fn failure(kind: FailureKind) -> Outcome {
    Outcome::Failure(Failure::new(kind))
}
