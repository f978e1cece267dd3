//! Conditions of a policy's statement.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{matches, texts};

/// What is known of a request. The names of keys are in lower case. A session tag that is not among
/// them is none of the request's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// Keys with their values.
    pub(crate) known: BTreeMap<String, String>,
    /// Keys that the request has, with values that nobody knows here.
    pub(crate) unknown: Vec<String>,
}

/// Whether a condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Met,
    /// It does not, and what it wants.
    Unmet(String),
    /// Nobody can say here, and what it depends on.
    Unsure(String),
}

/// What a request has under a key.
enum Have<'a> {
    Value(&'a str),
    Nothing,
    Unknown,
}

/// All of a statement's conditions: each must hold.
pub(super) fn judge(conditions: &Value, keys: &Keys) -> Outcome {
    let mut outcome = Outcome::Met;
    for (operator, wanted) in conditions.as_object().into_iter().flatten() {
        for (key, values) in wanted.as_object().into_iter().flatten() {
            match judge_one(operator, key, values, keys) {
                unmet @ Outcome::Unmet(_) => return unmet,
                unsure @ Outcome::Unsure(_) => outcome = unsure,
                Outcome::Met => {}
            }
        }
    }
    outcome
}

fn judge_one(operator: &str, key: &str, values: &Value, keys: &Keys) -> Outcome {
    let operator_in_full = operator;
    let operator = operator.to_lowercase();
    let (any, operator) = match operator.strip_prefix("foranyvalue:") {
        Some(rest) => (true, rest.to_owned()),
        None => (false, operator),
    };
    let (all, operator) = match operator.strip_prefix("forallvalues:") {
        Some(rest) => (true, rest.to_owned()),
        None => (false, operator),
    };
    let (if_exists, operator) = match operator.strip_suffix("ifexists") {
        Some(rest) => (true, rest.to_owned()),
        None => (false, operator),
    };
    let wanted: Vec<&str> = texts(values).collect();
    let said = format!("{operator_in_full} {key} {}", quoted(&wanted));
    if wanted.iter().any(|value| value.contains("${")) {
        return Outcome::Unsure(said);
    }
    let key = key.to_lowercase();
    if key == "aws:tagkeys" {
        return tag_keys(&said, &wanted, any, keys);
    }
    let have = have(&key, keys);
    if operator == "null" {
        let wants_nothing = texts(values).any(|it| it == "true") || values.as_bool() == Some(true);
        return match have {
            Have::Unknown if !keys.unknown.contains(&key) => Outcome::Unsure(said),
            Have::Nothing if wants_nothing => Outcome::Met,
            Have::Value(_) | Have::Unknown if !wants_nothing => Outcome::Met,
            _ => Outcome::Unmet(said),
        };
    }
    let Some((is_negated, equal)) = comparison(&operator) else {
        return Outcome::Unsure(said);
    };
    match have {
        Have::Unknown => Outcome::Unsure(said),
        Have::Nothing if is_negated || if_exists || all => Outcome::Met,
        Have::Nothing => Outcome::Unmet(format!("{said}; the request has none")),
        Have::Value(value) => {
            let is_equal = wanted.iter().any(|wanted| equal(wanted, value));
            match is_equal != is_negated {
                true => Outcome::Met,
                false => Outcome::Unmet(format!("{said}; the request has \"{value}\"")),
            }
        }
    }
}

/// A comparison of what is wanted with what there is.
type Equal = fn(&str, &str) -> bool;

/// Whether an operator is a negation, and what it compares.
fn comparison(operator: &str) -> Option<(bool, Equal)> {
    let exact: Equal = |wanted, value| wanted == value;
    let ignoring_case: Equal = |wanted, value| wanted.to_lowercase() == value.to_lowercase();
    Some(match operator {
        "stringequals" => (false, exact),
        "stringnotequals" => (true, exact),
        "stringequalsignorecase" => (false, ignoring_case),
        "stringnotequalsignorecase" => (true, ignoring_case),
        "stringlike" | "arnlike" | "arnequals" => (false, matches),
        "stringnotlike" | "arnnotlike" | "arnnotequals" => (true, matches),
        _ => return None,
    })
}

fn have<'a>(key: &str, keys: &'a Keys) -> Have<'a> {
    if let Some(value) = keys.known.get(key) {
        return Have::Value(value);
    }
    let is_tag = key.starts_with("aws:requesttag/");
    let is_external = key == "sts:externalid";
    match (is_tag || is_external) && !keys.unknown.iter().any(|it| it == key) {
        true => Have::Nothing,
        false => Have::Unknown,
    }
}

/// The names of the session tags, of which there may be several.
fn tag_keys(said: &str, wanted: &[&str], any: bool, keys: &Keys) -> Outcome {
    let all = keys.known.keys().chain(&keys.unknown);
    let mut tags = all.filter_map(|key| key.strip_prefix("aws:requesttag/"));
    let is_wanted = |tag: &str| wanted.iter().any(|it| matches(&it.to_lowercase(), tag));
    let is_met = match any {
        true => tags.any(is_wanted),
        false => tags.all(is_wanted),
    };
    match is_met {
        true => Outcome::Met,
        false => Outcome::Unmet(said.to_owned()),
    }
}

fn quoted(values: &[&str]) -> String {
    let quoted = values.iter().map(|value| format!("\"{value}\""));
    quoted.collect::<Vec<_>>().join(" or ")
}
