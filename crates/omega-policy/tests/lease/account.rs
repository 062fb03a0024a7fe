//! Single rules of the account.

use omega_policy::*;

fn bucket(want: f64, least: f64) -> BucketAsk<String> {
    BucketAsk {
        model: String::new(),
        dimension: Dimension::Requests,
        limit: 60.0,
        depth: 6.0,
        holding: 0.0,
        late: 0.0,
        owed: 0.0,
        returned: 0.0,
        want,
        least,
        patience: 100.0,
        at_most: None,
    }
}

trait Deep {
    fn deep(self) -> Self;
}

impl Deep for BucketAsk<String> {
    fn deep(self) -> Self {
        Self { depth: 100.0, ..self }
    }
}

fn request(seq: u64, bucket: BucketAsk<String>) -> LeaseRequest<String> {
    LeaseRequest { life: 1, seq, acked: seq - 1, buckets: vec![bucket], ..LeaseRequest::default() }
}

/// One process and its account.
#[derive(Default)]
struct Alone {
    ledger: Ledger,
    holder: Option<Holder>,
}

impl Alone {
    fn ask(&mut self, request: &LeaseRequest<String>, now: f64) -> LeaseGrant<String> {
        self.ledger.exchange("one", &mut self.holder, request, now)
    }
}

#[test]
fn what_is_held_counts_against_the_burst() {
    let mut alone = Alone::default();
    assert_eq!(alone.ask(&request(1, bucket(4.0, 4.0)), 10.0).buckets[0].ready, 4.0);
    // A minute later everything has flowed in but for what is still held.
    let still = BucketAsk { holding: 4.0, ..bucket(0.0, 0.0) };
    assert_eq!(alone.ask(&request(2, still), 70.0).buckets[0].level, 2.0);
    // It is used, perhaps just now: what the provider had room for meanwhile is not known to have come.
    assert_eq!(alone.ask(&request(3, bucket(0.0, 0.0)), 130.0).buckets[0].level, 2.0);
    assert_eq!(alone.ask(&request(4, bucket(0.0, 0.0)), 132.0).buckets[0].level, 4.0);
}

#[test]
fn a_grant_that_never_arrived_goes_back() {
    let mut alone = Alone::default();
    alone.ask(&request(1, bucket(4.0, 4.0)), 10.0);
    let unheard = LeaseRequest { acked: 0, ..request(2, bucket(0.0, 0.0)) };
    assert_eq!(alone.ask(&unheard, 10.0).buckets[0].level, 6.0);
    assert_eq!(alone.ledger.buckets["requests/"].held, 0.0);
}

#[test]
fn a_request_is_carried_out_once_however_often_it_comes() {
    let mut alone = Alone::default();
    let first = request(1, BucketAsk { owed: 2.0, ..bucket(1.0, 1.0) });
    alone.ask(&first, 10.0);
    let second = request(2, BucketAsk { holding: 1.0, ..bucket(1.0, 1.0) });
    alone.ask(&second, 10.0);
    let before = alone.ledger.clone();
    for late in [&second, &first] {
        let answer = alone.ask(late, 10.0);
        assert!(answer.stale && answer.buckets.is_empty(), "{answer:?}");
    }
    assert_eq!(alone.ledger, before);
    assert_eq!(before.buckets["requests/"].level, 2.0, "two owed and two granted, of six");
}

#[test]
fn what_is_told_again_because_no_answer_came_is_counted_once() {
    let mut alone = Alone::default();
    alone.ask(&request(1, bucket(3.0, 3.0)), 10.0);
    // Used one of three, and two beyond; the answer is lost. Then one more beyond.
    let told = |seq: u64, owed: f64, holding: f64| LeaseRequest {
        acked: 1,
        ..request(seq, BucketAsk { owed, holding, ..bucket(0.0, 0.0) })
    };
    assert_eq!(alone.ask(&told(2, 2.0, 0.0), 10.0).buckets[0].level, 1.0);
    assert_eq!(alone.ask(&told(3, 3.0, 0.0), 10.0).buckets[0].level, 0.0, "one more, not three");
}

fn away(seq: u64, away_for: f64, bucket: BucketAsk<String>) -> LeaseRequest<String> {
    LeaseRequest { away: true, away_for, ..request(seq, bucket) }
}

#[test]
fn what_was_spent_beside_the_account_is_what_was_left_at_most() {
    let mut ledger = Ledger::default();
    let (mut one, mut two) = (None, None);
    ledger.exchange("one", &mut one, &request(1, bucket(3.0, 3.0)), 10.0);
    ledger.exchange("two", &mut two, &request(1, bucket(1.0, 1.0)), 10.0);
    // It kept one of its three and has used two of its share.
    let back = BucketAsk { owed: 2.0, returned: 1.0, ..bucket(0.0, 0.0) };
    let answer = ledger.exchange("one", &mut one, &away(2, 0.5, back), 10.0);
    assert_eq!(answer.buckets[0].level, 1.0, "two were left, less two, and one came back");
    // The provider cannot have let more pass than it had: what the other holds is in doubt, and nothing more.
    let spent = BucketAsk { owed: 100.0, ..bucket(0.0, 0.0) };
    let answer = ledger.exchange("one", &mut one, &away(3, 0.5, spent), 10.0);
    assert_eq!(answer.buckets[0].level, -1.0);
}

#[test]
fn what_the_forgotten_held_was_taken_to_be_used_and_cannot_be_returned() {
    let mut ledger = Ledger::default();
    let mut one = None;
    ledger.exchange("one", &mut one, &request(1, bucket(16.0, 16.0).deep()), 10.0);
    ledger.exchange("two", &mut None, &request(1, bucket(0.0, 0.0).deep()), 12.5);
    let holder = one.take().expect("it is there");
    ledger.forget("one", &holder);
    let before = ledger.buckets["requests/"].level;
    let back = BucketAsk { returned: 10.0, ..bucket(0.0, 0.0).deep() };
    ledger.exchange("one", &mut one, &away(2, 2.0, back), 12.5);
    assert_eq!(ledger.buckets["requests/"].level, before);
}

/// A store that was away from everybody, and a process that comes back to it.
#[test]
fn nobody_is_granted_anything_before_all_have_heard_that_the_store_is_back() {
    let mut ledger = Ledger::default();
    let (mut one, mut two) = (None, None);
    for (name, holder) in [("one", &mut one), ("two", &mut two)] {
        ledger.exchange(name, holder, &request(1, bucket(0.0, 0.0)), 10.0);
    }
    // Short of the time after which nobody can still be believed to be here, it comes back at once.
    let wants = || bucket(1.0, 1.0);
    assert_eq!(ledger.exchange("one", &mut one, &away(2, 1.0, wants()), 11.0).learning, 0.0);
    ledger.touched = 11.0;
    let first = ledger.exchange("one", &mut one, &away(3, 9.0, wants()), 20.0);
    assert_eq!((first.learning, first.buckets[0].amount), (2.0, 0.0));
    // The other asks a second and a half later, and again within 1.1 s of that.
    let second = ledger.exchange("two", &mut two, &away(2, 9.0, wants()), 21.5);
    assert!((second.learning - 1.1).abs() < 1e-9, "{}", second.learning);
    // The first was told so: that it asks again puts nothing off.
    let again = ledger.exchange("one", &mut one, &away(4, 2.0, wants()), 22.0);
    assert!((again.learning - 0.6).abs() < 1e-9, "{}", again.learning);
    // Nor does anybody for more than four seconds in all.
    let third = ledger.exchange("three", &mut None, &away(1, 9.0, wants()), 22.5);
    let fourth = ledger.exchange("four", &mut None, &away(1, 9.0, wants()), 23.5);
    assert!((third.learning - 1.1).abs() < 1e-9 && (fourth.learning - 0.5).abs() < 1e-9);
    let over = ledger.exchange("one", &mut one, &away(5, 2.0, wants()), 24.0);
    assert_eq!(over.learning, 0.0);
    assert_eq!(over.buckets[0].amount, 1.0);
}

#[test]
fn who_asks_later_is_given_what_comes_later() {
    let mut ledger = Ledger::default();
    let (mut one, mut two, mut three) = (None, None, None);
    ledger.exchange("one", &mut one, &request(1, bucket(6.0, 6.0)), 10.0);
    let second = ledger.exchange("two", &mut two, &request(1, bucket(3.0, 1.0)), 10.0);
    assert_eq!(
        (second.buckets[0].amount, second.buckets[0].ready, second.buckets[0].starts),
        (3.0, 0.0, 0.0)
    );
    let third = ledger.exchange("three", &mut three, &request(1, bucket(1.0, 1.0)), 10.0);
    assert_eq!((third.buckets[0].amount, third.buckets[0].starts), (1.0, 3.0), "behind the second");
    let hasty = request(2, BucketAsk { patience: 3.9, ..bucket(1.0, 1.0) });
    let refused = ledger.exchange("three", &mut three, &hasty, 10.0);
    assert_eq!((refused.buckets[0].amount, refused.buckets[0].refused_for), (0.0, 5.0), "too late for it");
}

#[test]
fn what_nobody_waits_for_is_not_lent_ahead() {
    let mut alone = Alone::default();
    assert_eq!(alone.ask(&request(1, bucket(6.0, 0.0)), 10.0).buckets[0].amount, 6.0);
    let more = BucketAsk { holding: 6.0, ..bucket(1.0, 0.0) };
    assert_eq!(alone.ask(&request(2, more), 10.5).buckets[0].amount, 0.0, "half of it is there");
}

#[test]
fn debts_are_bounded_by_five_minutes_of_the_limit() {
    let mut alone = Alone::default();
    let answer = alone.ask(&request(1, BucketAsk { owed: 1e12, ..bucket(0.0, 0.0) }), 10.0);
    assert_eq!(answer.buckets[0].level, -300.0);
}

#[test]
fn what_is_owed_puts_off_what_was_promised_and_nothing_else() {
    let mut alone = Alone::default();
    let owes = |seq, owed| request(seq, BucketAsk { owed, ..bucket(0.0, 0.0) });
    let put_off = |grant: &LeaseGrant<String>| grant.buckets[0].put_off;
    // Six are there. Four are nobody's yet, and of four more two are; who was promised what flows in then waits longer.
    assert_eq!(put_off(&alone.ask(&owes(1, 4.0), 10.0)), 0.0);
    let debt = alone.ask(&owes(2, 4.0), 10.0);
    assert_eq!((debt.buckets[0].level, put_off(&debt)), (-2.0, 2.0));
    assert_eq!(put_off(&alone.ask(&owes(3, 1.5), 10.0)), 3.5);
    assert_eq!(put_off(&alone.ask(&owes(4, 0.0), 60.0)), 3.5, "it is told in all");
    // No further than the account is debited.
    assert_eq!(put_off(&alone.ask(&owes(5, 1e12), 60.0)), 3.5 + 300.0);
}

#[test]
fn after_a_pause_a_bucket_holds_two_seconds_worth() {
    let mut alone = Alone::default();
    alone.ask(&request(1, BucketAsk { owed: 6.0, ..bucket(0.0, 0.0) }), 10.0);
    let pause = Pause { model: String::new(), seconds: 60.0, spent: false };
    let asked = LeaseRequest { pauses: vec![pause], ..request(2, bucket(0.0, 0.0)) };
    assert_eq!(alone.ask(&asked, 10.0).pauses.len(), 1);
    let later = alone.ask(&request(3, bucket(0.0, 0.0)), 70.0);
    assert_eq!((later.buckets[0].level, later.pauses.len()), (2.0, 0));
}

#[test]
fn a_limit_of_zero_grants_nothing() {
    let mut alone = Alone::default();
    let none = BucketAsk { limit: 0.0, depth: 0.0, ..bucket(1.0, 1.0) };
    assert_eq!(alone.ask(&request(1, none), 10.0).buckets[0].amount, 0.0);
}

#[test]
fn a_turn_of_an_older_circuit_is_not_heard() {
    let mut ledger = Ledger::default();
    let (mut one, mut two) = (None, None);
    let circuit = |turn, turned| CircuitAsk {
        model: String::new(),
        turn,
        turned,
        probes: 0,
        wants_probe: false,
        max_probes: 3,
    };
    let with = |seq, circuit| LeaseRequest { circuits: vec![circuit], ..request(seq, bucket(0.0, 0.0)) };
    ledger.exchange("one", &mut one, &with(1, circuit(0, Some(Turn::Opened(5.0)))), 10.0);
    // The other tripped before it heard: it follows.
    let heard = ledger.exchange("two", &mut two, &with(1, circuit(0, Some(Turn::Opened(50.0)))), 10.1);
    assert_eq!((heard.circuits[0].turn, heard.circuits[0].open), (1, true));
    assert!((4.8..5.0).contains(&heard.circuits[0].left), "{heard:?}");
    ledger.exchange("one", &mut one, &with(2, circuit(1, Some(Turn::Closed))), 16.0);
    let heard = ledger.exchange("two", &mut two, &with(2, circuit(1, Some(Turn::Opened(5.0)))), 16.1);
    assert_eq!(
        (heard.circuits[0].turn, heard.circuits[0].open),
        (2, false),
        "the news is older than the recovery"
    );
}
