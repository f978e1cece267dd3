//! Conditions of a policy's statement.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{items, matches};

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
    /// A value that nobody knows here.
    Something,
    Nothing,
    /// Nobody knows whether it has something.
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
    let wanted: Vec<String> = items(values).filter_map(text).collect();
    let said = format!("{operator} {key} {}", quoted(&wanted, " or "));
    let operator = Operator::new(operator);
    let have = have(&key.to_lowercase(), keys);
    let has = match &have {
        Have::Values(values) => quoted(values, " and "),
        Have::Something => "one".to_owned(),
        Have::Nothing | Have::Unknown => "none".to_owned(),
    };
    match operator.holds(&wanted, have) {
        Some(true) => Outcome::Met,
        Some(false) if operator.name == "null" => Outcome::Unmet(said),
        Some(false) => Outcome::Unmet(format!("{said}; the request has {has}")),
        None => Outcome::Unsure(said),
    }
}

/// A condition's value as text. IAM takes numbers and truth values without quotes too.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

impl Operator {
    /// Whether what the request has compares as the operator wants: with one of the wanted values,
    /// or, for a negation, with none of them. Nothing where nobody can say.
    fn holds(&self, wanted: &[String], have: Have<'_>) -> Option<bool> {
        if let Have::Unknown = have {
            let there = self.holds(wanted, Have::Something);
            return there.filter(|_| there == self.holds(wanted, Have::Nothing));
        }
        if self.name == "null" {
            let is_there = !matches!(have, Have::Nothing);
            let is_wanted = |it: &String| Some(it.to_lowercase().parse::<bool>().ok()? != is_there);
            return any(wanted.iter().map(is_wanted));
        }
        let (is_negated, equal) = comparison(&self.name)?;
        let judge = |value: Option<&str>| {
            let is_equal = any(wanted.iter().map(|it| compare(equal, it, value)));
            is_equal.map(|it| it != is_negated)
        };
        match (have, self.set) {
            (Have::Nothing, _) if self.if_exists => Some(true),
            (Have::Nothing, Some(Set::Any)) => Some(false),
            (Have::Nothing, Some(Set::All)) => Some(true),
            (Have::Nothing, None) => Some(is_negated),
            (Have::Values(all), Some(Set::Any)) => any(all.into_iter().map(|it| judge(Some(it)))),
            (Have::Values(all), Some(Set::All)) => every(all.into_iter().map(|it| judge(Some(it)))),
            (Have::Values(all), None) => match all.as_slice() {
                [value] => judge(Some(value)),
                // IAM does not say how it compares several values without a word on how.
                _ => None,
            },
            (Have::Something | Have::Unknown, _) => judge(None),
        }
    }
}

/// Whether one of them is true. It is enough to know one that is.
fn any(all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut outcome = Some(false);
    for it in all {
        match it {
            Some(true) => return Some(true),
            Some(false) => {}
            None => outcome = None,
        }
    }
    outcome
}

/// Whether all of them are true. It is enough to know one that is not.
fn every(all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    any(all.map(|it| it.map(|it| !it))).map(|it| !it)
}

/// How what is wanted is compared with what there is.
#[derive(Clone, Copy)]
enum Equal {
    Exactly,
    IgnoringCase,
    /// As a pattern.
    Like,
    /// As a pattern of an ARN.
    Arn,
    /// As a number, a date or an address, which is not done here.
    Otherwise,
}

/// Whether an operator is a negation, and what it compares.
fn comparison(operator: &str) -> Option<(bool, Equal)> {
    Some(match operator {
        "stringequals" => (false, Equal::Exactly),
        "stringnotequals" => (true, Equal::Exactly),
        "stringequalsignorecase" => (false, Equal::IgnoringCase),
        "stringnotequalsignorecase" => (true, Equal::IgnoringCase),
        "stringlike" => (false, Equal::Like),
        "stringnotlike" => (true, Equal::Like),
        "arnlike" | "arnequals" => (false, Equal::Arn),
        "arnnotlike" | "arnnotequals" => (true, Equal::Arn),
        "numericequals"
        | "numericlessthan"
        | "numericlessthanequals"
        | "numericgreaterthan"
        | "numericgreaterthanequals"
        | "dateequals"
        | "datelessthan"
        | "datelessthanequals"
        | "dategreaterthan"
        | "dategreaterthanequals"
        | "bool"
        | "binaryequals"
        | "ipaddress" => (false, Equal::Otherwise),
        "numericnotequals" | "datenotequals" | "notipaddress" => (true, Equal::Otherwise),
        _ => return None,
    })
}

/// Compares one wanted value with one that the request has, if that is known. Nothing where nobody
/// can say.
fn compare(equal: Equal, wanted: &str, value: Option<&str>) -> Option<bool> {
    // A variable of the policy, which stands for anything.
    if wanted.contains("${") {
        return None;
    }
    let fits_all = !wanted.is_empty() && wanted.chars().all(|c| c == '*');
    match (equal, value) {
        (Equal::Otherwise, _) => None,
        // IAM does not say what an ARN of fewer parts would match.
        (Equal::Arn, _) if parts(wanted).count() < ARN_PARTS => None,
        (Equal::Arn, Some(value)) => Some(matches_arn(wanted, value)),
        (Equal::Exactly, Some(value)) => Some(wanted == value),
        (Equal::IgnoringCase, Some(value)) => Some(wanted.to_lowercase() == value.to_lowercase()),
        (Equal::Like, Some(value)) => Some(matches(wanted, value)),
        (Equal::Like, None) if fits_all => Some(true),
        (_, None) => None,
    }
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
    if keys.unknown.iter().any(|it| it == key) {
        return Have::Something;
    }
    match key.starts_with(TAG) || key == "sts:externalid" {
        true => Have::Nothing,
        false => Have::Unknown,
    }
}

fn quoted(values: &[impl AsRef<str>], between: &str) -> String {
    let quoted = values.iter().map(|value| format!("\"{}\"", value.as_ref()));
    quoted.collect::<Vec<_>>().join(between)
}
