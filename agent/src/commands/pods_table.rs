//! The table of pods, and below it what is wrong with them.

use std::time::SystemTime;

use podcreds_admin::{PodStatus, Timestamp};
use podcreds_output::{self as text, Column, harmless, table_of};

use super::node::NodePod;

/// Which agent, where there are two.
const AGENT: Column = Column::new("AGENT").goes(5);

const COLUMNS: [Column; 9] = [
    Column::new("POD").cut_to(20),
    Column::new("ROLE").cut_to(16).goes(2),
    Column::new("STATE"),
    Column::new("EXPIRES").goes(1),
    Column::new("RENEWED").goes(6),
    Column::new("ASKED").goes(3),
    Column::new("BY").goes(7),
    Column::new("PATH").goes(4),
    AGENT,
];

const WIDE: [Column; 14] = [
    Column::new("NAMESPACE"),
    Column::new("NAME"),
    Column::new("SERVICE ACCOUNT"),
    Column::new("UID"),
    Column::new("ROLE"),
    Column::new("STATE"),
    Column::new("EXPIRES"),
    Column::new("RENEWED"),
    Column::new("DUE"),
    Column::new("ASKED"),
    Column::new("BY"),
    Column::new("PATH"),
    Column::new("LAST ERROR"),
    AGENT,
];

/// A line for each pod, and one for each with something wrong.
pub(super) fn pods_table(
    pods: &[NodePod],
    agents: usize,
    width: Option<usize>,
    now: SystemTime,
) -> String {
    let row = |NodePod { agent, pod }: &NodePod| {
        vec![
            shown_name(pod),
            role(pod),
            pod.state.to_string(),
            until(pod.expires, now),
            ago(pod.renewed, now),
            ago(pod.last_asked, now),
            pod.identified_by.map_or_else(dash, |by| by.to_string()),
            pod.path.map_or_else(dash, |path| path.to_string()),
            harmless(agent),
        ]
    };
    let rows: Vec<_> = pods.iter().map(row).collect();
    table_of(of_agents(&COLUMNS, agents), &rows, width) + &errors(pods, now)
}

/// All that there is of each pod, in one line.
pub(super) fn wide_pods_table(pods: &[NodePod], agents: usize, now: SystemTime) -> String {
    let row = |NodePod { agent, pod }: &NodePod| {
        vec![
            or_dash(&pod.namespace),
            or_dash(&pod.name),
            or_dash(&pod.service_account),
            or_dash(&pod.uid),
            or_dash(&pod.role),
            pod.state.to_string(),
            until(pod.expires, now),
            ago(pod.renewed, now),
            until(pod.renewal_due, now),
            ago(pod.last_asked, now),
            pod.identified_by.map_or_else(dash, |by| by.to_string()),
            pod.path.map_or_else(dash, |path| path.to_string()),
            last_error(pod, now).unwrap_or_else(dash),
            harmless(agent),
        ]
    };
    let rows: Vec<_> = pods.iter().map(row).collect();
    table_of(of_agents(&WIDE, agents), &rows, None)
}

/// The last column says which agent it is, and needs to where there are two.
fn of_agents(columns: &[Column], agents: usize) -> &[Column] {
    match (agents, columns) {
        (0 | 1, [columns @ .., _agent]) => columns,
        _ => columns,
    }
}

/// A line for each pod with something wrong.
fn errors(pods: &[NodePod], now: SystemTime) -> String {
    let failing = pods.iter().map(|NodePod { pod, .. }| pod);
    let failing = failing.filter(|pod| pod.is_failing());
    let lines = failing.filter_map(|pod| {
        let error = last_error(pod, now)?;
        Some(format!("{}: {error}\n", shown_name(pod)))
    });
    let lines: String = lines.collect();
    match lines.is_empty() {
        true => lines,
        false => format!("\n{lines}"),
    }
}

/// `NAMESPACE/NAME`, where a token has told it.
fn full_name(pod: &PodStatus) -> Option<String> {
    Some(format!(
        "{}/{}",
        pod.namespace.as_ref()?,
        pod.name.as_ref()?
    ))
}

/// What people call it. A question mark says that only a token which got nothing has told so.
fn shown_name(pod: &PodStatus) -> String {
    match full_name(pod) {
        Some(name) if pod.names_verified => harmless(&name),
        Some(name) => harmless(&name) + "?",
        None => or_dash(&pod.uid),
    }
}

fn role(pod: &PodStatus) -> String {
    match &pod.role {
        Some(role) => harmless(&text::role(role)),
        None if pod.expires.is_some() => "unknown".to_owned(),
        None => dash(),
    }
}

fn last_error(pod: &PodStatus, now: SystemTime) -> Option<String> {
    let error = pod.last_error.as_ref()?;
    let ago = text::duration(error.at.ago(now));
    Some(format!("{ago} ago: {}", harmless(&error.message)))
}

fn ago(time: Option<Timestamp>, now: SystemTime) -> String {
    time.map_or_else(dash, |time| text::duration(time.ago(now)) + " ago")
}

fn until(time: Option<Timestamp>, now: SystemTime) -> String {
    time.map_or_else(dash, |time| {
        format!("in {}", text::duration(time.until(now)))
    })
}

fn or_dash(text: &Option<String>) -> String {
    text.as_deref().map_or_else(dash, harmless)
}

fn dash() -> String {
    "-".to_owned()
}
