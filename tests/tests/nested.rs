//! Containers that a pod runs in a network namespace of their own get their pod's credentials only.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use podcreds_tests::{
    agent::{Agent, LISTENERS},
    binary,
    eks_auth::EksAuth,
    needs_privileges,
    node::Node,
    pod::{Client, Join, Nested, Pod},
    privileged::can_run,
    scenario::{ACCOUNT, ROLE, Scenario, assert_owned, wait_served as wait_owned},
    sdk::{Got, Sdk},
    wait::until,
};
use serde_json::Value;

const IPV4: &str = "169.254.170.23:80";
const IPV6: &str = "[fd00:ec2::23]:80";

/// Asks until the container is served. Until then it gets connection errors or 503 only.
fn wait_served(nested: &Nested<'_>, pod: &Pod) {
    until("the nested container is served", || {
        let answer = nested.run(["get", "--timeout-ms", "1000"]);
        let (status, error) = (&answer["status"], &answer["error"]);
        assert!(
            error.is_string() || status == 503 || status == 200,
            "{answer}"
        );
        if status == 200 {
            assert_owned(&answer, pod);
        }
        status == 200
    });
}

fn decisions(agent: &Agent, decision: &str) -> f64 {
    let labels = [("decision", decision)];
    agent
        .metrics()
        .sum("podcreds_identity_decisions_total", &labels)
}

/// What a process of a pod gets in some network namespace.
fn ask(join: &Join, pod: &Pod, arguments: &[&str]) -> Value {
    let mut command = pod.with_env(join.command(binary::pod_client()));
    command
        .args(["get", "--timeout-ms", "1000"])
        .args(arguments);
    Client::spawn(command).finish().pop().unwrap()
}

#[test]
fn a_container_behind_its_pods_address_is_served() {
    needs_privileges!();
    let scene = Scenario::on_network("auto", []);
    let pod = scene.redirected_pod("docker");
    let nested = pod.nested_behind_nat();
    // The first request comes by the node path, where the token of a redirected pod is refused.
    let first = nested.run(["get"]);
    assert_eq!(first["body"]["code"], "Detour", "{first}");
    wait_served(&nested, &pod);
    for destination in [IPV4, IPV6] {
        let answer = nested.run(["get", "--dst", destination]);
        assert_owned(&answer, &pod);
        assert_eq!(answer["peer"], destination, "{answer}");
    }
    assert_eq!(decisions(&scene.agent, "node_path"), 0.0);
    assert_owned(&pod.run(["get"]), &pod);
}

#[test]
fn unmodified_sdks_in_new_containers_are_served() {
    needs_privileges!();
    let scene = Scenario::on_network("auto", []);
    for sdk in Sdk::ALL.into_iter().filter(|sdk| can_run(sdk.check())) {
        let pod = scene.served_pod(&format!("{sdk:?}").to_lowercase());
        let nested = pod.nested_behind_nat();
        match sdk.run(|program| nested.command(program)).unwrap() {
            Got::Credentials(owner) => assert_eq!(owner.uid, pod.uid(), "{}", sdk.name()),
            other => panic!("{}: {other:?}", sdk.name()),
        }
    }
}

#[test]
fn containers_without_a_way_out_are_served_too_and_leave_nothing() {
    needs_privileges!();
    let scene = Scenario::start();
    let agent = &scene.agent;
    let namespaces = |wanted: f64| {
        let name = "podcreds_network_namespaces";
        agent.wait_metric(name, &[], |count| count == wanted);
    };
    let pod = scene.served_pod("docker");
    let before = agent.usage().descriptors;
    let mut nested = vec![pod.nested(), pod.nested()];
    for container in &nested {
        wait_served(container, &pod);
    }
    namespaces(4.0);
    assert_eq!(agent.map_entries("NESTED"), 2);
    // A namespace is forgotten after its last process, and all of them with their pod.
    drop(nested.pop());
    namespaces(3.0);
    assert_owned(&nested[0].run(["get"]), &pod);
    drop(nested);
    namespaces(2.0);
    assert_eq!(agent.map_entries("NESTED"), 0);
    until("no descriptor is left over", || {
        agent.usage().descriptors <= before
    });
    wait_served(&pod.nested(), &pod);
    drop(pod);
    namespaces(1.0);
    until("no listener is left in the kernel", || {
        agent.map_entries("NESTED") == 0 && agent.map_entries("PODS") == 0
    });
}

#[test]
fn a_stolen_token_is_of_no_use_in_a_nested_container() {
    needs_privileges!();
    let scene = Scenario::on_network("auto", []);
    let [victim, thief] = ["victim", "thief"].map(|name| scene.redirected_pod(name));
    let nested = thief.nested_behind_nat();
    let stolen = victim.token();
    let with_stolen = ["get", "--token", &stolen, "--timeout-ms", "1000"];
    // First by the node path, then by the listener.
    let mut answer = nested.run(with_stolen);
    assert_eq!(answer["body"]["code"], "Detour", "{answer}");
    until("the thief is redirected", || {
        answer = nested.run(with_stolen);
        assert_ne!(answer["status"], 200, "{answer}");
        answer["status"] == 403
    });
    assert_eq!(answer["body"]["code"], "TokenOfAnotherPod", "{answer}");
    for address in LISTENERS {
        let answer = nested.run(with_stolen.into_iter().chain(["--dst", address]));
        assert_eq!(answer["body"]["code"], "TokenOfAnotherPod", "{answer}");
    }
    // Nested containers of the victim do not change that.
    let nested_victim = victim.nested_behind_nat();
    wait_served(&nested_victim, &victim);
    let outside = Join::nothing().network(&thief.network());
    let answer = ask(&outside, &thief, &["--token", &stolen]);
    assert_eq!(answer["body"]["code"], "Detour", "{answer}");
}

/// As `nsenter` does in a daemon of the node's, or a client that is on its way to its namespace.
#[test]
fn a_pod_in_the_hosts_network_stays_there_while_one_of_its_processes_is_elsewhere() {
    needs_privileges!();
    let scene = Scenario::start();
    let agent = &scene.agent;
    let pod = scene.pod("daemon").host_network().start();
    wait_owned(&pod, []);
    // The host's, and the pod's own after a while.
    agent.wait_metric("podcreds_listeners", &[], |count| count == 4.0);
    let nested = pod.nested();
    // Found after that, so the agent has looked at the process.
    let other = scene.served_pod("other");
    let count = |name| agent.metrics().sum(name, &[]);
    assert_eq!(count("podcreds_network_namespaces"), 2.0);
    assert_eq!(count("podcreds_listeners"), 6.0);
    assert_owned(&pod.run(["get"]), &pod);
    assert_owned(&other.run(["get"]), &other);
    wait_served(&nested, &pod);
}

#[test]
fn a_pod_that_was_found_where_a_process_passed_through_comes_back_to_the_hosts_network() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
    let pod = node.pod("daemon").account(ACCOUNT.0, ACCOUNT.1);
    let pod = pod.host_network().start();
    let nested = pod.nested();
    let agent = Agent::on(&node, &eks_auth).start();
    let namespaces = "podcreds_network_namespaces";
    agent.wait_metric(namespaces, &[], |count| count == 2.0);
    assert_owned(&pod.run(["get"]), &pod);
    drop(nested);
    agent.wait_metric(namespaces, &[], |count| count == 1.0);
    // The host's, and the pod's own.
    agent.wait_metric("podcreds_listeners", &[], |count| count == 4.0);
    assert_owned(&pod.run(["get"]), &pod);
}

#[test]
fn a_process_that_enters_a_nested_namespace_keeps_its_identity() {
    needs_privileges!();
    let scene = Scenario::start();
    let (victim, thief) = (scene.served_pod("victim"), scene.served_pod("thief"));
    let nested = victim.nested();
    wait_served(&nested, &victim);
    let [v4, v6] = LISTENERS;
    let entered = thief.join().network(&nested.network());
    let outside = Join::nothing()
        .cgroup(scene.node.cgroup())
        .network(&nested.network());
    let stolen = victim.token();
    for address in [v4, v6] {
        // The victim's listener refuses the thief with any token.
        for join in [&entered, &outside] {
            for token in [&stolen, &thief.token()] {
                let answer = ask(join, &thief, &["--dst", address, "--token", token]);
                assert_eq!(answer["body"]["code"], "UnknownCaller", "{answer}");
            }
        }
    }
    // At the agent's address it is sent to a listener of its own, and gets its own credentials.
    until("the thief is redirected", || {
        let answer = ask(&entered, &thief, &["--token", &stolen]);
        assert_ne!(answer["status"], 200, "{answer}");
        answer["body"]["code"] == "TokenOfAnotherPod"
    });
    assert_owned(&ask(&entered, &thief, &[]), &thief);
    assert_owned(&nested.run(["get"]), &victim);
    // In the namespace of another pod a process is not redirected.
    let in_pod = thief.join().network(&victim.network());
    for _ in 0..3 {
        let answer = ask(&in_pod, &thief, &[]);
        assert_eq!(answer["error"], "ENETUNREACH", "{answer}");
    }
}

#[test]
fn a_pod_gets_listeners_in_sixteen_nested_namespaces_at_most() {
    needs_privileges!();
    let scene = Scenario::start();
    let (greedy, other) = (scene.served_pod("greedy"), scene.served_pod("other"));
    let many: Vec<_> = (0..20).map(|_| greedy.nested()).collect();
    for container in many.iter().take(16) {
        wait_served(container, &greedy);
    }
    for container in &many[16..] {
        for _ in 0..3 {
            let answer = container.run(["get"]);
            assert_eq!(answer["error"], "ENETUNREACH", "{answer}");
        }
    }
    assert_eq!(scene.agent.map_entries("NESTED"), 16);
    let nested = other.nested();
    wait_served(&nested, &other);
}
