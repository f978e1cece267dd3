//! Listeners keep out of the way of applications that want a port.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use podcreds_tests::{
    agent::{Agent, LISTENER_PORT},
    eks_auth::EksAuth,
    needs_privileges,
    node::Node,
    pod::{Client, Pod},
    scenario::{ACCOUNT, ROLE, Scenario, assert_owned, wait_served},
    wait::until,
};
use serde_json::json;

/// What an application cannot listen on of some ports, in a pod.
fn taken(pod: &Pod, from: u16, to: u16) -> serde_json::Value {
    let (from, to) = (from.to_string(), to.to_string());
    pod.run(["bind-all", "--from", &from, "--to", &to])["failed"].clone()
}

#[test]
fn applications_may_have_round_numbers_and_those_of_known_programs() {
    needs_privileges!();
    let scene = Scenario::start();
    for pod in [
        scene.served_pod("own-network"),
        scene.pod("host-network").host_network().start(),
    ] {
        for port in [61_000, 61_616, 65_000] {
            assert_eq!(taken(&pod, port, port), json!({}), "{}", pod.name());
        }
    }
}

#[test]
fn ports_that_the_namespace_reserves_or_gives_out_are_not_taken() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
    for (setting, value, port) in [
        ("ip_local_reserved_ports", "62000-62999,63001", 63_000),
        ("ip_local_port_range", "32768 62799", 62_800),
        ("ip_local_port_range", "1024 65535", LISTENER_PORT),
    ] {
        let pod = node.pod("web").account(ACCOUNT.0, ACCOUNT.1).start();
        let mut command = pod.command("sh");
        let write = format!("echo {value} > /proc/sys/net/ipv4/{setting}");
        let written = command.args(["-c", &write]).status();
        assert!(written.is_ok_and(|status| status.success()), "{write}");
        let _agent = Agent::on(&node, &eks_auth).start();
        let destination = format!("127.0.0.1:{port}");
        assert_owned(&pod.run(["get", "--dst", &destination]), &pod);
    }
}

/// Listens as an application does, once it can, and says on how many addresses it could not at
/// first.
fn listen(pod: &Pod, port: u16) -> (Client, usize) {
    let port = port.to_string();
    let mut first = None;
    let mut application = None;
    until("the application has the port that it wants", || {
        drop(application.take());
        let mut tried = pod.spawn(["bind-all", "--from", &port, "--to", &port]);
        let failed = tried.line()["failed"].clone();
        let taken = failed["EADDRINUSE"].as_array().map_or(0, Vec::len);
        first.get_or_insert(taken);
        application = Some(tried);
        failed == json!({})
    });
    (application.unwrap(), first.unwrap())
}

#[test]
fn a_listener_makes_room_for_an_application_that_wants_its_port() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let agent = &scene.agent;
    // A machine that is too slow at first has a pod's first connects left alone.
    let failed = || {
        let labels = [("outcome", "failed")];
        let metrics = agent.metrics();
        metrics.sum("podcreds_kernel_connects_total", &labels)
    };
    let before = failed();
    let mut applications = Vec::new();
    // It moves out of the way as often as it must.
    for port in [LISTENER_PORT, LISTENER_PORT + 1, LISTENER_PORT + 2] {
        let (application, taken) = listen(&pod, port);
        assert_eq!(taken, 2, "both families' listeners were there: {port}");
        applications.push(application);
        for destination in ["169.254.170.23:80", "[fd00:ec2::23]:80"] {
            let answer = pod.run(["get", "--dst", destination]);
            assert_owned(&answer, &pod);
            assert_eq!(answer["peer"], destination, "{answer}");
        }
    }
    // The three ports of both families that were given up are known as listeners' no more.
    until("only those that are open are known", || {
        agent.map_entries("PORTS") == 2
    });
    assert_eq!(failed(), before);
}

/// A pod in the host's network that is served, by listeners of its own after a while.
fn host_network_pod(scene: &Scenario, name: &str) -> Pod {
    let pod = scene.pod(name).host_network().start();
    wait_served(&pod, []);
    pod
}

fn wait_listeners(scene: &Scenario, count: f64) {
    let agent = &scene.agent;
    agent.wait_metric("podcreds_listeners", &[], |there| there == count);
}

#[test]
fn a_listener_on_the_host_makes_room_too() {
    needs_privileges!();
    let scene = Scenario::on_network("ebpf", []);
    let pod = host_network_pod(&scene, "web");
    // The host's, and one that is the pod's own after a while.
    let ports = [LISTENER_PORT, LISTENER_PORT + 1];
    wait_listeners(&scene, 4.0);
    for port in ports {
        let (_application, taken) = listen(&pod, port);
        assert_eq!(taken, 2, "both families' listeners were there: {port}");
        assert_owned(&pod.run(["get"]), &pod);
    }
}

#[test]
fn listeners_of_two_pods_on_one_port_both_make_room() {
    needs_privileges!();
    let scene = Scenario::on_network("ebpf", []);
    let first = host_network_pod(&scene, "first");
    wait_listeners(&scene, 4.0);
    let port = (LISTENER_PORT + 2).to_string();
    let mut application = first.spawn(["bind-all", "--ipv4", "--from", &port, "--to", &port]);
    assert_eq!(
        application.line()["bound"],
        1,
        "the host and the first pod have the two before it"
    );
    // So the IPv6 listeners of new pods are one port behind their IPv4 listeners, as a rule.
    let [_second, _third] = ["second", "third"].map(|name| host_network_pod(&scene, name));
    wait_listeners(&scene, 8.0);
    let wanted = LISTENER_PORT + 3..LISTENER_PORT + 6;
    let _applications: Vec<_> = wanted.map(|port| listen(&first, port)).collect();
    assert_owned(&first.run(["get"]), &first);
}

#[test]
fn a_port_that_was_given_up_is_taken_by_no_new_pods_listener() {
    needs_privileges!();
    let scene = Scenario::on_network("ebpf", []);
    let first = host_network_pod(&scene, "first");
    wait_listeners(&scene, 4.0);
    // As one in a crash loop.
    let (application, taken) = listen(&first, LISTENER_PORT);
    assert_eq!(taken, 2, "both families' listeners were there");
    drop(application);
    let _second = host_network_pod(&scene, "second");
    wait_listeners(&scene, 6.0);
    let (_application, taken) = listen(&first, LISTENER_PORT);
    assert_eq!(taken, 0, "the port is the application's");
}

#[test]
fn an_application_gets_a_port_though_it_has_all_others_that_are_tried() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let (from, to) = (LISTENER_PORT + 1, LISTENER_PORT + 600);
    let (from, to) = (from.to_string(), to.to_string());
    let mut others = pod.spawn(["bind-all", "--from", &from, "--to", &to]);
    assert_eq!(others.line()["failed"], json!({}));
    let (_application, taken) = listen(&pod, LISTENER_PORT);
    assert_eq!(taken, 2, "both families' listeners were there");
    for destination in ["169.254.170.23:80", "[fd00:ec2::23]:80"] {
        assert_owned(&pod.run(["get", "--dst", destination]), &pod);
    }
}

#[test]
fn another_agent_that_looks_for_a_port_moves_no_listener() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let second = Agent::on(&scene.node, &scene.eks_auth).start();
    second.wait_metric("podcreds_network_namespaces", &[], |count| count == 2.0);
    for port in [LISTENER_PORT, LISTENER_PORT + 1] {
        let destination = format!("127.0.0.1:{port}");
        let answer = pod.run(["get", "--dst", &destination]);
        assert_owned(&answer, &pod);
    }
}
