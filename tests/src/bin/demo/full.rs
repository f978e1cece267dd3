//! The real thing: pods with namespaces and cgroups of their own, redirected by the kernel.

use std::{
    io::{self, BufRead},
    iter,
};

use anyhow::{Context, Result};
use podcreds_tests::{agent::Agent, binary, eks_auth::EksAuth, node::Node, pod::Pod, sdk::Sdk};

use crate::{
    Arguments, CLIENTS, movement,
    outcome::{self, Expected, Identified, Line},
    scenario::{self, Member},
    step,
};

/// Shows it. The answer is whether everything was right.
pub(crate) fn show(arguments: &Arguments) -> Result<bool> {
    let eks_auth = EksAuth::start();
    scenario::associate(&eks_auth);
    let node = Node::new();
    let admin = tempfile::tempdir()?;
    let folder = admin.path().to_string_lossy();
    let members = step("Starting pods: namespaces, cgroups, tokens", || {
        scenario::start(&node)
    });
    let agent = step(
        "Starting the agent, which attaches its eBPF programs",
        || {
            let agent = Agent::on(&node, &eks_auth);
            agent.set("--admin-dir", &folder).start()
        },
    );
    let at_start = agent.metrics();

    let mut lines = step("Letting AWS clients in the pods get credentials", || {
        ask_all(&agent, &members)
    })?;
    lines.push(step("Using a stolen token", || steal(&agent, &members))?);

    println!("\n{}", outcome::table(&lines));
    println!("\n{}", movement::table(&at_start, &agent.metrics()));
    if arguments.keep {
        keep(&agent, &members, &folder)?;
    }
    Ok(lines.iter().all(Line::is_right))
}

fn ask_all(agent: &Agent, members: &[Member]) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for member in members {
        let expected = match member.role {
            Some(role) => Expected::Role {
                role,
                uid: member.pod.uid(),
            },
            // What EKS Auth says where there is no association.
            None => Expected::Status(404),
        };
        let identified = Identified::by_kernel(member.family);
        for client in CLIENTS {
            lines.push(ask(agent, member, client, member, (expected, &identified))?);
        }
    }
    Ok(lines)
}

/// The pod that no role belongs to takes the token of one that has a role.
fn steal(agent: &Agent, members: &[Member]) -> Result<Line> {
    let thief = members.iter().find(|member| member.role.is_none());
    let victim = members.iter().find(|member| member.role.is_some());
    let (thief, victim) = thief.zip(victim).context("no thief and no victim")?;
    let expected = (
        Expected::Status(403),
        &Identified::as_another_pod(thief.family),
    );
    ask(agent, thief, Sdk::Boto3, victim, expected)
}

/// Runs a client in one pod with the token of another, or its own.
fn ask(
    agent: &Agent,
    member: &Member,
    client: Sdk,
    token_of: &Member,
    expected: (Expected<'_>, &Identified),
) -> Result<Line> {
    let Member {
        pod, kind, family, ..
    } = member;
    let kind = if pod.uid() == token_of.pod.uid() {
        kind.clone()
    } else {
        format!("with the token of {}", token_of.pod.name())
    };
    let before = agent.metrics();
    let got = client.run(|program| {
        let mut command = pod.command(program);
        command
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", family.uri())
            .env(
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                token_of.pod.token_file(),
            );
        command
    })?;
    let after = agent.metrics();
    let line = outcome::judge(
        [pod.name(), &kind, client.name()],
        &got,
        expected,
        (&before, &after),
    );
    eprintln!("    {}", line.summary());
    Ok(line)
}

/// Says what there is to look at, and waits.
fn keep(agent: &Agent, members: &[Member], admin: &str) -> Result<()> {
    let pid = agent.id();
    println!("\nEverything keeps running. In another terminal:");
    let podcreds = binary::podcreds();
    println!("  {} status --admin-dir {admin}", podcreds.display());
    println!("  curl http://{}/metrics", agent.metrics_address());
    println!("  curl http://{}/readyz", agent.probe_address());
    println!("  ls -l /proc/{pid}/fd    # the agent's listeners, maps and programs");
    if let Some(Member { pod, family, .. }) = members.first() {
        println!("A shell in {}, and a request from there:", pod.name());
        println!("  {}", shell_in(pod));
        println!(
            "  curl -H \"Authorization: $(cat {})\" '{}'",
            pod.token_file().display(),
            family.uri()
        );
    }
    println!("Enter ends it.");
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

fn shell_in(pod: &Pod) -> String {
    let command = pod.command("bash");
    let words: Vec<_> = iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    words.join(" ")
}
