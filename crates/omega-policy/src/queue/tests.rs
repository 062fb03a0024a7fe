use super::*;

fn waiter(slot: usize, seconds: u64) -> Waiter {
    Waiter {
        model: ModelId(slot as u32),
        slot,
        cost: Cost::of_call(10, 5),
        deadline: Timestamp::from_secs(seconds),
        first_try: true,
    }
}

#[test]
fn the_oldest_stands_in_front_and_each_lane_has_a_head() {
    let mut queue = Queue::default();
    let tickets: Vec<_> = [0, 1, 0, 2, 1].into_iter().map(|slot| queue.push(waiter(slot, 10))).collect();
    assert_eq!(queue.oldest(), Some(tickets[0]));
    let heads: Vec<_> = queue.lane_heads().map(|(ticket, _)| ticket).collect();
    assert_eq!(heads, [tickets[0], tickets[1], tickets[3]]);
    queue.remove(tickets[0]);
    let heads: Vec<_> = queue.lane_heads().map(|(ticket, _)| ticket).collect();
    assert_eq!(heads, [tickets[2], tickets[1], tickets[3]]);
}

#[test]
fn whoever_leaves_leaves_nothing_behind() {
    let mut queue = Queue::default();
    let tickets: Vec<_> =
        (0..100).map(|number| queue.push(waiter(number % 7, 1_000 - number as u64))).collect();
    assert_eq!(queue.lane_sum(0), Some(Cost { requests: 15, input: 150, output: 75 }));
    queue.leave(tickets[14]);
    assert_eq!(queue.lane_sum(0), Some(Cost { requests: 14, input: 140, output: 70 }));
    for ticket in tickets.iter().rev().step_by(2).chain(tickets.iter().step_by(2)) {
        queue.leave(*ticket);
    }
    assert!(queue.is_idle());
    assert_eq!(queue.len(), 0);
    assert!(queue.next_deadline().is_none());
    assert_eq!(queue.lanes().count(), 0);
    assert_eq!(queue.total(), 100);
}

#[test]
fn a_refusal_is_told_once_and_not_to_one_who_left() {
    let mut queue = Queue::default();
    let (stays, leaves) = (queue.push(waiter(0, 1)), queue.push(waiter(0, 1)));
    let why = Rejection::CircuitOpen { retry_at: Timestamp::from_secs(9) };
    queue.refuse(stays, why.clone());
    queue.refuse(leaves, why.clone());
    queue.refuse(leaves, why.clone());
    queue.leave(leaves);
    assert_eq!(queue.pop_refused(), Some((stays, why)));
    assert_eq!(queue.pop_refused(), None);
    assert!(queue.is_idle());
}

#[test]
fn deadlines_come_out_in_order_whatever_the_order_of_arrival() {
    let mut queue = Queue::default();
    for seconds in [5, 3, 9, 1, 7] {
        queue.push(waiter(seconds as usize, seconds));
    }
    let mut seen = Vec::new();
    while let Some((deadline, ticket)) = queue.next_deadline() {
        seen.push(deadline.as_nanos() / 1_000_000_000);
        queue.remove(ticket);
    }
    assert_eq!(seen, [1, 3, 5, 7, 9]);
}
