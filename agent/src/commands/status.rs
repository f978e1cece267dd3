//! `podcreds status`: the pods of this node, what they have, and how the agents are.

use std::{
    io::{self, IsTerminal},
    thread,
    time::{Duration, SystemTime},
};

use podcreds_admin::{NodeStatus, PodStatus, Question, RefusalStatus};
use podcreds_output::{json, yaml};
use podcreds_types::PodUid;
use serde::Serialize;
use terminal_size::{Width, terminal_size};

use super::{
    agent_lines::agent_lines,
    asking::{CommandError, ask, print},
    node::Node,
    pods_table::{pods_table, wide_pods_table},
    refused_table::refused_table,
};
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
        status.refused.retain(|it| is_wanted_refusal(it, args));
    }
    // In a table they are put together first: one agent may know a name that the other does not.
    if !matches!(args.output, OutputFormat::Text | OutputFormat::Wide) {
        for status in &mut agents {
            status.pods.retain(|pod| is_wanted(pod, args));
        }
    }
    let width = terminal_size().filter(|_| is_terminal);
    let width = width.map(|(Width(width), _)| usize::from(width));
    Ok(match args.output {
        OutputFormat::Text => text_of(Node::of(agents), args, width, SystemTime::now()),
        OutputFormat::Wide => text_of(Node::of(agents), args, None, SystemTime::now()),
        OutputFormat::Json => json(&Agents { agents })?,
        OutputFormat::Yaml => yaml_of(&Agents { agents }, args.watch)?,
    })
}

/// A document begins where the last one has ended.
fn yaml_of(agents: &Agents, is_watched: bool) -> Result<String, CommandError> {
    let start = if is_watched { "---\n" } else { "" };
    Ok(start.to_owned() + &yaml(&serde_json::to_value(agents)?))
}

/// Some lines for each agent, the pods, and who was refused.
fn text_of(mut node: Node, args: &StatusArgs, width: Option<usize>, now: SystemTime) -> String {
    node.pods.retain(|it| is_wanted(&it.pod, args));
    let agents = node.agents.iter();
    let lines = agents.map(|agent| agent_lines(agent, now) + "\n");
    let pods = match args.output {
        _ if node.pods.is_empty() && is_choosy(args) => NONE_MATCHES.to_owned(),
        _ if node.pods.is_empty() => NO_PODS.to_owned(),
        OutputFormat::Wide => wide_pods_table(&node.pods, node.agents.len(), now),
        _ => pods_table(&node.pods, node.agents.len(), width, now),
    };
    lines.collect::<String>() + &pods + &refused_table(&node.refused, width, now)
}

/// Whether not all pods are wanted.
fn is_choosy(args: &StatusArgs) -> bool {
    let names = [&args.namespace, &args.service_account, &args.pod];
    args.failing || names.iter().any(|name| name.is_some())
}

fn is_wanted(pod: &PodStatus, args: &StatusArgs) -> bool {
    is(&pod.namespace, &args.namespace)
        && is(&pod.service_account, &args.service_account)
        && is_named(&pod.uid, &pod.namespace, &pod.name, args)
        && (!args.failing || pod.is_failing())
}

/// Of those who were refused only the names and the UID are known, if they are pods.
fn is_wanted_refusal(refused: &RefusalStatus, args: &StatusArgs) -> bool {
    is(&refused.namespace, &args.namespace)
        && args.service_account.is_none()
        && is_named(&refused.uid, &refused.namespace, &refused.name, args)
}

fn is(text: &Option<String>, wanted: &Option<String>) -> bool {
    wanted.is_none() || text == wanted
}

/// Whether it is the pod that is wanted, if one is.
fn is_named(
    uid: &Option<String>,
    namespace: &Option<String>,
    name: &Option<String>,
    args: &StatusArgs,
) -> bool {
    let Some(wanted) = &args.pod else {
        return true;
    };
    let full = namespace.as_ref().zip(name.as_ref());
    let full = full.map(|(namespace, name)| format!("{namespace}/{name}"));
    // Of static pods Kubernetes shows it without dashes.
    let wanted_uid = wanted.parse::<PodUid>().ok().map(|uid| uid.to_string());
    let is_uid = wanted_uid.is_some() && *uid == wanted_uid;
    is_uid || [name, &full].contains(&&Some(wanted.clone()))
}
