//! A stalled or suspended agent, or one of its threads, and how soon pods are served again.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use podcreds_tests::{
    agent::Agent,
    binary,
    chart::{self, Request},
    eks_auth::EksAuth,
    needs_privileges,
    node::Node,
    privileged::can_run,
    scenario::{Scenario, assert_owned, wait_served},
};
use serde_json::{Value, json};

/// From sysexits.h: EX_SOFTWARE.
const STALLED: Option<i32> = Some(70);
/// How soon an agent with a stalled thread must have ended.
const LIMIT: Duration = Duration::from_secs(10);
/// How soon pods must be served again when the whole process is stopped.
const REPLACED: Duration = Duration::from_secs(30);
/// How long the whole process is suspended: longer than a thread may stall.
const SUSPENDED: Duration = Duration::from_secs(12);

/// Stops a thread, and checks that the agent ends and names it, and that the next agent serves.
fn the_next_agent_serves_after(thread: &str, named: &str) {
    let mut scene = Scenario::start();
    let pod = scene.served_pod("web");
    let stopped = scene.agent.stop_thread(thread);
    let start = Instant::now();
    stopped.wait_gone();
    let status = scene.agent.wait_exit();
    let took = start.elapsed();
    println!("{thread} stood still: ended after {took:?}");
    let words = scene.agent.logs().to_the_end().pop().unwrap();
    assert_eq!(status.code(), STALLED, "{words:?}");
    assert_eq!(words.level, "ERROR", "{words:?}");
    let said = format!("{named} has done nothing for ");
    assert!(words.message.starts_with(&said), "{words:?}");
    assert!(took < LIMIT, "{took:?}");
    let _next = Agent::on(&scene.node, &scene.eks_auth).start();
    wait_served(&pod, []);
}

#[test]
fn a_stalled_serving_thread_ends_the_agent() {
    needs_privileges!();
    the_next_agent_serves_after("podcreds", "the serving runtime");
}

#[test]
fn a_stalled_control_thread_ends_the_agent() {
    needs_privileges!();
    the_next_agent_serves_after("control", "the control runtime");
}

#[test]
fn a_stalled_datapath_thread_ends_the_agent() {
    needs_privileges!();
    the_next_agent_serves_after("datapath", "the datapath's thread");
}

#[test]
fn a_successor_serves_in_place_of_a_stalled_agent() {
    needs_privileges!();
    let folder = tempfile::tempdir().unwrap();
    let meet = ["--handover-dir", folder.path().to_str().unwrap()];
    let mut scene = Scenario::run(Node::new(), EksAuth::start(), |agent| {
        agent.set(meet[0], meet[1])
    });
    let pod = scene.served_pod("web");
    let successor = Agent::on(&scene.node, &scene.eks_auth).set(meet[0], meet[1]);
    let _successor = successor.start();
    let stopped = scene.agent.stop_thread("podcreds");
    let start = Instant::now();
    stopped.wait_gone();
    assert_eq!(scene.agent.wait_exit().code(), STALLED);
    wait_served(&pod, []);
    let took = start.elapsed();
    println!("beside a successor: served again after {took:?}");
    assert!(took < LIMIT, "{took:?}");
    assert_eq!(scene.eks_auth.call_count(), 1);
}

/// This is about time that passes, so the test has to let it pass.
#[test]
fn an_agent_that_was_suspended_continues() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    for _ in 0..2 {
        scene.agent.signal(Signal::SIGSTOP);
        thread::sleep(SUSPENDED);
        scene.agent.signal(Signal::SIGCONT);
        // More than one look of the watchdog's.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            assert_owned(&pod.run(["get", "--timeout-ms", "5000"]), &pod);
        }
    }
    assert_eq!(scene.agent.probe("/healthz"), 200);
}

/// The part of kubelet that runs a liveness probe, with the chart's settings.
struct Kubelet {
    period: Duration,
    threshold: u64,
    grace: Duration,
    question: String,
}

impl Kubelet {
    /// `None` where the chart cannot be rendered.
    fn of_chart() -> Option<Self> {
        if !can_run(chart::check()) {
            return None;
        }
        let request = Request {
            name: "default".to_owned(),
            values: json!({ "clusterName": "test" }),
            versions: Vec::new(),
        };
        let rendering = chart::render(&[request]).unwrap().pop()?;
        let pod = &rendering.of_kind("DaemonSet")[0]["spec"]["template"]["spec"];
        let probe = &pod["containers"][0]["livenessProbe"];
        let number = |name: &str| probe[name].as_u64().unwrap();
        let seconds = |name| Duration::from_secs(number(name));
        let command = probe["exec"]["command"].as_array().unwrap();
        let question = command.last().and_then(Value::as_str).unwrap();
        Some(Self {
            period: seconds("periodSeconds"),
            threshold: number("failureThreshold"),
            grace: seconds("terminationGracePeriodSeconds"),
            question: question.to_owned(),
        })
    }

    /// Probes an agent until it has failed often enough, and ends it.
    fn watch(&self, agent: &mut Agent, socket: &Path) {
        let start = Instant::now();
        let (mut asked, mut failures) = (0, 0);
        while failures < self.threshold {
            // The worst case: the first probe comes a whole period after the stop.
            asked += 1;
            thread::sleep((asked * self.period).saturating_sub(start.elapsed()));
            let mut probe = Command::new(binary::podcreds());
            let socket = format!("--socket={}", socket.display());
            let answer = probe.args(["probe", &socket, &self.question]).output();
            let is_alive = answer.unwrap().status.success();
            failures = if is_alive { 0 } else { failures + 1 };
            println!("alive: {is_alive}, said after {:?}", start.elapsed());
        }
        agent.signal(Signal::SIGTERM);
        thread::sleep(self.grace);
        agent.signal(Signal::SIGKILL);
        agent.wait_exit();
    }
}

#[test]
fn a_successor_serves_within_half_a_minute_after_its_leader_was_stopped() {
    needs_privileges!();
    let Some(kubelet) = Kubelet::of_chart() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let meet = ["--handover-dir", folder.path().to_str().unwrap()];
    let socket = folder.path().join("agent.sock");
    let mut scene = Scenario::run(Node::new(), EksAuth::start(), |agent| {
        let agent = agent.set(meet[0], meet[1]);
        agent.args(["--probe-socket", socket.to_str().unwrap()])
    });
    let pod = scene.served_pod("web");
    let successor = Agent::on(&scene.node, &scene.eks_auth).set(meet[0], meet[1]);
    let _successor = successor.start();
    scene.agent.signal(Signal::SIGSTOP);
    let start = Instant::now();
    kubelet.watch(&mut scene.agent, &socket);
    wait_served(&pod, []);
    let took = start.elapsed();
    println!("stopped beside a successor: served again after {took:?}");
    assert!(took < REPLACED, "{took:?}");
    assert_eq!(scene.eks_auth.call_count(), 1);
}
