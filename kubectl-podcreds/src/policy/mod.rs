//! Who may assume a role: its trust policy, judged for one request.
//!
//! [`judge`] looks at each statement for one action, as IAM does: a denial that applies wins, then
//! a permission that applies. Conditions on what is not known here make the verdict unsure, and
//! never a permission.

mod condition;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub(crate) use condition::Keys;
use condition::Outcome;

/// The service that assumes roles for pods.
pub(crate) const SERVICE: &str = "pods.eks.amazonaws.com";
pub(crate) const ASSUME: &str = "sts:AssumeRole";
pub(crate) const TAG: &str = "sts:TagSession";

/// Who wants to assume a role.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Principal<'a> {
    /// EKS Pod Identity.
    Pods,
    /// Another role, by ARN.
    Role(&'a str),
}

/// What IAM would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// It depends on this condition, which cannot be judged here.
    Unsure(String),
    /// A statement would allow it, but for this condition.
    Unmet(String),
    /// No statement names this principal and this action.
    NotAllowed,
    /// A statement forbids it.
    Denied,
}

impl Verdict {
    /// How far it is from a permission.
    pub(crate) const fn gravity(&self) -> u8 {
        match self {
            Self::Allowed => 0,
            Self::Unsure(_) => 1,
            Self::Unmet(_) => 2,
            Self::NotAllowed => 3,
            Self::Denied => 4,
        }
    }
}

/// Judges whether the policy lets `principal` do `action`.
pub(crate) fn judge(
    policy: &Value,
    principal: Principal<'_>,
    action: &str,
    keys: &Keys,
) -> Verdict {
    let mut verdict = Verdict::NotAllowed;
    // One that may apply. A later one may be sure, and without a permission it changes nothing.
    let mut denial = None;
    for statement in statements(policy) {
        if !names_principal(statement, principal) || !names_action(statement, action) {
            continue;
        }
        let is_denial = statement["Effect"] == "Deny";
        match (is_denial, condition::judge(&statement["Condition"], keys)) {
            (true, Outcome::Met) => return Verdict::Denied,
            (true, Outcome::Unmet(_)) => {}
            (true, Outcome::Unsure(why)) => denial = denial.or(Some(why)),
            (false, Outcome::Met) => verdict = Verdict::Allowed,
            (false, Outcome::Unsure(why)) if verdict != Verdict::Allowed => {
                verdict = Verdict::Unsure(why);
            }
            (false, Outcome::Unmet(why)) if verdict == Verdict::NotAllowed => {
                verdict = Verdict::Unmet(why);
            }
            (false, _) => {}
        }
    }
    match (denial, verdict) {
        (Some(why), Verdict::Allowed | Verdict::Unsure(_)) => Verdict::Unsure(why),
        (_, verdict) => verdict,
    }
}

/// The policy with a statement more, which lets EKS Pod Identity do `actions` under the conditions
/// under which it may do other things already.
pub(crate) fn extended(policy: &Value, actions: &[&str]) -> Value {
    let mut all: Vec<Value> = statements(policy).cloned().collect();
    let pods = |statement: &&Value| {
        statement["Effect"] == "Allow" && names_principal(statement, Principal::Pods)
    };
    let condition = all.iter().find(pods).map(|it| it["Condition"].clone());
    let mut statement = json!({
        "Effect": "Allow",
        "Principal": { "Service": SERVICE },
        "Action": actions,
    });
    if let Some(condition) = condition.filter(|it| !it.is_null()) {
        statement["Condition"] = condition;
    }
    all.push(statement);
    let mut extended = policy.as_object().cloned().unwrap_or_default();
    let version = extended.entry("Version");
    version.or_insert_with(|| json!("2012-10-17"));
    extended.insert("Statement".to_owned(), Value::Array(all));
    Value::Object(extended)
}

/// A policy may have one statement, or a list of them.
fn statements(policy: &Value) -> impl Iterator<Item = &Value> {
    items(&policy["Statement"])
}

/// One value, or each of a list.
fn items(value: &Value) -> impl Iterator<Item = &Value> {
    let list = value.as_array().map(Vec::as_slice);
    let one = std::slice::from_ref(value);
    let all = list.unwrap_or(one).iter();
    all.filter(|item| !item.is_null())
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).filter_map(Value::as_str)
}

fn names_principal(statement: &Value, principal: Principal<'_>) -> bool {
    let is_among = |principals: &Value| {
        if principals == "*" {
            return true;
        }
        // IAM denies services too by this. That it allows them anything is not documented.
        if statement["Effect"] == "Deny" && texts(&principals["AWS"]).any(|it| it == "*") {
            return true;
        }
        match principal {
            Principal::Pods => texts(&principals["Service"]).any(|it| it == SERVICE),
            Principal::Role(arn) => {
                let account = crate::snapshot::account_of(arn).unwrap_or_default();
                texts(&principals["AWS"]).any(|it| {
                    it == "*" || it == arn || it == account || {
                        let root = it.strip_suffix(":root");
                        root.and_then(|it| it.rsplit(':').next()) == Some(account)
                    }
                })
            }
        }
    };
    match statement.get("NotPrincipal") {
        Some(others) => !is_among(others),
        None => is_among(&statement["Principal"]),
    }
}

fn names_action(statement: &Value, action: &str) -> bool {
    let is_among = |actions: &Value| {
        texts(actions).any(|pattern| matches(&pattern.to_lowercase(), &action.to_lowercase()))
    };
    match statement.get("NotAction") {
        Some(others) => !is_among(others),
        None => is_among(&statement["Action"]),
    }
}

/// Whether a text fits a pattern with `*` for any characters and `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
    // Where the last star stands, and how much of the text it covers.
    let (mut p, mut t, mut star) = (0, 0, None::<(usize, usize)>);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, covered)) => {
                    star = Some((at, covered + 1));
                    p = at + 1;
                    t = covered + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

/// The session tags that EKS sets for a pod, as condition keys.
pub(crate) fn pod_keys(
    cluster: &crate::snapshot::Cluster,
    pod: Option<&crate::snapshot::Pod>,
    account: &podcreds_types::ServiceAccount,
    has_tags: bool,
) -> Keys {
    let mut known = BTreeMap::new();
    if let Some(arn) = &cluster.arn {
        known.insert("aws:sourcearn".to_owned(), arn.clone());
        let owner = cluster.account().unwrap_or_default();
        known.insert("aws:sourceaccount".to_owned(), owner.to_owned());
    }
    let mut unknown = Vec::new();
    if has_tags {
        let mut tag = |name: &str, value: Option<&str>| {
            let key = format!("aws:requesttag/{name}");
            match value {
                Some(value) => drop(known.insert(key, value.to_owned())),
                None => unknown.push(key),
            }
        };
        tag("eks-cluster-arn", cluster.arn.as_deref());
        tag("eks-cluster-name", Some(&cluster.name));
        tag("kubernetes-namespace", Some(&account.namespace));
        tag("kubernetes-service-account", Some(&account.name));
        tag("kubernetes-pod-name", pod.map(|pod| pod.name.as_str()));
        tag("kubernetes-pod-uid", None);
    }
    Keys { known, unknown }
}

#[cfg(test)]
mod tests;
