//! Whatever address family a client prefers, and whatever its pod's network looks like, it gets its
//! own pod's credentials.

use podcreds_tests::{
    agent::Agent,
    eks_auth::EksAuth,
    needs_privileges,
    node::Node,
    pod::Pod,
    scenario::{Scenario, assert_owned, wait_served},
    wait::until,
};
use serde_json::json;

const IPV4: &str = "169.254.170.23:80";
const IPV6: &str = "[fd00:ec2::23]:80";
const MAPPED: &str = "[::ffff:169.254.170.23]:80";

/// Asks at `destination`, and checks that the client sees the peer that it asked for.
#[track_caller]
fn assert_served_at(pod: &Pod, destination: &str) {
    let answer = pod.run(["get", "--dst", destination, "--timeout-ms", "5000"]);
    assert_owned(&answer, pod);
    assert_eq!(answer["peer"], destination, "{answer}");
}

#[test]
fn every_family_reaches_the_agent() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    for destination in [IPV4, IPV6, MAPPED] {
        assert_served_at(&pod, destination);
    }
    assert_eq!(scene.eks_auth.call_count(), 1);
    let kernel = scene.agent.metrics();
    let connects = |outcome| kernel.sum("podcreds_kernel_connects_total", &[("outcome", outcome)]);
    assert_eq!(connects("redirected_ipv6"), 1.0);
    assert!(connects("redirected_ipv4") >= 3.0);
}

#[test]
fn a_socket_that_speaks_ipv6_only_is_served() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let answer = pod.run(["get", "--v6only", "--dst", IPV6]);
    assert_owned(&answer, &pod);
}

#[test]
fn ipv6_clients_are_served_where_the_pod_has_no_ipv6() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.pod("web").without_ipv6().start();
    wait_served(&pod, []);
    for destination in [IPV4, IPV6, MAPPED] {
        assert_served_at(&pod, destination);
    }
}

#[test]
fn ipv6_clients_are_served_after_the_pod_has_lost_ipv6() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    assert_served_at(&pod, IPV6);
    let listeners = scene.agent.metrics().sum("podcreds_listeners", &[]);
    pod.disable_ipv6();
    scene
        .agent
        .wait_metric("podcreds_listeners", &[], |count| count < listeners);
    for destination in [IPV6, MAPPED, IPV4] {
        assert_served_at(&pod, destination);
    }
}

#[test]
fn a_loopback_that_comes_up_late_is_enough() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.pod("web").loopback_down().start();
    scene
        .agent
        .wait_metric("podcreds_network_namespaces", &[], |count| count == 2.0);
    // Nobody is sent to where it cannot be reached.
    let outcome = [("outcome", "redirected_ipv4")];
    let redirected = |scene: &Scenario| {
        scene
            .agent
            .metrics()
            .sum("podcreds_kernel_connects_total", &outcome)
    };
    pod.run(["get", "--timeout-ms", "1000"]);
    assert_eq!(redirected(&scene), 0.0);
    pod.raise_loopback();
    // The kernel says so, and the agent looks for itself.
    wait_served(&pod, []);
    // `::1` comes with the loopback, and the kernel says so a moment later.
    until("an IPv6-only client is served", || {
        let answer = pod.run(["get", "--v6only", "--dst", IPV6, "--timeout-ms", "1000"]);
        answer["status"] == 200
    });
    assert_served_at(&pod, IPV6);
}

#[test]
fn an_application_that_takes_our_ports_first_takes_nothing_away() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate("shop", "reader", "shop-reader");
    // All of them, or those that are tried, where the kernel chooses among ours alone.
    for (from, to, range) in [
        ("61000", "65535", "32768 60999"),
        ("62723", "63400", "61000 65535"),
    ] {
        let pod = node.pod("greedy").account("shop", "reader").start();
        let write = format!("echo {range} > /proc/sys/net/ipv4/ip_local_port_range");
        let written = pod.command("sh").args(["-c", &write]).status();
        assert!(written.is_ok_and(|status| status.success()), "{write}");
        let mut application = pod.spawn(["bind-all", "--from", from, "--to", to]);
        let bound = application.line();
        assert_eq!(bound["failed"], json!({}), "{bound}");
        let _agent = Agent::on(&node, &eks_auth).start();
        wait_served(&pod, []);
        for destination in [IPV4, IPV6, MAPPED] {
            assert_served_at(&pod, destination);
        }
    }
}

#[test]
fn the_next_free_port_will_do() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate("shop", "reader", "shop-reader");
    let pod = node.pod("greedy").account("shop", "reader").start();
    let mut application = pod.spawn(["bind-all", "--from", "62723", "--to", "62732"]);
    assert_eq!(application.line()["failed"], json!({}));
    let _agent = Agent::on(&node, &eks_auth).start();
    wait_served(&pod, []);
    for address in ["127.0.0.1:62733", "[::1]:62733"] {
        assert_owned(&pod.run(["get", "--dst", address]), &pod);
    }
    assert_owned(&pod.run(["get", "--v6only", "--dst", IPV6]), &pod);
}

#[test]
fn an_application_that_binds_everything_later_takes_nothing_away() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("greedy");
    let mut application = pod.spawn(["bind-all", "--from", "60000", "--to", "65535"]);
    let bound = application.line();
    // It misses the listeners' port, on both families, and those that they move to, and nothing
    // else.
    let taken = bound["failed"]["EADDRINUSE"].as_array().unwrap();
    assert_eq!(taken[..2], [json!("0.0.0.0:62723"), json!("[::]:62723")]);
    let others = bound["failed"].as_object().unwrap().len() - 1;
    assert!(taken.len() <= 2 * 17 && others == 0, "{bound}");
    for destination in [IPV4, IPV6, MAPPED] {
        assert_served_at(&pod, destination);
    }
}
