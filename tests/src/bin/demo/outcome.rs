//! One line of the table: what a client got, how the agent knew who it was, and whether that is
//! right.

use std::iter;

use podcreds_tests::{agent::Metrics, sdk::Got, table};
use serde_json::Value;

use crate::{
    movement::{grown, growth},
    scenario::Family,
};

/// What a client should get.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected<'a> {
    /// Credentials of this role, made for the pod with this UID.
    Role { role: &'a str, uid: &'a str },
    /// An answer with this HTTP status.
    Status(u16),
}

/// How the agent knew who was asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identified {
    /// What the kernel did with the connections.
    connects: Vec<String>,
    /// What was made of the tokens.
    decisions: Vec<String>,
}

impl Identified {
    /// The kernel sent the connection over, and its pod and the token's are the same.
    pub(crate) fn by_kernel(family: Family) -> Self {
        Self::new(family, "matched")
    }

    /// The kernel sent the connection over, and the token is another pod's.
    pub(crate) fn as_another_pod(family: Family) -> Self {
        Self::new(family, "refused")
    }

    /// There was no kernel to ask.
    pub(crate) fn by_token() -> Self {
        Self {
            connects: Vec::new(),
            decisions: vec!["node_path".to_owned()],
        }
    }

    fn new(family: Family, decision: &str) -> Self {
        Self {
            connects: vec![family.outcome().to_owned()],
            decisions: vec![decision.to_owned()],
        }
    }

    /// Reads it off the agent's own counters.
    fn read(before: &Metrics, after: &Metrics) -> Self {
        let mut connects = grown(before, after, "podcreds_kernel_connects_total", "outcome");
        // Whatever else runs on the host may connect meanwhile.
        connects.retain(|outcome| outcome.starts_with("redirected"));
        let mut decisions = grown(
            before,
            after,
            "podcreds_identity_decisions_total",
            "decision",
        );
        let from_memory = |result| {
            let requests = "podcreds_cache_requests_total";
            growth(before, after, requests, &[("result", result)]) > 0.0
        };
        if decisions.is_empty() && (from_memory("hit") || from_memory("refused")) {
            // For the kernel's pod this very token's answer was in memory: it has matched before.
            decisions.push("matched".to_owned());
        }
        Self {
            connects,
            decisions,
        }
    }

    fn describe(&self) -> String {
        let family = match self.connects.as_slice() {
            [one] if one == Family::V4.outcome() => "IPv4: ",
            [one] if one == Family::V6.outcome() => "IPv6: ",
            [] => "",
            _ => "both families: ",
        };
        let decision = match self.decisions.as_slice() {
            [one] if one == "matched" => "kernel = token",
            [one] if one == "refused" => "kernel ≠ token",
            [one] if one == "node_path" => "token only",
            other => &other.join(", "),
        };
        format!("{family}{decision}")
    }
}

/// A line of the table.
pub(crate) struct Line {
    cells: Vec<String>,
    right: bool,
    /// The client's own words, where it got nothing.
    note: Option<String>,
}

impl Line {
    pub(crate) fn is_right(&self) -> bool {
        self.right
    }

    /// Who got what, for a reader who watches the table grow.
    pub(crate) fn summary(&self) -> String {
        self.cells[..4].join(", ")
    }
}

/// The titles of a line's cells.
const TITLES: [&str; 8] = [
    "POD",
    "KIND",
    "CLIENT",
    "GOT",
    "IDENTIFIED BY",
    "FROM",
    "LATENCY",
    "RESULT",
];
/// The cell that holds a number.
const LATENCY: usize = 6;

/// The lines as a table, and below it what the clients that got nothing say.
pub(crate) fn table(lines: &[Line]) -> String {
    let rows: Vec<_> = lines.iter().map(|line| line.cells.clone()).collect();
    let notes = lines.iter().filter_map(|line| line.note.clone());
    iter::once(table::layout(&TITLES, &rows, &[LATENCY]))
        .chain(notes)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Judges what a client got between two scrapes.
pub(crate) fn judge(
    [pod, kind, client]: [&str; 3],
    got: &Got,
    (expected, identified): (Expected<'_>, &Identified),
    (before, after): (&Metrics, &Metrics),
) -> Line {
    let seen = Identified::read(before, after);
    let right = is_expected(got, expected) && seen == *identified;
    let (shown, note) = match got {
        Got::Credentials(owner) => (owner.role.clone(), None),
        Got::Nothing(words) => {
            let status = status_in(words).map_or_else(|| "?".to_owned(), |code| code.to_string());
            (format!("refused ({status})"), Some(words.clone()))
        }
    };
    Line {
        cells: vec![
            pod.to_owned(),
            kind.to_owned(),
            client.to_owned(),
            shown,
            seen.describe(),
            source(before, after).to_owned(),
            latency(before, after),
            if right { "right" } else { "WRONG" }.to_owned(),
        ],
        right,
        note: note.map(|words| format!("{pod}, {client}: {}", explanation(&words))),
    }
}

fn is_expected(got: &Got, expected: Expected<'_>) -> bool {
    match (got, expected) {
        (Got::Credentials(owner), Expected::Role { role, uid }) => {
            owner.role == role && owner.uid == uid
        }
        (Got::Nothing(words), Expected::Status(status)) => status_in(words) == Some(status),
        _ => false,
    }
}

/// The HTTP status in a client's complaint. boto3 says what it got instead of 200.
fn status_in(words: &str) -> Option<u16> {
    words
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .find(|status| (400..600).contains(status))
}

/// The agent's own explanation, where the client shows it; else the client's words.
fn explanation(words: &str) -> String {
    let body = words
        .find('{')
        .and_then(|start| serde_json::from_str::<Value>(&words[start..]).ok());
    let message = body.as_ref().and_then(|body| body["message"].as_str());
    message.unwrap_or(words).to_owned()
}

/// Where the answer came from: EKS Auth, or the agent's memory.
fn source(before: &Metrics, after: &Metrics) -> &'static str {
    let results = grown(before, after, "podcreds_cache_requests_total", "result");
    let has = |result: &str| results.iter().any(|grown| grown == result);
    if has("miss") || has("joined") {
        "EKS Auth"
    } else if results.is_empty() {
        // It was refused before anything was looked up.
        "-"
    } else {
        "cache"
    }
}

/// The mean time from the client's connect() to the answer, as the agent measures it. Where the
/// kernel did not see the connect, from accept.
fn latency(before: &Metrics, after: &Metrics) -> String {
    for metric in [
        "podcreds_connect_to_response_duration_seconds",
        "podcreds_request_duration_seconds",
    ] {
        let count = growth(before, after, &format!("{metric}_count"), &[]);
        if count > 0.0 {
            let sum = growth(before, after, &format!("{metric}_sum"), &[]);
            return format!("{:.2} ms", sum / count * 1000.0);
        }
    }
    String::new()
}
