//! How the agent ends: told to, told twice, replaced by another, killed.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{collections::BTreeSet, process::ExitStatus};

use nix::sys::signal::Signal;
use podcreds_tests::{
    agent::{Agent, LogLine},
    eks_auth::Fault,
    http::client,
    needs_privileges,
    pod::{Client, Pod},
    scenario::{Scenario, assert_owned, wait_served},
    wait::until,
    wire,
};
use serde_json::{Value, json};

/// What a connect meets in a pod's network namespace, from where no road leads out.
const NOBODY: &str = "ENETUNREACH";
/// The exit code when connections were cut off.
const CUT_OFF: Option<i32> = Some(1);

/// New connections over both families, at a steady rate, until the client's input ends.
fn storm(pod: &Pod) -> Client {
    let both = ["--dst", "169.254.170.23:80", "--dst", "[fd00:ec2::23]:80"];
    let load = ["--threads", "8", "--rate", "300", "--until-end-of-input"];
    let patience = ["--timeout-ms", "20000"];
    pod.spawn([&["storm"], &both[..], &load, &patience].concat())
}

/// Waits until the agent has given out credentials `count` times.
fn wait_answers(agent: &Agent, count: f64) {
    let name = "podcreds_request_duration_seconds_count";
    agent.wait_metric(name, &[("code", "200")], |answers| answers >= count);
}

fn outcomes(tally: &Value) -> BTreeSet<&str> {
    let outcomes = tally["outcomes"].as_object().unwrap();
    outcomes.keys().map(String::as_str).collect()
}

/// Three pods of their own networks, all served.
fn three_pods(scene: &Scenario) -> [Pod; 3] {
    ["a", "b", "c"].map(|name| scene.served_pod(name))
}

/// A client that never reads, and so has the agent wait when it is told to end.
fn hold_up(scene: &Scenario) -> (Pod, Client) {
    let pod = scene.served_pod("sluggish");
    let mut client = pod.spawn(["hold", "--mode", "never-read", "--connections", "1"]);
    assert_eq!(client.line()["held"], 1);
    (pod, client)
}

fn last_words(agent: &Agent) -> LogLine {
    let lines = agent.logs().to_the_end();
    lines.last().unwrap().clone()
}

fn wait_draining(agent: &Agent) {
    let draining = |line: &LogLine| line.message == "draining";
    agent.logs().wait_for("the agent drains", draining);
}

#[test]
fn no_request_is_cut_off_when_the_agent_ends_under_load() {
    needs_privileges!();
    let mut scene = Scenario::start();
    let pods = three_pods(&scene);
    let storms = pods.each_ref().map(storm);
    wait_answers(&scene.agent, 300.0);
    let status = scene.agent.terminate();
    assert!(status.success(), "{status}");
    assert_eq!(last_words(&scene.agent).message, "ended");
    for (pod, storm) in pods.iter().zip(storms) {
        until("nobody answers", || pod.run(["get"])["error"] == NOBODY);
        let tally = storm.finish().pop().unwrap();
        assert_eq!(outcomes(&tally), BTreeSet::from(["200", NOBODY]), "{tally}");
        let served = tally["outcomes"]["200"].clone();
        assert_eq!(tally["owners"], json!({ pod.uid(): served }), "{tally}");
    }
}

#[test]
fn requests_that_wait_for_eks_auth_are_answered_before_the_agent_ends() {
    needs_privileges!();
    let mut scene = Scenario::start();
    scene.served_pod("known");
    scene.eks_auth.fail(Fault::Hang);
    let pod = scene.pod("cold").start();
    until("the agent finds the pod", || {
        pod.run(["get"])["status"] == 503
    });
    let asking = pod.spawn(["get", "--keepalive", "2"]);
    scene
        .agent
        .wait_metric("podcreds_exchange_waiters", &[], |count| count == 1.0);
    scene.agent.signal(Signal::SIGTERM);
    let answers = asking.finish();
    assert_eq!(answers[0]["status"], 503, "{answers:?}");
    assert_eq!(answers[0]["keep_alive"], false, "{answers:?}");
    assert!(scene.agent.wait_exit().success());
}

#[test]
fn kept_connections_do_not_hold_up_the_end() {
    needs_privileges!();
    let mut scene = Scenario::start();
    let pod = scene.served_pod("web");
    let request = wire::request(&pod, "HTTP/1.1", "Host: 169.254.170.23\r\n");
    let before = scene.agent.metrics();
    let (kept, silent) = (wire::begin(&pod, request), wire::begin(&pod, ""));
    let answered = "podcreds_request_duration_seconds_count";
    let before = before.sum(answered, &[]);
    let agent = &scene.agent;
    agent.wait_metric(answered, &[], |count| count == before + 1.0);
    agent.wait_metric("podcreds_connections", &[], |count| count == 2.0);
    assert!(scene.agent.terminate().success());
    let (kept, silent) = (kept.finish(), silent.finish());
    assert_eq!((kept.statuses(), &*kept.end), (vec![200], "closed"));
    assert_eq!((&*silent.received, &*silent.end), ("", "closed"));
    assert_eq!(last_words(&scene.agent).message, "ended");
}

#[test]
fn probes_say_that_the_agent_is_draining() {
    needs_privileges!();
    let mut scene = Scenario::start();
    let (_pod, client) = hold_up(&scene);
    assert_eq!(scene.agent.probe("/readyz"), 200);
    scene.agent.signal(Signal::SIGTERM);
    until("the agent is not ready any more", || {
        scene.agent.probe("/readyz") == 503
    });
    let answer = client::get(scene.agent.probe_address(), "/readyz").unwrap();
    assert_eq!(answer.body, "draining\n");
    assert_eq!(scene.agent.probe("/healthz"), 200);
    assert!(scene.agent.metrics().has("podcreds_connections"));
    drop(client);
    assert!(scene.agent.wait_exit().success());
    assert_eq!(last_words(&scene.agent).message, "ended");
}

fn assert_cut_off(agent: &Agent, status: ExitStatus) {
    assert_eq!(status.code(), CUT_OFF, "{status}");
    let words = last_words(agent);
    assert_eq!(words.level, "ERROR", "{words:?}");
    let counted = "1 connections were cut off";
    assert!(words.message.contains(counted), "{words:?}");
}

#[test]
fn a_second_signal_ends_the_agent_at_once() {
    needs_privileges!();
    let mut scene = Scenario::start();
    let (_pod, _client) = hold_up(&scene);
    scene.agent.signal(Signal::SIGTERM);
    let agent = &scene.agent;
    agent.wait_metric("podcreds_listeners", &[], |count| count == 0.0);
    scene.agent.signal(Signal::SIGTERM);
    let status = scene.agent.wait_exit();
    assert_cut_off(&scene.agent, status);
}

#[test]
fn a_second_signal_ends_the_agent_while_it_detaches() {
    needs_privileges!();
    let mut scene = Scenario::start();
    let (_pod, _client) = hold_up(&scene);
    scene.agent.signal(Signal::SIGTERM);
    wait_draining(&scene.agent);
    scene.agent.signal(Signal::SIGINT);
    let status = scene.agent.wait_exit();
    assert_cut_off(&scene.agent, status);
}

#[test]
fn the_grace_period_has_an_end() {
    needs_privileges!();
    let mut scene = Scenario::with_args(["--shutdown-grace-period", "1"]);
    let (_pod, _client) = hold_up(&scene);
    let status = scene.agent.terminate();
    assert_cut_off(&scene.agent, status);
}

#[test]
fn a_hand_over_between_two_agents_loses_no_request() {
    needs_privileges!();
    let mut scene = Scenario::start();
    let pods = three_pods(&scene);
    let storms = pods.each_ref().map(storm);
    for _ in 0..2 {
        wait_answers(&scene.agent, 200.0);
        let next = Agent::on(&scene.node, &scene.eks_auth).start();
        let status = scene.agent.terminate();
        assert!(status.success(), "{status}");
        scene.agent = next;
    }
    wait_answers(&scene.agent, 200.0);
    for (pod, storm) in pods.iter().zip(storms) {
        let tally = storm.finish().pop().unwrap();
        assert_eq!(outcomes(&tally), BTreeSet::from(["200"]), "{tally}");
        let served = tally["outcomes"]["200"].clone();
        assert_eq!(tally["owners"], json!({ pod.uid(): served }), "{tally}");
    }
}

#[test]
fn clients_notice_at_once_when_the_agent_is_killed() {
    needs_privileges!();
    let mut scene = Scenario::start();
    let pods = three_pods(&scene);
    let storms = pods.each_ref().map(storm);
    wait_answers(&scene.agent, 100.0);
    scene.agent.signal(Signal::SIGKILL);
    scene.agent.wait_exit();
    for (pod, storm) in pods.iter().zip(storms) {
        until("nobody answers", || pod.run(["get"])["error"] == NOBODY);
        let tally = storm.finish().pop().unwrap();
        // Open requests are lost, but no client is left waiting.
        let possible = [
            "200",
            NOBODY,
            "ECONNREFUSED",
            "ECONNRESET",
            "EPIPE",
            "closed",
        ];
        assert!(outcomes(&tally).is_subset(&possible.into()), "{tally}");
    }
    scene.agent = Agent::on(&scene.node, &scene.eks_auth).start();
    for pod in &pods {
        assert_owned(&wait_served(pod, []), pod);
    }
}
