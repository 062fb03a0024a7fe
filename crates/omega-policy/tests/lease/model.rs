//! Every order of events in a small fleet: two processes, a quota of one token a second that is three deep, and a network
//! that loses, doubles and reorders, for some seconds. The account is the real one; the processes follow the protocol as
//! `LeaseRequest` describes it.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use omega_policy::*;
use stateright::{Checker, Model, Property};

const PROCESSES: usize = 2;
const DEPTH: f64 = 3.0;
/// Seconds after which the story ends.
const END: u8 = 4;
/// A process believes in what it was granted in answer to a question no older than this.
const BELIEVED: u8 = 1;
/// Messages lost or doubled, and processes killed, in one story.
const FAULTS: u8 = 2;

#[derive(Clone, Debug, PartialEq)]
struct Process {
    is_alive: bool,
    is_away: bool,
    life: u32,
    seq: u64,
    acked: u64,
    epoch: u64,
    /// When the last answered question was asked.
    answered: u8,
    asked: Option<(u64, u8)>,
    /// When it was lost to the store.
    lost_at: u8,
    /// Tokens it had and will not use, since its last answer.
    returned: u8,
    /// When each token it holds may be used.
    held: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
struct Story {
    time: u8,
    ledger: Ledger,
    holders: BTreeMap<String, Holder>,
    /// What the provider would let pass.
    provider: f64,
    processes: Vec<Process>,
    requests: Vec<(usize, LeaseRequest<String>)>,
    answers: Vec<(usize, u32, LeaseGrant<String>)>,
    faults: u8,
    granted_after_fault: bool,
}

impl Eq for Story {}

/// All numbers in it are whole, so its words tell it apart.
impl Hash for Story {
    fn hash<H: Hasher>(&self, state: &mut H) {
        format!("{self:?}").hash(state);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Tick,
    Ask(usize, u8),
    Deliver(usize),
    Double(usize),
    LoseRequest(usize),
    LoseAnswer(usize),
    Receive(usize),
    GiveUp(usize),
    Use(usize),
    Kill(usize),
}

struct Protocol;

fn name(process: usize, life: u32) -> String {
    format!("{process}-{life}")
}

impl Story {
    fn request(&self, process: usize, want: u8) -> LeaseRequest<String> {
        let Process { is_away, life, seq, acked, epoch, returned, ref held, .. } = self.processes[process];
        let bucket = BucketAsk {
            model: String::new(),
            dimension: Dimension::Requests,
            limit: 60.0,
            depth: DEPTH,
            holding: held.len() as f64,
            late: held.iter().filter(|at| **at > self.time + 2).count() as f64,
            owed: 0.0,
            returned: returned.into(),
            want: if is_away { 0.0 } else { want.into() },
            least: if is_away { 0.0 } else { want.into() },
            patience: 3.0,
            at_most: None,
        };
        LeaseRequest {
            life,
            seq: seq + 1,
            acked,
            epoch,
            away: is_away,
            away_for: if is_away {
                f64::from(self.time - self.processes[process].lost_at) + 0.5
            } else {
                0.0
            },
            buckets: vec![bucket],
            ..LeaseRequest::default()
        }
    }

    fn carry_out(&mut self, process: usize, request: &LeaseRequest<String>) {
        let now = f64::from(self.time) + 1.0;
        self.holders.retain(|name, holder| {
            let stays = !Ledger::has_expired(holder, now);
            if !stays {
                self.ledger.forget(name, holder);
            }
            stays
        });
        let name = name(process, request.life);
        let mut holder = self.holders.remove(&name);
        let grant = self.ledger.exchange(&name, &mut holder, request, now);
        if let Some(holder) = holder {
            self.holders.insert(name, holder);
        }
        self.answers.push((process, request.life, grant));
    }

    fn receive(&mut self, process: usize, life: u32, grant: &LeaseGrant<String>) {
        let time = self.time;
        let me = &mut self.processes[process];
        let Some((seq, asked)) = me.asked.filter(|(seq, _)| *seq == grant.seq && me.life == life) else {
            return;
        };
        if !me.is_alive || grant.stale {
            return;
        }
        me.asked = None;
        (me.acked, me.epoch, me.returned) = (seq, grant.epoch, 0);
        if grant.learning > 0.0 {
            me.go_away(time);
            return;
        }
        (me.is_away, me.answered) = (false, asked);
        let bucket = grant.buckets[0];
        let starts = time + bucket.starts.ceil() as u8;
        let ready = bucket.ready.floor() as usize;
        for token in 0..bucket.amount as usize {
            let at = if token < ready { time } else { starts + (token - ready) as u8 + 1 };
            me.held.push(at);
        }
        self.granted_after_fault |= bucket.amount > 0.0 && self.faults < FAULTS;
    }

    fn believes(&self, process: usize) -> bool {
        self.time.saturating_sub(self.processes[process].answered) <= BELIEVED
    }
}

impl Process {
    /// What it holds is not used any more, and goes back when it is heard again.
    fn go_away(&mut self, since: u8) {
        (self.is_away, self.lost_at, self.asked) = (true, since, None);
        self.returned += self.held.len() as u8;
        self.held.clear();
    }
}

impl Model for Protocol {
    type State = Story;
    type Action = Act;

    fn init_states(&self) -> Vec<Story> {
        let process = Process {
            is_alive: true,
            is_away: false,
            life: 1,
            seq: 0,
            acked: 0,
            epoch: 0,
            answered: 0,
            asked: None,
            lost_at: 0,
            returned: 0,
            held: Vec::new(),
        };
        vec![Story {
            time: 0,
            ledger: Ledger::default(),
            holders: BTreeMap::new(),
            provider: DEPTH,
            processes: vec![process; PROCESSES],
            requests: Vec::new(),
            answers: Vec::new(),
            faults: FAULTS,
            granted_after_fault: false,
        }]
    }

    fn actions(&self, story: &Story, actions: &mut Vec<Act>) {
        if story.time < END {
            actions.push(Act::Tick);
        }
        for (number, process) in story.processes.iter().enumerate().filter(|(_, process)| process.is_alive) {
            match process.asked {
                None => actions.extend([Act::Ask(number, 1), Act::Ask(number, 2)]),
                Some(_) => actions.push(Act::GiveUp(number)),
            }
            if process.held.iter().any(|at| *at <= story.time) && story.believes(number) {
                actions.push(Act::Use(number));
            }
            if story.faults > 0 {
                actions.push(Act::Kill(number));
            }
        }
        for at in 0..story.requests.len() {
            actions.push(Act::Deliver(at));
            if story.faults > 0 {
                actions.extend([Act::Double(at), Act::LoseRequest(at)]);
            }
        }
        for at in 0..story.answers.len() {
            actions.push(Act::Receive(at));
            if story.faults > 0 {
                actions.push(Act::LoseAnswer(at));
            }
        }
    }

    fn next_state(&self, story: &Story, act: Act) -> Option<Story> {
        let mut next = story.clone();
        match act {
            Act::Tick => {
                next.time += 1;
                next.provider = (next.provider + 1.0).min(DEPTH);
                for number in 0..PROCESSES {
                    if !next.believes(number)
                        && !next.processes[number].is_away
                        && next.processes[number].seq > 0
                    {
                        let since = next.processes[number].answered;
                        next.processes[number].go_away(since);
                    }
                }
            }
            Act::Ask(process, want) => {
                let request = next.request(process, want);
                let me = &mut next.processes[process];
                me.seq = request.seq;
                me.asked = Some((request.seq, next.time));
                next.requests.push((process, request));
            }
            Act::Deliver(at) => {
                let (process, request) = next.requests.remove(at);
                next.carry_out(process, &request);
            }
            Act::Double(at) => {
                next.faults -= 1;
                let (process, request) = next.requests[at].clone();
                next.carry_out(process, &request);
            }
            Act::LoseRequest(at) => {
                next.faults -= 1;
                next.requests.remove(at);
            }
            Act::LoseAnswer(at) => {
                next.faults -= 1;
                next.answers.remove(at);
            }
            Act::Receive(at) => {
                let (process, life, grant) = next.answers.remove(at);
                next.receive(process, life, &grant);
            }
            Act::GiveUp(process) => {
                let since = next.processes[process].asked.map_or(next.time, |(_, at)| at);
                next.processes[process].go_away(since);
            }
            Act::Use(process) => {
                let held = &mut next.processes[process].held;
                let at = held.iter().position(|at| *at <= story.time)?;
                held.remove(at);
                next.provider -= 1.0;
            }
            Act::Kill(process) => {
                next.faults -= 1;
                next.processes[process].is_alive = false;
                next.processes[process].held.clear();
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("never over the limit", |_, story: &Story| story.provider >= 0.0),
            Property::always("nothing of the dead is kept", |_, story: &Story| {
                let held: f64 = story
                    .holders
                    .values()
                    .filter(|holder| holder.era == story.ledger.era)
                    .filter_map(|holder| holder.buckets.get("requests/"))
                    .map(|held| held.held)
                    .sum();
                let kept = story.ledger.buckets.get("requests/").map_or(0.0, |bucket| bucket.held);
                story.ledger.members as usize == story.holders.len() && held == kept
            }),
            Property::always("whoever reaches the store gets on", |_, story: &Story| {
                let mut next = story.clone();
                let newcomer = next.request(0, 1);
                let newcomer = LeaseRequest { life: 99, seq: 1, acked: 0, epoch: 0, away: false, ..newcomer };
                let patient = BucketAsk {
                    patience: 1e6,
                    holding: 0.0,
                    want: 1.0,
                    least: 1.0,
                    ..newcomer.buckets[0].clone()
                };
                next.carry_out(0, &LeaseRequest { buckets: vec![patient], ..newcomer });
                let answer = next.answers.last().map(|(_, _, grant)| (grant.buckets[0], grant.learning));
                answer.is_some_and(|(bucket, learning)| {
                    let waits = bucket.starts + bucket.amount - bucket.ready;
                    (learning > 0.0 && learning <= 2.0)
                        || (bucket.amount == 1.0 && waits <= 2.0 * DEPTH + f64::from(END))
                })
            }),
            Property::sometimes("a lease after a fault", |_, story: &Story| story.granted_after_fault),
            Property::sometimes("somebody is told to wait", |_, story: &Story| story.ledger.learning > 0.0),
        ]
    }

    fn within_boundary(&self, story: &Story) -> bool {
        // Longer stories of this kind repeat themselves.
        story.processes.iter().all(|process| process.life <= 3 && process.seq <= 3)
            && story.requests.len() + story.answers.len() <= 3
    }
}

#[test]
fn no_order_of_events_breaks_the_protocol() {
    let checker = Protocol.checker().threads(2).target_state_count(400_000).spawn_bfs().join();
    println!("{} stories, {} states", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}
