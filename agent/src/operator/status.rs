//! `podcreds status`: the pods of this node, what they have, and how the agents are.

use std::{
    io::{self, IsTerminal},
    thread,
    time::{Duration, SystemTime},
};

use podcreds_admin::{
    AgentStatus, IdentifiedBy, NodeStatus, PathKind, PodState, PodStatus, Question, Timestamp,
};
use podcreds_output::{self as text, harmless, table, yaml};
use serde::Serialize;
use terminal_size::{Width, terminal_size};

use super::{CommandError, ask, print};
use crate::cli::{OutputFormat, StatusArgs};

/// How often a status that is watched is asked for.
const REDRAW: Duration = Duration::from_secs(2);
/// Clears a terminal, and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What is said in place of an empty table, where all pods are wanted and where some are.
const NO_PODS: &str = "no pods\n";
const NONE_MATCHES: &str = "no pod matches\n";

/// All agents that answer. The names in JSON are an interface.
#[derive(Serialize)]
struct Agents {
    agents: Vec<NodeStatus>,
}

/// Shows how the agents and their pods are, again and again if that is wanted.
///
/// # Errors
///
/// When no agent answers.
pub(crate) fn status(args: &StatusArgs) -> Result<(), CommandError> {
    let is_terminal = io::stdout().is_terminal();
    loop {
        let shown = show(args, is_terminal);
        if args.watch && is_terminal {
            print(CLEAR)?;
        }
        match shown {
            Ok(shown) => print(&shown)?,
            // In a restart of the agent nobody answers for a moment.
            Err(CommandError::Ask(error)) if args.watch => eprintln!("podcreds: {error}"),
            Err(error) => return Err(error),
        }
        if !args.watch {
            return Ok(());
        }
        thread::sleep(REDRAW);
    }
}

fn show(args: &StatusArgs, is_terminal: bool) -> Result<String, CommandError> {
    let mut agents: Vec<NodeStatus> = ask(&args.ask.admin_dir, &Question::Status)?;
    // The one that has the say first.
    let place = |role: &str| ["leader", "successor"].iter().position(|it| *it == role);
    agents.sort_by_key(|status| place(&status.agent.role).unwrap_or(usize::MAX));
    for status in &mut agents {
        status.pods.retain(|pod| is_wanted(pod, args));
    }
    let width = terminal_size().filter(|_| is_terminal);
    let width = width.map(|(Width(width), _)| usize::from(width));
    let none = if is_choosy(args) {
        NONE_MATCHES
    } else {
        NO_PODS
    };
    Ok(match args.output {
        OutputFormat::Text => text_of(&agents, width, none, SystemTime::now()),
        OutputFormat::Wide => wide_text_of(&agents, none, SystemTime::now()),
        OutputFormat::Json => text::json(&Agents { agents })?,
        OutputFormat::Yaml => yaml(&serde_json::to_value(Agents { agents })?),
    })
}

/// Whether not all pods are wanted.
fn is_choosy(args: &StatusArgs) -> bool {
    let names = [&args.namespace, &args.service_account, &args.pod];
    args.failing || names.iter().any(|name| name.is_some())
}

fn is_wanted(pod: &PodStatus, args: &StatusArgs) -> bool {
    let is = |text: &Option<String>, wanted: &Option<String>| {
        wanted.is_none() || text.as_ref() == wanted.as_ref()
    };
    let is_it = args.pod.as_ref().is_none_or(|wanted| {
        let uid = pod.uid.as_ref() == Some(wanted);
        uid || pod.name.as_ref() == Some(wanted) || full_name(pod).as_ref() == Some(wanted)
    });
    is(&pod.namespace, &args.namespace)
        && is(&pod.service_account, &args.service_account)
        && is_it
        && (!args.failing || pod.is_failing())
}

fn full_name(pod: &PodStatus) -> Option<String> {
    Some(format!(
        "{}/{}",
        pod.namespace.as_ref()?,
        pod.name.as_ref()?
    ))
}

/// For each agent some lines, a table of pods, and what is wrong with them.
fn text_of(agents: &[NodeStatus], width: Option<usize>, none: &str, now: SystemTime) -> String {
    let heading = [
        "POD", "ROLE", "STATE", "EXPIRES", "RENEWED", "ASKED", "BY", "PATH",
    ];
    each(agents, none, now, |pods| {
        let row = |pod: &PodStatus| {
            [
                shown_name(pod),
                role(pod),
                state(pod.state).to_owned(),
                until(pod.expires, now),
                ago(pod.renewed, now),
                ago(pod.last_asked, now),
                by(pod.identified_by).to_owned(),
                path(pod.path).to_owned(),
            ]
        };
        let rows: Vec<_> = pods.iter().map(row).collect();
        table(heading, &rows, width) + &errors(pods, now)
    })
}

fn wide_text_of(agents: &[NodeStatus], none: &str, now: SystemTime) -> String {
    let heading = [
        "NAMESPACE",
        "NAME",
        "SERVICE ACCOUNT",
        "UID",
        "ROLE",
        "STATE",
        "EXPIRES",
        "RENEWED",
        "DUE",
        "ASKED",
        "BY",
        "PATH",
        "LAST ERROR",
    ];
    each(agents, none, now, |pods| {
        let row = |pod: &PodStatus| {
            [
                or_dash(&pod.namespace),
                or_dash(&pod.name),
                or_dash(&pod.service_account),
                or_dash(&pod.uid),
                or_dash(&pod.role),
                state(pod.state).to_owned(),
                until(pod.expires, now),
                ago(pod.renewed, now),
                until(pod.renewal_due, now),
                ago(pod.last_asked, now),
                by(pod.identified_by).to_owned(),
                path(pod.path).to_owned(),
                last_error(pod, now).unwrap_or_else(dash),
            ]
        };
        let rows: Vec<_> = pods.iter().map(row).collect();
        table(heading, &rows, None)
    })
}

fn each(
    agents: &[NodeStatus],
    none: &str,
    now: SystemTime,
    pods: impl Fn(&[PodStatus]) -> String,
) -> String {
    let texts = agents.iter().map(|status| {
        let shown = match status.pods.is_empty() {
            true => none.to_owned(),
            false => pods(&status.pods),
        };
        format!("{}\n{shown}", agent(&status.agent, now))
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// What there is to say about an agent, in some lines.
fn agent(agent: &AgentStatus, now: SystemTime) -> String {
    let AgentStatus {
        paths,
        limiter,
        upstream,
        ..
    } = agent;
    let ready = if agent.ready { "ready" } else { "not ready" };
    let mut text = format!(
        "podcreds {} ({}), {}, {ready}, up {}, process {}, log level {}\n",
        agent.version,
        agent.revision,
        agent.role,
        text::duration(agent.started.ago(now)),
        agent.process,
        agent.log_level,
    );
    let in_pod = if paths.in_pod { "on" } else { "off" };
    text.push_str(&format!(
        "paths     in-pod {in_pod}, node path on {} addresses\n",
        paths.node_addresses
    ));
    let throttled = if limiter.throttled {
        ", EKS Auth throttles"
    } else {
        ""
    };
    text.push_str(&format!(
        "limiter   {:.0} calls a second{throttled}; {} in flight, {} waiting (and {} renewals)\n",
        limiter.calls_per_second,
        limiter.in_flight,
        limiter.waiting + limiter.waiting_doubtful,
        limiter.waiting_renewals,
    ));
    let answer = match upstream.last_answer {
        Some(at) => format!("last answer {} ago", text::duration(at.ago(now))),
        None => "no answer yet".to_owned(),
    };
    let failures = match (&upstream.last_failure, upstream.failures_in_a_row) {
        (Some(failure), failures @ 1..) => {
            format!(
                "; {failures} failures in a row: {}",
                harmless(&failure.message)
            )
        }
        (_, _) => String::new(),
    };
    text.push_str(&format!("EKS Auth  {answer}{failures}\n"));
    let keys = match &agent.keys {
        None => "none are looked for".to_owned(),
        Some(keys) => match &keys.failure {
            None => format!("{} known", keys.known),
            Some(why) => format!(
                "{} known; the last fetch failed: {}",
                keys.known,
                harmless(why)
            ),
        },
    };
    text.push_str(&format!("keys      {keys}\n"));
    for remark in &agent.remarks {
        text.push_str(&format!("remark    {}\n", harmless(remark)));
    }
    text
}

/// A line for each pod with something wrong.
fn errors(pods: &[PodStatus], now: SystemTime) -> String {
    let failing = pods.iter().filter(|pod| pod.is_failing());
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

fn state(state: PodState) -> &'static str {
    match state {
        PodState::Valid => "valid",
        PodState::Stale => "stale",
        PodState::Expired => "expired",
        PodState::Fetching => "fetching",
        PodState::Failed => "failed",
        PodState::None => "none",
    }
}

fn by(by: Option<IdentifiedBy>) -> &'static str {
    match by {
        Some(IdentifiedBy::Kernel) => "kernel",
        Some(IdentifiedBy::Key) => "key",
        Some(IdentifiedBy::EksAuth) => "eks-auth",
        None => "-",
    }
}

fn path(path: Option<PathKind>) -> &'static str {
    match path {
        Some(PathKind::InPod) => "in-pod",
        Some(PathKind::Node) => "node",
        None => "-",
    }
}
