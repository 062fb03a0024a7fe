//! What is replayed: when requests arrived and how many tokens went in and came out.
//!
//! One row per request, as CSV with a header line or as JSON lines, plain or gzipped; which of them it is shows in
//! the first bytes, not in the file's name. Counts only: no text of any request is ever read here.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::fault::Window;

/// A longer line is a mistake (or another kind of file), not a row.
const LINE_MAX: u64 = 64 * 1024;

/// Requests are numbered in 32 bits; this many already need several gigabytes.
const ROWS_MAX: usize = 100_000_000;

/// No request has more tokens than this; a larger number is a mistake in a column.
const TOKENS_MAX: f64 = 1e9;

/// A trace longer than this (three years) has its times in another unit.
const ARRIVAL_MAX: f64 = 1e8;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Nanoseconds since the start of the trace.
    pub arrival: u64,
    /// Tokens in.
    pub input_tokens: u32,
    /// Tokens out, if nothing cuts the answer short.
    pub output_tokens: u32,
    /// Index into [`Trace::models`].
    pub model: u32,
    /// Index into [`Trace::tenants`].
    pub tenant: u32,
}

/// Requests in order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    requests: Vec<Request>,
    models: Names,
    tenants: Names,
    has_tenants: bool,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1, after decompression.
        line: usize,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// There is no request in it.
    #[error("the trace has no requests: expected a header line and at least one row")]
    Empty,
}

impl Trace {
    /// Reads a file: CSV or JSON lines, plain or gzipped.
    ///
    /// # Errors
    /// The file cannot be read, or a line is wrong; the error names the line.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(|source| TraceError::Io { path: path.to_path_buf(), source })?;
        Self::parse(BufReader::with_capacity(1 << 16, file)).map_err(|error| match error {
            TraceError::Io { source, .. } => TraceError::Io { path: path.to_path_buf(), source },
            other => other,
        })
    }

    /// Reads from any source.
    ///
    /// # Errors
    /// As [`Trace::read`].
    pub fn parse(mut source: impl BufRead) -> Result<Self, TraceError> {
        let is_gzip = source.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
        if is_gzip {
            Rows::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(source))).read()
        } else {
            Rows::new(source).read()
        }
    }

    /// A trace made by a program. Sorted by arrival; all requests name the one model and the one tenant `0` unless
    /// their indices say otherwise.
    pub fn from_requests(mut requests: Vec<Request>) -> Self {
        requests.sort_by_key(|request| request.arrival);
        let count = |index: fn(&Request) -> u32| requests.iter().map(index).max().map_or(0, |most| most + 1);
        let (models, tenants) = (count(|request| request.model), count(|request| request.tenant));
        Self {
            models: Names::numbered(models),
            tenants: Names::numbered(tenants),
            has_tenants: tenants > 1,
            requests,
        }
    }

    /// The requests that arrive in `window`, with their arrivals counted from its start. Models and tenants keep their
    /// numbers and names, also those that no longer occur.
    pub fn slice(&self, window: Window) -> Self {
        let inside = self.requests.iter().filter(|request| window.contains(request.arrival));
        Self {
            requests: inside
                .map(|request| Request { arrival: request.arrival - window.start, ..*request })
                .collect(),
            models: self.models.clone(),
            tenants: self.tenants.clone(),
            has_tenants: self.has_tenants,
        }
    }

    /// The trace so many times, one after the other: each begins as long after the last request before it as requests are
    /// apart on average. Not more than fit the numbers of requests, of which there are four billion.
    pub fn repeated(mut self, times: u32) -> Self {
        let count = self.requests.len();
        let last = self.requests.last().map_or(0, |last| last.arrival);
        let period = last + last / (count as u64).saturating_sub(1).max(1);
        let times = times.min(u32::MAX / u32::try_from(count).unwrap_or(u32::MAX).max(1));
        let rounds = (0..u64::from(times.max(1))).flat_map(|round| {
            let later = move |arrival: u64| arrival.saturating_add(period.saturating_mul(round));
            self.requests.iter().map(move |request| Request { arrival: later(request.arrival), ..*request })
        });
        self.requests = rounds.collect();
        self
    }

    /// The requests, in order of arrival.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The models' names.
    pub fn models(&self) -> &[String] {
        &self.models.list
    }

    /// The tenants' names, by first appearance.
    pub fn tenants(&self) -> &[String] {
        &self.tenants.list
    }

    /// Does the trace tell tenants apart?
    pub fn has_tenants(&self) -> bool {
        self.has_tenants
    }

    /// From the start to the last arrival, in nanoseconds; at least one second.
    pub fn span(&self) -> u64 {
        self.requests.last().map_or(0, |last| last.arrival).max(1_000_000_000)
    }

    /// The `max_tokens` its callers are taken to send: the power of two at or above the 99.9th percentile of the
    /// output, at least 256.
    pub fn max_tokens(&self) -> u32 {
        let mut outputs: Vec<u32> = self.requests.iter().map(|request| request.output_tokens).collect();
        if outputs.is_empty() {
            return 256;
        }
        let rank = (outputs.len() * 999).div_ceil(1_000).clamp(1, outputs.len()) - 1;
        let (_, value, _) = outputs.select_nth_unstable(rank);
        (*value).max(256).checked_next_power_of_two().unwrap_or(u32::MAX)
    }
}

/// Words, numbered in the order they appear.
#[derive(Clone, Debug, Default)]
struct Names {
    list: Vec<String>,
    index: HashMap<String, u32>,
}

impl Names {
    fn numbered(count: u32) -> Self {
        let mut names = Self::default();
        (0..count).for_each(|number| {
            names.number(&number.to_string());
        });
        names
    }

    fn number(&mut self, name: &str) -> u32 {
        // Nearly every row names the same one as the row before it.
        if let Some(number) = self.index.get(name) {
            return *number;
        }
        let number = self.list.len() as u32;
        self.list.push(name.to_owned());
        self.index.insert(name.to_owned(), number);
        number
    }
}

/// Where each column stands.
struct Columns {
    arrival: usize,
    input: usize,
    output: usize,
    model: Option<usize>,
    tenant: Option<usize>,
}

struct Rows<R> {
    source: R,
    line: usize,
    trace: Trace,
}

impl<R: BufRead> Rows<R> {
    fn new(source: R) -> Self {
        Self { source, line: 0, trace: Trace::default() }
    }

    fn read(mut self) -> Result<Trace, TraceError> {
        let mut text = String::new();
        let mut columns: Option<Columns> = None;
        while self.next_line(&mut text)? {
            let row = text.trim();
            if row.is_empty() {
                continue;
            }
            if row.starts_with('{') {
                self.json_row(row)?;
                continue;
            }
            match &columns {
                None if !self.trace.requests.is_empty() => {
                    return Err(self.wrong("expected a JSON object, as on the lines before"));
                }
                None => columns = Some(self.header(row)?),
                Some(columns) => {
                    let request = self.csv_row(row, columns)?;
                    self.push(request)?;
                }
            }
        }
        if self.trace.requests.is_empty() {
            return Err(TraceError::Empty);
        }
        // Merged or hand-made files may be out of order; equal times keep the file's order.
        self.trace.requests.sort_by_key(|request| request.arrival);
        self.trace.has_tenants = self.trace.tenants.list.len() > 1;
        Ok(self.trace)
    }

    fn next_line(&mut self, text: &mut String) -> Result<bool, TraceError> {
        text.clear();
        self.line += 1;
        let mut bytes = std::mem::take(text).into_bytes();
        let read = self.source.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes).map_err(io)?;
        if read as u64 == LINE_MAX && bytes.last() != Some(&b'\n') {
            return Err(self.wrong(&format!("longer than {LINE_MAX} bytes: this is not a trace")));
        }
        if self.line == 1 && bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
            bytes.drain(..3);
        }
        *text = String::from_utf8(bytes).map_err(|_| self.wrong("not UTF-8 text"))?;
        Ok(read > 0)
    }

    fn header(&self, row: &str) -> Result<Columns, TraceError> {
        let names: Vec<String> =
            fields(row).map(|name| name.trim().trim_matches('"').to_ascii_lowercase()).collect();
        let place = |name: &str| names.iter().position(|each| each == name);
        let needed = |name: &str| {
            place(name).ok_or_else(|| {
                self.wrong(&format!(
                    "the header has no column {name}; it has {}. Needed: arrival_s, input_tokens, output_tokens; \
                     optional: model, tenant",
                    names.join(", ")
                ))
            })
        };
        Ok(Columns {
            arrival: needed("arrival_s")?,
            input: needed("input_tokens")?,
            output: needed("output_tokens")?,
            model: place("model"),
            tenant: place("tenant"),
        })
    }

    fn csv_row(&mut self, row: &str, columns: &Columns) -> Result<Request, TraceError> {
        let (mut arrival, mut input, mut output) = (None, None, None);
        let (mut model, mut tenant) = ("", "");
        for (place, field) in fields(row).enumerate() {
            let field = field.trim();
            if place == columns.arrival {
                arrival = Some(field);
            } else if place == columns.input {
                input = Some(field);
            } else if place == columns.output {
                output = Some(field);
            } else if Some(place) == columns.model {
                model = field.trim_matches('"');
            } else if Some(place) == columns.tenant {
                tenant = field.trim_matches('"');
            }
        }
        let (arrival, input, output) = (
            self.text_number("arrival_s", arrival)?,
            self.text_number("input_tokens", input)?,
            self.text_number("output_tokens", output)?,
        );
        let (model, tenant) = (self.trace.models.number(model), self.trace.tenants.number(tenant));
        self.request(arrival, input, output, model, tenant)
    }

    fn json_row(&mut self, row: &str) -> Result<(), TraceError> {
        let value: serde_json::Value =
            serde_json::from_str(row).map_err(|error| self.wrong(&format!("not valid JSON: {error}")))?;
        let number = |name: &str| match value.get(name) {
            Some(field) => {
                field.as_f64().ok_or_else(|| self.wrong(&format!("{name} is not a number: {field}")))
            }
            None => Err(self.wrong(&format!("{name} is missing"))),
        };
        let (arrival, input, output) =
            (number("arrival_s")?, number("input_tokens")?, number("output_tokens")?);
        let word = |name: &str| match value.get(name) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let (model, tenant) = (word("model"), word("tenant"));
        let (model, tenant) = (self.trace.models.number(&model), self.trace.tenants.number(&tenant));
        let request = self.request(arrival, input, output, model, tenant)?;
        self.push(request)
    }

    fn push(&mut self, request: Request) -> Result<(), TraceError> {
        if self.trace.requests.len() >= ROWS_MAX {
            return Err(self.wrong(&format!("more than {ROWS_MAX} requests")));
        }
        self.trace.requests.push(request);
        Ok(())
    }

    fn text_number(&self, name: &str, text: Option<&str>) -> Result<f64, TraceError> {
        let text = text.ok_or_else(|| self.wrong(&format!("{name} is missing: the row is too short")))?;
        let text = text.trim_matches('"');
        text.parse().map_err(|_| self.wrong(&format!("{name} is not a number: {text:?}")))
    }

    fn request(
        &self,
        arrival: f64,
        input: f64,
        output: f64,
        model: u32,
        tenant: u32,
    ) -> Result<Request, TraceError> {
        if !(0.0..=ARRIVAL_MAX).contains(&arrival) {
            let expected = "seconds from the start of the trace, 0 or later";
            return Err(self.wrong(&format!("arrival_s is {arrival}; expected {expected}")));
        }
        let tokens = |name: &str, value: f64| {
            if (0.0..=TOKENS_MAX).contains(&value) && value.fract() == 0.0 {
                Ok(value as u32)
            } else {
                Err(self.wrong(&format!("{name} is {value}; expected a whole number from 0 to {TOKENS_MAX}")))
            }
        };
        Ok(Request {
            arrival: (arrival * 1e9).round() as u64,
            input_tokens: tokens("input_tokens", input)?,
            output_tokens: tokens("output_tokens", output)?,
            model,
            tenant,
        })
    }

    fn wrong(&self, problem: &str) -> TraceError {
        TraceError::Line { line: self.line, problem: problem.to_owned() }
    }
}

/// The fields of a CSV row. A quoted field may contain commas; its quotes are left to the reader.
fn fields(row: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    row.split(move |letter| {
        if letter == '"' {
            quoted = !quoted;
        }
        letter == ',' && !quoted
    })
}

fn io(source: std::io::Error) -> TraceError {
    TraceError::Io { path: PathBuf::from("the trace"), source }
}
