//! The environment layer: which variable is which setting.
//!
//! Names are generated from the table for the providers and models that exist, so an `OMEGA_` variable that no
//! setting answers to is a mistake, and the message can name the nearest one that does.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::environment::Environment;
use crate::error::Problem;
use crate::keys::{self, Key, Place};
use crate::layers::{Layers, Origin, Said, refusal};
use crate::nearest::nearest;
use crate::value::Value;

/// Names that begin like settings and are none: where the file is, what to log, and the key of `omega stats`.
const NOT_SETTINGS: [&str; 3] = ["OMEGA_CONFIG", "OMEGA_LOG", "OMEGA_GATEWAY_KEY"];

/// What a variable's name may mean: row, key, place, and how strong the name is (0 is the strongest).
type Meaning = (usize, &'static Key, Place, usize);

/// Reads every `OMEGA_*` variable into `layers`.
pub(crate) fn read(
    environment: &Environment,
    config: &Config,
    layers: &mut Layers,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) {
    let names = names(config);
    let exempt = key_variables(layers, environment);
    // (row, place) -> (strength, variable, value), so that the specification's names win over the generic ones.
    let mut chosen: BTreeMap<(usize, Place), (usize, String, Value)> = BTreeMap::new();
    for name in environment.names_with("OMEGA_") {
        if NOT_SETTINGS.contains(&name) || exempt.contains(name) {
            continue;
        }
        let (row, key, place, strength) = match names.get(name).map(Vec::as_slice) {
            Some([meaning]) => meaning,
            Some([first, second, ..]) => {
                let (one, other) = (first.1.path_at(&first.2), second.1.path_at(&second.2));
                problems.push(Problem::new(
                    name,
                    format!("this could be `{one}` or `{other}`; set it in the file"),
                ));
                continue;
            }
            Some([]) | None => {
                problems.push(Problem::new(name, unknown(name, &names)));
                continue;
            }
        };
        let text = match environment.get(name) {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            Err(_) => {
                problems.push(Problem::new(name, "the value is not valid UTF-8"));
                continue;
            }
        };
        match key.kind.parse(text, key.absent) {
            Ok(value) => {
                let slot = (*row, place.clone());
                match chosen.remove(&slot) {
                    Some(other) => {
                        let mine = (*strength, String::from(name), value);
                        let (winner, loser) = if mine.0 <= other.0 { (mine, other) } else { (other, mine) };
                        if !winner.2.same(&loser.2) {
                            warnings.push(format!(
                                "{} and {} both set `{}`; {} wins",
                                winner.1,
                                loser.1,
                                key.path_at(place),
                                winner.1
                            ));
                        }
                        chosen.insert(slot, winner);
                    }
                    None => {
                        chosen.insert(slot, (*strength, String::from(name), value));
                    }
                }
            }
            Err(wrong) => problems.push(Problem::new(name, refusal(key, &wrong))),
        }
    }
    for ((row, place), (_, name, value)) in chosen {
        layers.say(row, place, Said { value, origin: Origin::Environment(name), at: None });
    }
}

/// Every variable there is for this configuration's providers and models.
fn names(config: &Config) -> BTreeMap<String, Vec<Meaning>> {
    let mut names: BTreeMap<String, Vec<Meaning>> = BTreeMap::new();
    for (row, key) in keys::all().enumerate() {
        for place in key.places(config) {
            for (strength, name) in key.variables_at(&place).into_iter().enumerate() {
                names.entry(name).or_default().push((row, key, place.clone(), strength));
            }
        }
    }
    names
}

/// Variables that hold keys and were named as such: they may begin with `OMEGA_` too.
fn key_variables<'e>(layers: &'e Layers, environment: &'e Environment) -> BTreeSet<&'e str> {
    let named_in_file = layers
        .iter()
        .filter(|(key, ..)| key.path == "providers.<name>.api_key_env")
        .filter_map(|(_, _, said)| match &said.value {
            Value::Text(name) => Some(name.as_str()),
            _ => None,
        });
    let named_in_environment = environment
        .names_with("OMEGA_PROVIDERS_")
        .filter(|name| name.ends_with("_API_KEY_ENV"))
        .filter_map(|name| environment.get(name).ok().flatten());
    named_in_file.chain(named_in_environment).collect()
}

fn unknown(name: &str, names: &BTreeMap<String, Vec<Meaning>>) -> String {
    let renamed = name.replace("_XAI_", "_GROK_").replace("_GEMINI_", "_GOOGLE_");
    let meant = if names.contains_key(&renamed) {
        Some(renamed.as_str())
    } else {
        nearest(name, names.keys().map(String::as_str).chain(NOT_SETTINGS))
    };
    match meant {
        Some(meant) => format!("no setting has this name. Did you mean {meant}?"),
        None => String::from(
            "no setting has this name. `omega check --explain` lists every setting; new providers and models are declared in the file",
        ),
    }
}
