//! The queue of agents: one is the leader, one its successor, the others wait.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use nix::sys::signal::Signal;
use podcreds_tests::{
    agent::{Agent, LogLine},
    http::client,
    needs_privileges,
    scenario::{assert_owned, wait_served},
    wait::{DEADLINE, until},
};

use crate::scene::{Scene, wait_role};

const ROLES: [&str; 3] = ["leader", "successor", "waiting"];

/// The agents in the order of their roles, once the three have three different ones.
fn sorted(mut agents: [Agent; 3]) -> [Agent; 3] {
    let place = |agent: &Agent| {
        let metrics = agent.metrics();
        let has = |role: &&str| metrics.sum("podcreds_handover_role", &[("role", *role)]) == 1.0;
        ROLES.iter().position(has)
    };
    until("each of three agents has a role of its own", || {
        let mut places: Vec<_> = agents.iter().map(place).collect();
        places.sort_unstable();
        places == [Some(0), Some(1), Some(2)]
    });
    agents.sort_by_key(place);
    agents
}

#[test]
fn three_agents_that_start_at_once_get_three_different_roles() {
    needs_privileges!();
    let scene = Scene::new();
    let pod = scene.node.pod("web").account("shop", "reader").start();
    let start = || {
        let agent = scene.agent().spawn();
        agent.metrics_address();
        agent
    };
    let [mut leader, mut successor, waiting] = sorted([start(), start(), start()]);
    successor.wait_ready();
    let why = client::get(waiting.probe_address(), "/readyz").unwrap();
    assert_eq!(why.status, 503);
    assert!(
        why.body.contains("another agent is about to take over"),
        "{why:?}"
    );
    assert_eq!(waiting.probe("/healthz"), 200);
    assert_eq!(waiting.metrics().sum("podcreds_listeners", &[]), 0.0);
    wait_served(&pod, []);

    // Either may have fetched them, and may end at any moment: the successor has them.
    successor.wait_metric("podcreds_cache_entries", &[], |entries| entries == 1.0);
    // Each moves up when one before it has ended, by whatever means.
    leader.signal(Signal::SIGKILL);
    leader.wait_exit();
    wait_role(&successor, "leader");
    wait_role(&waiting, "successor");
    waiting.wait_ready();
    assert!(successor.terminate().success());
    wait_role(&waiting, "leader");
    assert_owned(&pod.run(["get"]), &pod);
    assert_eq!(scene.eks_auth.call_count(), 1);
}

#[test]
fn an_agent_that_is_terminated_leaves_the_queue_at_once() {
    needs_privileges!();
    let scene = Scene::new();
    let leader = scene.agent().start();
    wait_role(&leader, "leader");
    let mut successor = scene.agent().start();
    let mut waiting = scene.agent().spawn();
    wait_role(&waiting, "waiting");
    assert!(waiting.terminate().success());
    wait_role(&successor, "successor");
    assert!(successor.terminate().success());
    let next = scene.agent().start();
    wait_role(&next, "successor");
    wait_role(&leader, "leader");
}

#[test]
fn a_suspended_leader_delays_nobody_and_hands_over_when_it_resumes() {
    needs_privileges!();
    let scene = Scene::new();
    let leader = scene.agent().start();
    let (stays, goes) = (scene.served_pod("stays"), scene.served_pod("goes"));
    leader.signal(Signal::SIGSTOP);
    drop(goes);
    let mut successor = scene.agent().start();
    let silent = "the agent before this one does not tell what it has: starting without";
    assert_eq!(successor.logs().with_message(silent).len(), 1);
    leader.signal(Signal::SIGCONT);
    let heard = "took in the credentials of the agent before this one";
    successor
        .logs()
        .wait_for("the leader speaks", |line| line.message == heard);
    // The entry of the pod that is gone was either not sent or not kept.
    successor.wait_metric("podcreds_cache_entries", &[], |entries| entries == 1.0);
    drop(leader);
    wait_role(&successor, "leader");
    assert_owned(&stays.run(["get"]), &stays);
    assert_eq!(scene.eks_auth.call_count(), 2);
    assert!(successor.terminate().success());
}

/// Takes the successor's lock, as an agent that starts does.
fn successors_lock(scene: &Scene) -> File {
    let lock = File::options()
        .write(true)
        .open(scene.folder().join("heir.lock"))
        .unwrap();
    until("the successor's lock is free", || lock.try_lock().is_ok());
    lock
}

#[test]
fn a_terminated_leader_waits_for_a_successor_that_starts_and_not_for_one_that_is_gone() {
    needs_privileges!();
    let scene = Scene::new();
    let waiting = |line: &LogLine| line.message.contains("does not serve yet: waiting for it");
    let start = || {
        let agent = scene.agent().start();
        wait_role(&agent, "leader");
        agent
    };
    let mut agent = start();
    let pod = scene.served_pod("web");
    let lock = successors_lock(&scene);
    agent.signal(Signal::SIGTERM);
    agent.logs().wait_for("it waits", waiting);
    assert_owned(&pod.run(["get"]), &pod);
    drop(lock);
    assert!(agent.wait_exit().success());

    let mut agent = start();
    let _lock = successors_lock(&scene);
    let mut successor = UnixStream::connect(scene.folder().join("leader.sock")).unwrap();
    successor.set_read_timeout(Some(DEADLINE)).unwrap();
    successor.write_all(b"podcreds\x00\x01").unwrap();
    agent.signal(Signal::SIGTERM);
    agent.logs().wait_for("it waits", waiting);
    assert_owned(&pod.run(["get"]), &pod);
    successor.write_all(b"!").unwrap();
    assert!(agent.wait_exit().success());
    let mut told = Vec::new();
    successor.read_to_end(&mut told).unwrap();
    assert!(told.ends_with(b"\x03\x00\x00\x00\x00"), "its last word");
}

#[test]
fn a_successor_keeps_the_credentials_of_a_killed_leader() {
    needs_privileges!();
    let scene = Scene::new();
    let mut leader = scene.agent().start();
    let early = scene.served_pod("early");
    let successor = scene.agent().start();
    // Its credentials are sent as a change.
    let late = scene.served_pod("late");
    successor.wait_metric("podcreds_cache_entries", &[], |entries| entries == 2.0);
    drop(early);
    successor.wait_metric("podcreds_cache_entries", &[], |entries| entries == 1.0);
    leader.signal(Signal::SIGKILL);
    leader.wait_exit();
    wait_role(&successor, "leader");
    assert_owned(&late.run(["get"]), &late);
    assert_eq!(scene.eks_auth.call_count(), 2);
    let received = [("direction", "received")];
    let metrics = successor.metrics();
    assert!(metrics.sum("podcreds_handover_entries_total", &received) >= 2.0);
}

#[test]
fn a_token_that_was_rotated_before_an_update_is_accepted_after_it() {
    needs_privileges!();
    let scene = Scene::new();
    let mut agent = scene.agent().args(["--verbosity", "trace"]).start();
    let pod = scene.served_pod("web");
    let old = pod.token();
    let longer = pod.claims().clone().expires_in(Duration::from_secs(7200));
    let new = scene.eks_auth.issuer().sign(&longer);
    assert_ne!(old, new);
    pod.write_token(&new);
    assert_owned(&pod.run(["get"]), &pod);
    let before = scene.eks_auth.call_count();

    let next = scene.agent().args(["--verbosity", "trace"]).start();
    assert!(agent.terminate().success());
    wait_role(&next, "leader");
    for token in [&old, &new] {
        assert_owned(&pod.run(["get", "--token", token]), &pod);
    }
    assert_eq!(scene.eks_auth.call_count(), before);
    let secret = pod.run(["get"])["body"]["SecretAccessKey"].to_string();
    for line in [agent.logs().to_the_end(), next.logs().all()].concat() {
        for secret in [&old, &new, secret.trim_matches('"')] {
            assert!(!line.raw.contains(secret), "{}", line.raw);
        }
    }
    assert!(fs::read_dir(scene.folder()).unwrap().count() >= 3);
}
