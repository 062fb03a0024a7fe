//! A trace: when requests came and how large they and their answers were. Read from `csv` or `csv.gz`; one slice is
//! built into the program (see `traces/README.md` for its source and licence).

use std::io::Read;

use anyhow::{Context, bail, ensure};
use flate2::read::GzDecoder;

/// The slice that `omega demo` replays. Azure LLM inference trace 2023, Microsoft, CC-BY-4.0; `traces/README.md` says
/// how it was cut.
const BUILT_IN: &[u8] = include_bytes!("../../../../traces/azure2023_demo.csv.gz");

/// Unpacked bytes at most: a small file must not unpack into all memory. A million rows are about 30 MB.
const SIZE_LIMIT: u64 = 256 * 1024 * 1024;

/// Tokens of one request or answer at most; larger numbers are mistakes and would only fill memory.
const TOKENS_LIMIT: u64 = 1_000_000;

/// The requests of a trace, in order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    name: String,
    arrivals: Vec<Arrival>,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Seconds since the first request.
    pub at_s: f64,
    /// Tokens of the request.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
}

impl Trace {
    /// The slice that comes with the program.
    pub fn built_in() -> Self {
        Self::read("azure2023_demo", BUILT_IN).expect("the built-in trace parses: a test reads it")
    }

    /// Reads a trace: a header line that names the columns `arrival_s`, `input_tokens` and `output_tokens` among any
    /// others, then one request a line, in any order. Compressed (gzip) or not.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub fn read(name: &str, bytes: &[u8]) -> anyhow::Result<Self> {
        let mut text = String::new();
        let unpacked = if bytes.starts_with(&[0x1f, 0x8b]) {
            GzDecoder::new(bytes).take(SIZE_LIMIT + 1).read_to_string(&mut text)
        } else {
            bytes.take(SIZE_LIMIT + 1).read_to_string(&mut text)
        };
        unpacked.with_context(|| format!("{name}: it is neither a CSV text nor one compressed by gzip"))?;
        ensure!(text.len() as u64 <= SIZE_LIMIT, "{name}: it has more than {} MiB", SIZE_LIMIT / 1024 / 1024);
        let mut lines = text.lines().enumerate();
        let (_, header) = lines.next().with_context(|| format!("{name}: it is empty"))?;
        let columns = Columns::of(header).with_context(|| format!("{name}:1"))?;
        let mut arrivals = Vec::new();
        for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            arrivals.push(columns.arrival(line).with_context(|| format!("{name}:{}", index + 1))?);
        }
        Self::new(name, arrivals)
    }

    /// A trace of these requests; the first one comes at second 0.
    ///
    /// # Errors
    /// Fewer than two requests, or all at one moment: there is nothing to replay.
    pub fn new(name: impl Into<String>, mut arrivals: Vec<Arrival>) -> anyhow::Result<Self> {
        let name = name.into();
        arrivals.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        let Some(first) = arrivals.first().map(|arrival| arrival.at_s) else {
            bail!("{name}: it has no requests")
        };
        for arrival in &mut arrivals {
            arrival.at_s -= first;
        }
        let trace = Self { name, arrivals };
        ensure!(trace.span_s() >= 1.0, "{}: it must span at least a second", trace.name);
        Ok(trace)
    }

    /// Every request that came in the first `seconds`.
    ///
    /// # Errors
    /// Nothing is left to replay.
    pub fn first_seconds(&self, seconds: f64) -> anyhow::Result<Self> {
        let arrivals = self.arrivals.iter().copied().take_while(|arrival| arrival.at_s < seconds).collect();
        Self::new(self.name.clone(), arrivals)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its requests, in order of arrival.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// Seconds from the first to the last request.
    pub fn span_s(&self) -> f64 {
        self.arrivals.last().map_or(0.0, |last| last.at_s)
    }
}

/// Where in a line the columns stand.
struct Columns {
    arrival: usize,
    input: usize,
    output: usize,
}

impl Columns {
    fn of(header: &str) -> anyhow::Result<Self> {
        let names: Vec<&str> = header.trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
        let find = |name: &str| {
            names
                .iter()
                .position(|found| *found == name)
                .with_context(|| format!("there is no column `{name}`"))
        };
        Ok(Self { arrival: find("arrival_s")?, input: find("input_tokens")?, output: find("output_tokens")? })
    }

    fn arrival(&self, line: &str) -> anyhow::Result<Arrival> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let field = |index: usize, name: &str| {
            fields.get(index).copied().with_context(|| format!("`{name}` is missing"))
        };
        let tokens = |index: usize, name: &str| {
            let text = field(index, name)?;
            match text.parse::<u64>() {
                Ok(tokens) if tokens <= TOKENS_LIMIT => Ok(tokens),
                _ => bail!(
                    "`{name}` must be a whole number up to {TOKENS_LIMIT}, found `{}`",
                    text.escape_debug()
                ),
            }
        };
        let text = field(self.arrival, "arrival_s")?;
        match text.parse::<f64>() {
            Ok(at_s) if at_s.is_finite() => Ok(Arrival {
                at_s,
                input_tokens: tokens(self.input, "input_tokens")?,
                output_tokens: tokens(self.output, "output_tokens")?,
            }),
            _ => bail!("`arrival_s` must be a number of seconds, found `{}`", text.escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_slice_is_what_its_page_says() {
        let trace = Trace::built_in();
        assert_eq!(trace.arrivals().len(), 2_439);
        assert!((295.0..=300.0).contains(&trace.span_s()), "{}", trace.span_s());
        assert!(trace.arrivals().windows(2).all(|pair| pair[0].at_s <= pair[1].at_s));
        let page = include_str!("../../../../traces/README.md");
        assert!(page.contains("2,439 requests in 300 seconds") && page.contains("CC-BY-4.0"));
    }

    #[test]
    fn columns_may_stand_in_any_order_and_rows_too() {
        let text = b"tenant,output_tokens,arrival_s,input_tokens\n1,20,7.5,300\n0,10,5,100\n\n";
        let trace = Trace::read("t", text).expect("a trace");
        assert_eq!(
            trace.arrivals(),
            [
                Arrival { at_s: 0.0, input_tokens: 100, output_tokens: 10 },
                Arrival { at_s: 2.5, input_tokens: 300, output_tokens: 20 },
            ]
        );
    }

    #[test]
    fn mistakes_name_the_line() {
        let error =
            |text: &str| format!("{:#}", Trace::read("t.csv", text.as_bytes()).expect_err("must not parse"));
        let header = "arrival_s,input_tokens,output_tokens\n";
        assert_eq!(error(""), "t.csv: it is empty");
        assert_eq!(error("arrival_s,tokens\n"), "t.csv:1: there is no column `input_tokens`");
        assert_eq!(error(header), "t.csv: it has no requests");
        assert_eq!(error(&format!("{header}0,1,1\n2,1\n")), "t.csv:3: `output_tokens` is missing");
        assert_eq!(
            error(&format!("{header}nan,1,1\n")),
            "t.csv:2: `arrival_s` must be a number of seconds, found `nan`"
        );
        assert!(
            error(&format!("{header}0,-1,1\n")).contains("t.csv:2: `input_tokens` must be a whole number")
        );
        assert_eq!(error(&format!("{header}5,1,1\n5,1,1\n")), "t.csv: it must span at least a second");
    }
}
