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

/// The parts of an ARN, with `arn` itself.
const ARN_PARTS: usize = 6;

/// What a request has under a key.
enum Have<'a> {
    /// One value, or several under a key that takes a list.
    Values(Vec<&'a str>),
    Nothing,
    Unknown,
}

/// How an operator treats a list of values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    Any,
    All,
}

/// An operator in its parts: `ForAnyValue:StringEqualsIfExists`.
struct Operator {
    /// What it compares, in lower case.
    name: String,
    set: Option<Set>,
    if_exists: bool,
}

impl Operator {
    fn new(text: &str) -> Self {
        let text = text.to_lowercase();
        let (set, name) = match text.split_once(':') {
            Some(("foranyvalue", name)) => (Some(Set::Any), name),
            Some(("forallvalues", name)) => (Some(Set::All), name),
            _ => (None, text.as_str()),
        };
        let without = name.strip_suffix("ifexists");
        Self {
            name: without.unwrap_or(name).to_owned(),
            set,
            if_exists: without.is_some(),
        }
    }
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
    let wanted: Vec<&str> = texts(values).collect();
    let said = format!("{operator} {key} {}", quoted(&wanted, " or "));
    if wanted.iter().any(|value| value.contains("${")) {
        return Outcome::Unsure(said);
    }
    let operator = Operator::new(operator);
    let key = key.to_lowercase();
    let have = have(&key, keys);
    if operator.name == "null" {
        let is_there = match have {
            Have::Values(_) => true,
            Have::Nothing => false,
            Have::Unknown if keys.unknown.contains(&key) => true,
            Have::Unknown => return Outcome::Unsure(said),
        };
        let is_true = |it: &&str| it.eq_ignore_ascii_case("true");
        let wants_nothing = wanted.iter().any(is_true) || values.as_bool() == Some(true);
        return match is_there != wants_nothing {
            true => Outcome::Met,
            false => Outcome::Unmet(said),
        };
    }
    compare(&operator, &wanted, have, said)
}

/// Whether what the request has compares as the operator wants. `said` is the whole condition.
fn compare(operator: &Operator, wanted: &[&str], have: Have<'_>, said: String) -> Outcome {
    let Some((is_negated, equal)) = comparison(&operator.name) else {
        return Outcome::Unsure(said);
    };
    // IAM does not say what an ARN of fewer parts would match.
    if operator.name.starts_with("arn") && wanted.iter().any(|it| parts(it).count() < ARN_PARTS) {
        return Outcome::Unsure(said);
    }
    let is_wanted = |value: &&str| wanted.iter().any(|it| equal(it, value)) != is_negated;
    let (is_met, has) = match have {
        Have::Unknown => return Outcome::Unsure(said),
        Have::Nothing => {
            let is_met = match operator.set {
                Some(Set::Any) => false,
                Some(Set::All) => true,
                None => is_negated,
            };
            (is_met || operator.if_exists, "none".to_owned())
        }
        Have::Values(values) => {
            let is_met = match (operator.set, values.as_slice()) {
                (Some(Set::Any), values) => values.iter().any(is_wanted),
                (Some(Set::All), values) => values.iter().all(is_wanted),
                (None, [value]) => is_wanted(value),
                // IAM does not say how it compares several values without a word on how.
                (None, _) => return Outcome::Unsure(said),
            };
            (is_met, quoted(&values, " and "))
        }
    };
    match is_met {
        true => Outcome::Met,
        false => Outcome::Unmet(format!("{said}; the request has {has}")),
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
        "stringlike" => (false, matches),
        "stringnotlike" => (true, matches),
        "arnlike" | "arnequals" => (false, matches_arn),
        "arnnotlike" | "arnnotequals" => (true, matches_arn),
        _ => return None,
    })
}

/// Whether an ARN fits a pattern. Each of its parts is held to the pattern's own, so a star reaches
/// no further than the next colon, but for those in the last part.
fn matches_arn(pattern: &str, arn: &str) -> bool {
    let both = parts(pattern).zip(parts(arn));
    parts(pattern).count() == parts(arn).count() && both.into_iter().all(|(a, b)| matches(a, b))
}

/// The parts of an ARN: partition, service, region, account and resource behind `arn`.
fn parts(arn: &str) -> impl Iterator<Item = &str> {
    arn.splitn(ARN_PARTS, ':')
}

fn have<'a>(key: &str, keys: &'a Keys) -> Have<'a> {
    const TAG: &str = "aws:requesttag/";
    if key == "aws:tagkeys" {
        let all = keys.known.keys().chain(&keys.unknown);
        let tags: Vec<_> = all.filter_map(|key| key.strip_prefix(TAG)).collect();
        return match tags.is_empty() {
            true => Have::Nothing,
            false => Have::Values(tags),
        };
    }
    if let Some(value) = keys.known.get(key) {
        return Have::Values(vec![value]);
    }
    let is_external = key == "sts:externalid";
    match (key.starts_with(TAG) || is_external) && !keys.unknown.iter().any(|it| it == key) {
        true => Have::Nothing,
        false => Have::Unknown,
    }
}

fn quoted(values: &[&str], between: &str) -> String {
    let quoted = values.iter().map(|value| format!("\"{value}\""));
    quoted.collect::<Vec<_>>().join(between)
}
