//! All pods of a node ask at once, and nobody has credentials yet.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use podcreds_tests::{
    agent::Agent,
    eks_auth::{EksAuth, Fault, Outcome as CallOutcome},
    node::Node,
    pod::{Client, Pod},
    wait::until,
};

use crate::{
    Arguments, Subject,
    outcome::{Line, Outcome},
    pods, step,
};

/// How long EKS Auth takes for an answer.
const DELAYS_MS: [u64; 3] = [50, 1000, 3000];
/// How many calls a second EKS Auth bears.
const QUOTAS: [usize; 2] = [20, 100];

/// With an EKS Auth that takes its time.
pub(crate) fn cold(arguments: &Arguments, eks_auth: &EksAuth) -> Result<Vec<Outcome>> {
    let cases = DELAYS_MS.map(|delay| {
        let fault = Fault::Slow(Duration::from_millis(delay));
        (format!("EKS Auth takes {delay} ms"), Upstream::Slow(fault))
    });
    measure(arguments, eks_auth, &cases)
}

/// With an EKS Auth that throttles.
pub(crate) fn storm(arguments: &Arguments, eks_auth: &EksAuth) -> Result<Vec<Outcome>> {
    let cases = QUOTAS.map(|quota| {
        let case = format!("EKS Auth bears {quota} calls/s");
        (case, Upstream::Bears(quota))
    });
    measure(arguments, eks_auth, &cases)
}

enum Upstream {
    Slow(Fault),
    Bears(usize),
}

fn measure(
    arguments: &Arguments,
    eks_auth: &EksAuth,
    cases: &[(String, Upstream)],
) -> Result<Vec<Outcome>> {
    let node = Node::new();
    let count = arguments.at_once;
    let title = format!("Starting {count} pods, each with a network namespace of its own");
    let pods = step(&title, || pods::start(&node, count))?;
    let mut outcomes = Vec::new();
    for (case, upstream) in cases {
        for subject in arguments.subjects() {
            let title = format!("{case}: {count} pods ask {} at once", subject.name);
            outcomes.push(step(&title, || {
                once(&node, &pods, eks_auth, &subject, case, upstream)
            })?);
        }
    }
    step("Removing the pods", || drop(pods));
    Ok(outcomes)
}

fn once(
    node: &Node,
    pods: &[Pod],
    eks_auth: &EksAuth,
    subject: &Subject,
    case: &str,
    upstream: &Upstream,
) -> Result<Outcome> {
    eks_auth.heal();
    eks_auth.forget_calls();
    match upstream {
        Upstream::Slow(fault) => eks_auth.fail(fault.clone()),
        Upstream::Bears(quota) => eks_auth.throttle_above(*quota),
    }
    let agent = Agent::on(node, eks_auth).binary(&subject.binary).start();
    until("the agent listens for all pods", || {
        let listening = agent.metrics().sum("podcreds_network_namespaces", &[]);
        listening == pods.len() as f64 + 1.0
    });
    let clients = pods
        .iter()
        .map(|pod| pod.spawn(["patient", "--on-end-of-input"]));
    let mut clients: Vec<_> = clients.collect();
    let before = agent.usage().cpu;
    clients.iter_mut().for_each(Client::end_input);
    let mut waits = Vec::new();
    let mut tries = Vec::new();
    for client in clients {
        let answer = client.finish().pop().context("a client said nothing")?;
        ensure!(answer["status"] == 200, "a pod got {answer}");
        waits.extend(answer["waited_ms"].as_f64());
        tries.extend(answer["tries"].as_u64());
    }
    let cpu = agent.usage().cpu - before;
    waits.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| {
        let last = waits.len().saturating_sub(1) as f64;
        waits.get((last * part) as usize).copied()
    };
    let with_tries = |wanted: fn(&&u64) -> bool| tries.iter().filter(wanted).count() as f64;
    let calls = eks_auth.calls();
    let throttled = calls
        .iter()
        .filter(|call| matches!(call.outcome, CallOutcome::Faulted(Fault::Throttle { .. })));
    let served = waits.iter().enumerate();
    let served = served.map(|(number, wait)| (wait / 1000.0, number as f64 + 1.0));
    Ok(Outcome::new(case, &subject.name)
        .with("first try", with_tries(|tries| **tries == 1), "")
        .with("second", with_tries(|tries| **tries == 2), "")
        .with("later", with_tries(|tries| **tries > 2), "")
        .with("half served", at(0.5).unwrap_or(f64::NAN), "ms")
        .with("all served", at(1.0).unwrap_or(f64::NAN), "ms")
        .with("calls", calls.len() as f64, "")
        .with("throttled", throttled.count() as f64, "")
        .with("CPU", cpu.as_secs_f64() * 1000.0, "ms")
        .with_line(Line {
            plot: "Pods that have been served",
            x: "seconds since all of them asked",
            y: "pods",
            points: served.collect(),
        }))
}
