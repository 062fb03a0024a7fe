//! What goes wrong when: a list of rules over trace time, written in YAML or JSON. For each request the rules are
//! asked in order and the first that fires decides; when none does, the request is served well.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::EmulatorError;
use crate::fault::FaultSpec;
use crate::provider::{Endpoint, Provider};

/// A schedule of faults.
///
/// ```
/// let scenario = omega_emulator::Scenario::parse(
///     "rules:\n  - {provider: openai, from_s: 30, until_s: 60, fault: overloaded}\n",
/// )?;
/// assert_eq!(scenario.rules.len(), 1);
/// # Ok::<(), omega_emulator::EmulatorError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// How many tokens an answer has, where the request does not say. Default: as many as its echo needs.
    pub output_tokens: Option<u32>,
    /// The rules, asked in order.
    pub rules: Vec<Rule>,
}

/// When to fail, and how. All given conditions must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Only this provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Only models of this name; `*` stands for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Only this endpoint, for instance `chat_completions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Only streams (`true`) or only whole answers (`false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// From this trace second on. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_s: Option<f64>,
    /// Before this trace second. Default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_s: Option<f64>,
    /// Only the first N requests that meet the conditions above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// Only every Nth request that meets the conditions above: 2 is the second, the fourth and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Fires with this probability, drawn from the seed. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Trace seconds that pass before the fault shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_s: Option<f64>,
    /// Whether the tokens are charged although the answer fails. Requests always are. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub charge_tokens: bool,
    /// What happens.
    pub fault: FaultSpec,
}

impl Rule {
    /// A rule that always fires.
    pub fn new(fault: impl Into<FaultSpec>) -> Self {
        Self {
            provider: None,
            model: None,
            endpoint: None,
            stream: None,
            from_s: None,
            until_s: None,
            first: None,
            every: None,
            probability: None,
            after_s: None,
            charge_tokens: false,
            fault: fault.into(),
        }
    }
}

impl Scenario {
    /// Reads YAML (JSON is YAML too).
    ///
    /// # Errors
    /// [`EmulatorError::Parse`] with line and column, [`EmulatorError::Invalid`] naming the rule and the value.
    pub fn parse(text: &str) -> Result<Self, EmulatorError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let scenario: Self = serde_saphyr::from_str(text).map_err(|error| parse_error("scenario", &error))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Refuses values that can never mean anything.
    pub(crate) fn check(&self) -> Result<(), EmulatorError> {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|what| {
                EmulatorError::Invalid(format!("scenario: rule {} ({}): {what}", index + 1, rule.fault))
            })?;
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let spans = [("from_s", self.from_s), ("until_s", self.until_s), ("after_s", self.after_s)];
        for (name, value) in spans {
            if value.is_some_and(|seconds| !seconds.is_finite() || seconds < 0.0) {
                return Err(format!("{name} must be a number of seconds, 0 or more"));
            }
        }
        if self.until_s.is_some_and(|until| until <= self.from_s.unwrap_or(0.0)) {
            return Err("until_s must be later than from_s".into());
        }
        if self.fault.times.is_some() {
            return Err("times belongs to the header; a rule says `first: N`".into());
        }
        if self.every == Some(0) {
            return Err("every must be 1 or more".into());
        }
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err("probability must lie between 0 and 1".into());
        }
        Ok(())
    }

    fn concerns(&self, request: &Asked<'_>) -> bool {
        self.provider.is_none_or(|provider| provider == request.provider)
            && self.endpoint.is_none_or(|endpoint| endpoint == request.endpoint)
            && self.stream.is_none_or(|stream| stream == request.stream)
            && self.model.as_deref().is_none_or(|pattern| matches(pattern, request.model))
            && self.from_s.is_none_or(|from| request.at >= from)
            && self.until_s.is_none_or(|until| request.at < until)
    }
}

/// What the rules look at.
pub(crate) struct Asked<'a> {
    pub(crate) provider: Provider,
    pub(crate) endpoint: Endpoint,
    pub(crate) model: &'a str,
    pub(crate) stream: bool,
    /// Trace seconds since the start.
    pub(crate) at: f64,
}

/// A rule that fired.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fired {
    pub(crate) fault: FaultSpec,
    pub(crate) after_s: f64,
    pub(crate) charge_tokens: bool,
}

/// A scenario and how often each of its rules has been met.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) scenario: Scenario,
    met: Vec<u64>,
}

impl Script {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let met = vec![0; scenario.rules.len()];
        Self { scenario, met }
    }

    /// Asks the rules. `chance` is uniform in `[0, 1)` and is drawn anew for every rule that needs it.
    pub(crate) fn fire(&mut self, request: &Asked<'_>, mut chance: impl FnMut() -> f64) -> Option<Fired> {
        for (rule, met) in self.scenario.rules.iter().zip(&mut self.met) {
            if !rule.concerns(request) {
                continue;
            }
            *met += 1;
            let due = rule.first.is_none_or(|first| *met <= first)
                && rule.every.is_none_or(|every| met.is_multiple_of(every))
                && rule.probability.is_none_or(|probability| chance() < probability);
            if due {
                return Some(Fired {
                    fault: rule.fault.clone(),
                    after_s: rule.after_s.unwrap_or(0.0),
                    charge_tokens: rule.charge_tokens,
                });
            }
        }
        None
    }
}

/// Compares a name with a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            match rest.find(middle) {
                Some(at) => rest = &rest[at + middle.len()..],
                None => return false,
            }
        }
    }
    match last {
        Some(last) => rest.ends_with(last),
        None => rest.is_empty(),
    }
}

/// A YAML error as one text with line and column, and the place shown.
pub(crate) fn parse_error(what: &str, error: &dyn fmt::Display) -> EmulatorError {
    EmulatorError::Parse(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    fn asked(model: &str, at: f64) -> Asked<'_> {
        Asked { provider: Provider::OpenAi, endpoint: Endpoint::ChatCompletions, model, stream: false, at }
    }

    fn script(text: &str) -> Script {
        Script::new(Scenario::parse(text).expect("a scenario"))
    }

    #[test]
    fn a_rule_holds_from_its_first_second_until_before_its_last() {
        let mut script = script("rules: [{provider: openai, from_s: 30, until_s: 60, fault: overloaded}]");
        let fires: Vec<bool> =
            [29.9, 30.0, 59.9, 60.0].map(|at| script.fire(&asked("m", at), || 0.0).is_some()).into();
        assert_eq!(fires, [false, true, true, false]);
    }

    #[test]
    fn first_and_every_count_only_requests_the_rule_concerns() {
        let mut first = script("rules: [{model: 'gpt-*', first: 2, fault: hang}]");
        assert!(first.fire(&asked("claude", 0.0), || 0.0).is_none());
        let fires: Vec<bool> = (0..3).map(|_| first.fire(&asked("gpt-5", 0.0), || 0.0).is_some()).collect();
        assert_eq!(fires, [true, true, false]);

        let mut every = script("rules: [{every: 3, fault: hang}]");
        let fires: Vec<bool> = (0..6).map(|_| every.fire(&asked("m", 0.0), || 0.0).is_some()).collect();
        assert_eq!(fires, [false, false, true, false, false, true]);
    }

    #[test]
    fn a_probability_is_compared_with_the_chance_drawn() {
        let mut script = script("rules: [{probability: 0.25, fault: hang}]");
        assert!(script.fire(&asked("m", 0.0), || 0.24).is_some());
        assert!(script.fire(&asked("m", 0.0), || 0.25).is_none());
    }

    #[test]
    fn the_first_rule_that_fires_decides() {
        let mut script =
            script("rules:\n  - {first: 1, fault: server-error}\n  - {fault: 'rate-limited:7'}\n");
        let names: Vec<String> = (0..2)
            .filter_map(|_| script.fire(&asked("m", 0.0), || 0.0))
            .map(|fired| fired.fault.to_string())
            .collect();
        assert_eq!(names, ["server-error", "rate-limited:7"]);
    }

    #[test]
    fn json_is_read_as_well() {
        let scenario =
            Scenario::parse(r#"{"output_tokens": 50, "rules": [{"fault": "hang"}]}"#).expect("json");
        assert_eq!(scenario.output_tokens, Some(50));
        assert_eq!(scenario.rules[0].fault.fault, Fault::Hang);
    }

    #[test]
    fn mistakes_name_the_place() {
        let error = |text: &str| Scenario::parse(text).expect_err("must not parse").to_string();
        let unknown_key = error("rules:\n  - fault: hang\n    untill_s: 3\n");
        assert!(unknown_key.contains("untill_s") && unknown_key.contains("line 3"), "{unknown_key}");
        let unknown_fault = error("rules:\n  - fault: hangs\n");
        assert!(
            unknown_fault.contains("did you mean `hang`?") && unknown_fault.contains("line 2"),
            "{unknown_fault}"
        );
        assert_eq!(
            error("rules: [{fault: hang}, {fault: hang, from_s: 5, until_s: 5}]"),
            "scenario: rule 2 (hang): until_s must be later than from_s"
        );
        assert!(error("rules: [{fault: hang, probability: 2}]").contains("between 0 and 1"));
        assert!(error("rules: [{fault: hang, every: 0}]").contains("every must be 1 or more"));
        assert!(error("rules: [{fault: 'hang,times=2'}]").contains("a rule says `first: N`"));
    }

    #[test]
    fn a_star_in_a_model_name_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("gpt-5*", "gpt-5.2", true),
            ("*", "", true),
            ("*mini", "gpt-5-mini", true),
            ("gpt*mini", "gpt-5-mini-x", false),
            ("a*b*c", "a1b2c", true),
            ("gpt-5", "gpt-5.2", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
