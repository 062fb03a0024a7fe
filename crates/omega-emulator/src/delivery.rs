//! From an answer to the steps of a body: pacing, and the faults that break a body. A fault is an edit of the
//! healthy script, so what comes before the break is exactly what a healthy service would have sent.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::body::Step;
use crate::clock::Clock;
use crate::fault::{Fault, FaultSpec};
use crate::wire::{Frame, FrameKind};

/// How fast a stream flows, in trace seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Passes before the first content because of hidden reasoning.
    pub(crate) hidden_s: f64,
    pub(crate) token_s: f64,
}

/// What faults put into a stream.
pub(crate) struct Inserts {
    pub(crate) ping: Bytes,
    pub(crate) error: Bytes,
    pub(crate) malformed: Bytes,
    /// How an event begins that never ends.
    pub(crate) endless: Bytes,
}

const MEBIBYTE: usize = 1024 * 1024;

/// The largest padding: beyond it a test measures the disk of whoever collects it.
const MOST_MEBIBYTES: u32 = 4_096;

/// How many bytes a trickle gives at a time. A prime, so that it meets every boundary in every position.
const TRICKLE_BYTES: usize = 7;

/// The script of a stream.
pub(crate) fn stream_steps(
    frames: Vec<Frame>,
    pace: Pace,
    fault: Option<&FaultSpec>,
    inserts: &Inserts,
    clock: &Clock,
) -> VecDeque<Step> {
    let mut script = Script { steps: VecDeque::new(), clock, fault: fault.map(|spec| (spec.fault, spec)) };
    let mut sent = 0;
    let mut begun = false;
    let break_at = script.break_at();
    for frame in frames {
        let content = frame.kind == FrameKind::Content;
        let past_preamble = frame.kind != FrameKind::Preamble;
        if past_preamble && !begun {
            begun = true;
            script.wait(pace.hidden_s);
            if script.before_content(inserts) {
                return script.steps;
            }
        }
        // The break comes after N content events, or after the last one where there are fewer.
        let over = matches!(frame.kind, FrameKind::Finish | FrameKind::Terminator);
        let due = past_preamble && break_at.is_some_and(|at| sent == at || over);
        if due && script.break_here(inserts) {
            return script.steps;
        }
        if frame.kind == FrameKind::Terminator && script.is(Fault::MissingDone) {
            continue;
        }
        if content {
            script.wait(pace.token_s * f64::from(frame.tokens));
            sent += 1;
        }
        script.send(frame.bytes, frame.tokens, content);
    }
    script.steps
}

/// The script of a whole answer. The second value is the length to announce.
pub(crate) fn whole_steps(
    body: Bytes,
    fault: Option<&FaultSpec>,
    clock: &Clock,
) -> (VecDeque<Step>, Option<u64>) {
    let mut script = Script { steps: VecDeque::new(), clock, fault: fault.map(|spec| (spec.fault, spec)) };
    let length = body.len() as u64;
    let half = body.slice(..body.len() / 2);
    let Some((fault, spec)) = script.fault else {
        script.send(body, 0, false);
        return (script.steps, Some(length));
    };
    match fault {
        Fault::CutAfter => {
            script.send(half, 0, false);
            script.steps.push_back(Step::Cut);
        }
        Fault::StallAfter => {
            script.send(half, 0, false);
            script.steps.push_back(Step::Hang);
        }
        Fault::EndAfter => {
            script.send(half, 0, false);
            return (script.steps, None);
        }
        Fault::MalformedChunk | Fault::MalformedBody => {
            script.send(malformed_body(), 0, false);
            return (script.steps, None);
        }
        Fault::SlowFirstToken => {
            script.wait(spec.seconds());
            script.send(body, 0, false);
        }
        // Blank lines before a JSON text are allowed and used by some services as keep-alive.
        Fault::PingsOnly => {
            let every = clock.real(spec.seconds().max(0.001));
            script.steps.push_back(Step::Repeat { bytes: Bytes::from_static(b"\n"), every });
            return (script.steps, None);
        }
        Fault::EndlessEvent => {
            script.send(Bytes::from_static(b"{\"endless\":\""), 0, false);
            script.steps.push_back(Step::Flood(Bytes::from(vec![b'x'; 64 * 1024])));
            return (script.steps, None);
        }
        Fault::HugeBody => {
            script.pad(b' ', spec.count());
            script.send(body, 0, false);
            return (script.steps, None);
        }
        _ => script.send(body, 0, false),
    }
    (script.steps, Some(length))
}

/// A body that begins like JSON and is none.
pub(crate) fn malformed_body() -> Bytes {
    Bytes::from_static(b"{\"id\": \"malformed\", \"choices\": [{\"index\": 0, oops")
}

struct Script<'a> {
    steps: VecDeque<Step>,
    clock: &'a Clock,
    fault: Option<(Fault, &'a FaultSpec)>,
}

impl Script<'_> {
    fn is(&self, fault: Fault) -> bool {
        self.fault.is_some_and(|(this, _)| this == fault)
    }

    fn wait(&mut self, trace_seconds: f64) {
        if trace_seconds > 0.0 {
            self.steps.push_back(Step::Wait(self.clock.real(trace_seconds)));
        }
    }

    fn send(&mut self, bytes: Bytes, tokens: u32, content: bool) {
        let trickle =
            self.fault.filter(|(fault, _)| *fault == Fault::Trickle).map(|(_, spec)| spec.seconds());
        let Some(pause) = trickle else {
            self.steps.push_back(Step::Send { bytes, tokens, content });
            return;
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(TRICKLE_BYTES.min(rest.len()));
            let last = rest.is_empty();
            self.steps.push_back(Step::Send {
                bytes: piece,
                tokens: if last { tokens } else { 0 },
                content: content && last,
            });
            self.wait(pause);
        }
    }

    fn pad(&mut self, byte: u8, mebibytes: u32) {
        let block = Bytes::from(vec![byte; MEBIBYTE]);
        self.steps.extend((0..mebibytes.min(MOST_MEBIBYTES)).map(|_| Step::send(block.clone())));
    }

    /// After how many content events this fault breaks the stream.
    fn break_at(&self) -> Option<u32> {
        let (fault, spec) = self.fault?;
        let breaks = matches!(
            fault,
            Fault::CutAfter
                | Fault::EndAfter
                | Fault::StallAfter
                | Fault::MalformedChunk
                | Fault::ErrorInStream
                | Fault::ErrorInStreamAlternative
        );
        match fault {
            // The model failed before it said anything.
            Fault::StatusFailed => Some(0),
            _ => breaks.then(|| spec.count()),
        }
    }

    /// Faults that show when content is due. True: nothing follows.
    fn before_content(&mut self, inserts: &Inserts) -> bool {
        let Some((fault, spec)) = self.fault else { return false };
        match fault {
            Fault::SlowFirstToken => self.wait(spec.seconds()),
            Fault::PingsOnly => {
                let every = self.clock.real(spec.seconds().max(0.001));
                self.steps.push_back(Step::Repeat { bytes: inserts.ping.clone(), every });
                return true;
            }
            Fault::EndlessEvent => {
                self.steps.push_back(Step::send(inserts.endless.clone()));
                self.steps.push_back(Step::Flood(Bytes::from(vec![b'x'; 64 * 1024])));
                return true;
            }
            Fault::HugeBody => {
                // Comment lines: a parser skips them, a buffer must not keep them.
                let mut line = vec![b'.'; MEBIBYTE];
                line[0] = b':';
                line[MEBIBYTE - 2..].copy_from_slice(b"\n\n");
                let line = Bytes::from(line);
                let count = spec.count().min(MOST_MEBIBYTES);
                self.steps.extend((0..count).map(|_| Step::send(line.clone())));
            }
            _ => {}
        }
        false
    }

    /// Faults that show after N content events. True: nothing follows.
    fn break_here(&mut self, inserts: &Inserts) -> bool {
        match self.fault.map(|(fault, _)| fault) {
            Some(Fault::CutAfter) => self.steps.push_back(Step::Cut),
            Some(Fault::StallAfter) => self.steps.push_back(Step::Hang),
            Some(Fault::EndAfter) => {}
            Some(Fault::ErrorInStream | Fault::ErrorInStreamAlternative | Fault::StatusFailed) => {
                self.steps.push_back(Step::send(inserts.error.clone()));
            }
            Some(Fault::MalformedChunk) => {
                self.steps.push_back(Step::send(inserts.malformed.clone()));
                // Once: the rest of the stream is healthy.
                self.fault = None;
                return false;
            }
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        [
            (FrameKind::Preamble, "role"),
            (FrameKind::Content, "a"),
            (FrameKind::Content, "b"),
            (FrameKind::Finish, "stop"),
            (FrameKind::Terminator, "done"),
        ]
        .map(|(kind, text)| Frame::new(kind, u32::from(kind == FrameKind::Content), text))
        .into()
    }

    fn inserts() -> Inserts {
        let word = Bytes::from_static;
        Inserts {
            ping: word(b"ping"),
            error: word(b"error"),
            malformed: word(b"bad"),
            endless: word(b"endless"),
        }
    }

    /// The script in short: what is sent, and how it goes on.
    fn script(fault: &str) -> String {
        let spec: Option<FaultSpec> = (!fault.is_empty()).then(|| fault.parse().expect("a fault"));
        let pace = Pace { hidden_s: 0.0, token_s: 0.0 };
        let steps = stream_steps(frames(), pace, spec.as_ref(), &inserts(), &Clock::start(1.0));
        let words = steps.iter().map(|step| match step {
            Step::Send { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
            Step::Wait(span) => format!("wait {}", span.as_secs_f64()),
            Step::Cut => "CUT".into(),
            Step::Hang => "HANG".into(),
            Step::Repeat { .. } => "REPEAT".into(),
            Step::Flood(_) => "FLOOD".into(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[tokio::test]
    async fn faults_edit_the_healthy_script() {
        for (fault, expected) in [
            ("", "role a b stop done"),
            ("cut-after:1", "role a CUT"),
            ("cut-after:0", "role CUT"),
            ("cut-after:9", "role a b CUT"),
            ("end-after:2", "role a b"),
            ("stall-after:1", "role a HANG"),
            ("malformed-chunk:1", "role a bad b stop done"),
            ("error-in-stream:1", "role a error"),
            ("status-failed", "role error"),
            ("missing-done", "role a b stop"),
            ("slow-first-token:2", "role wait 2 a b stop done"),
            ("pings-only", "role REPEAT"),
            ("endless-event", "role endless FLOOD"),
        ] {
            assert_eq!(script(fault), expected, "{fault}");
        }
    }

    #[tokio::test]
    async fn a_trickle_sends_every_byte_in_small_pieces() {
        let spec: FaultSpec = "trickle:0.5".parse().expect("a fault");
        let (steps, length) = whole_steps(Bytes::from_static(b"0123456789"), Some(&spec), &Clock::start(1.0));
        let bytes: Vec<usize> = steps
            .iter()
            .filter_map(|step| if let Step::Send { bytes, .. } = step { Some(bytes.len()) } else { None })
            .collect();
        assert_eq!((bytes, length), (vec![7, 3], Some(10)));
    }

    #[tokio::test]
    async fn half_of_a_whole_answer_is_sent_before_it_is_cut() {
        let spec: FaultSpec = "cut-after".parse().expect("a fault");
        let (steps, length) = whole_steps(Bytes::from_static(b"12345678"), Some(&spec), &Clock::start(1.0));
        assert_eq!(steps, [Step::send("1234"), Step::Cut]);
        assert_eq!(length, Some(8), "the length announced is the whole one");
    }
}
