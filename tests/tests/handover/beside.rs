//! Two agents beside each other: what one of them has, the other one has too, before it is alone.

use std::time::{Duration, Instant};

use podcreds_tests::{
    agent::Agent,
    eks_auth::Fault,
    needs_privileges,
    pod::{Nested, Pod},
    scenario::assert_owned,
    wait::until,
};

use crate::scene::{HOST_PODS, HostPort, Scene, wait_role};

/// The addresses of the agent.
const DESTINATIONS: [&str; 2] = ["169.254.170.23:80", "[fd00:ec2::23]:80"];

/// Leaves the first port that an agent takes alone, and none of the next ones.
const ONE_AGENT_ONLY: &str = "table inet filter {
  chain output {
    type filter hook output priority 0
    oifname lo tcp dport 62724-65535 drop
  }
}";

/// Leaves no port alone that an agent takes, and counts the tries.
const NO_AGENT: &str = "table inet filter {
  counter tries { }
  chain output {
    type filter hook output priority 0
    oifname lo tcp dport 61000-65535 tcp flags syn counter name tries reject with tcp reset
  }
}";

/// How often an agent tries what it does not reach, while nobody asks it to.
const RETRY: Duration = Duration::from_secs(10);

/// What an agent says that goes though its successor does not reach everything.
const IMPATIENT: &str = "does not reach all pods that this one reaches: not waiting any longer";

/// A pod that is served, and then lets the agent be reached that is there, and no other.
fn closed_pod(scene: &Scene) -> Pod {
    let pod = scene.served_pod("closed");
    for destination in DESTINATIONS {
        assert_owned(&pod.run(["get", "--dst", destination]), &pod);
    }
    pod.filter(ONE_AGENT_ONLY);
    pod
}

/// An agent that comes next, and does not reach that pod.
fn unreaching_successor(scene: &Scene) -> Agent {
    let next = scene.agent().start();
    next.wait_metric("podcreds_unreachable_listeners", &[], |found| found == 2.0);
    next
}

/// Whether an agent that has ended did so though its successor did not reach everything.
fn is_impatient(agent: &Agent) -> bool {
    let lines = agent.logs().to_the_end();
    lines.iter().any(|line| line.message.contains(IMPATIENT))
}

#[test]
fn an_agent_that_is_told_to_end_does_so_when_its_successor_reaches_what_it_reaches() {
    needs_privileges!();
    let scene = Scene::new();
    let mut agent = scene.agent().start();
    let pod = closed_pod(&scene);
    let _next = unreaching_successor(&scene);
    // It would find that out within ten seconds.
    pod.filter("flush ruleset");
    assert!(agent.terminate().success());
    for destination in DESTINATIONS {
        assert_owned(&pod.run(["get", "--dst", destination]), &pod);
    }
    assert!(!is_impatient(&agent));
}

#[test]
fn a_pod_whose_sandbox_has_died_is_not_waited_for() {
    needs_privileges!();
    let scene = Scene::new();
    let mut agent = scene.agent().start();
    let mut pod = scene.served_pod("dead");
    pod.kill_pause();
    let next = scene.agent().start();
    assert!(agent.terminate().success());
    assert!(!is_impatient(&agent));
    wait_role(&next, "leader");
}

#[test]
fn a_pod_that_the_successor_does_not_reach_keeps_no_agent_from_ending() {
    needs_privileges!();
    let scene = Scene::new();
    // Less than it would wait for otherwise.
    let agent = scene.agent().set("--shutdown-grace-period", "12");
    let mut agent = agent.start();
    let _pod = closed_pod(&scene);
    let next = unreaching_successor(&scene);
    assert!(agent.terminate().success());
    assert!(is_impatient(&agent));
    wait_role(&next, "leader");
}

#[test]
fn a_pod_that_the_leader_does_not_reach_either_is_not_tried_for_it() {
    needs_privileges!();
    let scene = Scene::new();
    // Before the leader comes, which would not notice.
    let other = scene.node.pod("other").start();
    other.filter(NO_AGENT);
    let agent = scene.agent().set("--shutdown-grace-period", "12");
    let mut agent = agent.start();
    let _asked_about = closed_pod(&scene);
    let next = scene.agent().start();
    next.wait_metric("podcreds_unreachable_listeners", &[], |found| found == 4.0);
    let (before, asked_at) = (other.counted_packets("tries"), Instant::now());
    assert!(agent.terminate().success());
    assert!(is_impatient(&agent));
    // Two agents in two families.
    let rounds = asked_at.elapsed().as_secs() / RETRY.as_secs() + 2;
    let tries = other.counted_packets("tries") - before;
    assert!(
        tries <= 4 * rounds,
        "{tries} tries in {:?}",
        asked_at.elapsed()
    );
}

#[test]
fn a_container_inside_of_a_pod_is_served_at_once_by_the_successor() {
    needs_privileges!();
    let scene = Scene::new();
    let mut agent = scene.agent().start();
    let pod = scene.served_pod("docker");
    let nested = pod.nested();
    let get = |nested: &Nested<'_>| nested.run(["get", "--timeout-ms", "5000"]);
    until("the container is served", || get(&nested)["status"] == 200);
    let next = scene.agent().start();
    assert!(agent.terminate().success());
    assert_owned(&get(&nested), &pod);
    wait_role(&next, "leader");
}

/// On the node path any of the two accepts a connection.
#[test]
fn each_of_two_agents_serves_what_the_other_one_has_got() {
    needs_privileges!();
    let (scene, port) = (Scene::new(), HostPort::find());
    let start = || {
        let agent = Agent::on(&scene.node, &scene.eks_auth);
        scene.with_folder(port.serve(agent, "node")).start()
    };
    let agents = [start(), start()];
    let pods = scene.host_pods(&port);
    for agent in &agents {
        agent.wait_metric("podcreds_cache_entries", &[], |entries| {
            entries == HOST_PODS as f64
        });
    }
    scene.eks_auth.fail(Fault::Hang);
    for pod in pods.iter().cycle().take(4 * HOST_PODS) {
        for destination in port.destinations() {
            assert_owned(&pod.run(["get", "--dst", destination]), pod);
        }
    }
}
