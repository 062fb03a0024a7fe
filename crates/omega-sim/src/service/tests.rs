use super::*;

const DRAWS: u32 = 40_000;

fn request(input_tokens: u32) -> Request {
    Request { arrival: 0, input_tokens, output_tokens: 0, model: 0, tenant: 0 }
}

fn mean(of: impl Fn(Draw) -> u64, input: u32, output: u32) -> f64 {
    let sum: u64 = (0..DRAWS).map(|number| of(draw(7, number, &request(input), output))).sum();
    sum as f64 / f64::from(DRAWS) / 1e9
}

fn about(value: f64, expected: f64) {
    assert!((value / expected - 1.0).abs() < 0.01, "{value} is not about {expected}");
}

#[test]
fn the_means_are_those_of_the_model() {
    about(mean(|draw| draw.there, 0, 0), 0.025);
    about(mean(|draw| draw.back, 0, 0), 0.025);
    about(mean(|draw| draw.first_token, 0, 0), 0.5);
    about(mean(|draw| draw.first_token, 8_000, 0), 1.5);
    // 1/lognormal(0, 0.2) has the mean exp(0.02).
    about(mean(|draw| draw.writing, 0, 700), 10.0 * 0.02_f64.exp());
}

#[test]
fn half_of_all_answers_are_written_faster_than_seventy_tokens_a_second() {
    let fast = (0..DRAWS).filter(|number| draw(7, *number, &request(0), 70).writing < SECOND).count();
    about(fast as f64, f64::from(DRAWS) / 2.0);
}

#[test]
fn nothing_is_faster_than_the_floor() {
    for number in 0..1_000 {
        let draw = draw(3, number, &request(800), 0);
        assert!(draw.there >= 20_000_000 && draw.back >= 20_000_000);
        assert!(draw.first_token >= 450_000_000);
        assert_eq!(draw.writing, 0);
    }
}

#[test]
fn a_request_has_the_same_luck_whenever_it_is_asked() {
    let once = draw(1, 5, &request(10), 10);
    assert_eq!(once, draw(1, 5, &request(10), 10));
    assert_ne!(once, draw(2, 5, &request(10), 10), "another seed");
    assert_ne!(once, draw(1, 6, &request(10), 10), "another request");
}

#[test]
fn purposes_do_not_share_their_numbers() {
    let purposes = [
        Purpose::Service,
        Purpose::Client,
        Purpose::Fault { attempt: 1 },
        Purpose::Fault { attempt: 2 },
        Purpose::Backoff { attempt: 1 },
        Purpose::Backoff { attempt: 2 },
    ];
    let mut firsts: Vec<u64> = purposes.map(|purpose| chance(1, 1, purpose).u64(..)).to_vec();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), purposes.len());
}
