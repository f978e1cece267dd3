//! Whatever a client has set on its socket, it is served where AWS's agent serves it, and known.

use podcreds_tests::{
    agent::{Agent, LISTENERS},
    needs_privileges,
    scenario::{Scenario, assert_owned},
    wait::until,
};

const IPV4: &str = "169.254.170.23:80";
const IPV6: &str = "[fd00:ec2::23]:80";

/// The address of the first pod of a node with a network.
const POD_IP: &str = "10.23.1.2";

fn connects(agent: &Agent, outcome: &str) -> f64 {
    let labels = [("outcome", outcome)];
    agent
        .metrics()
        .sum("podcreds_kernel_connects_total", &labels)
}

#[test]
fn a_socket_that_is_bound_to_an_address_is_served() {
    needs_privileges!();
    let scene = Scenario::on_network("ebpf", []);
    let pod = scene.served_pod("web");
    for address in [POD_IP, "127.0.0.1", "127.1.2.3"] {
        let bound = pod.run(["get", "--bind", address]);
        assert_owned(&bound, &pod);
        assert_eq!(bound["peer"], IPV4, "{bound}");
        let local = bound["local"].as_str().unwrap_or_default();
        assert!(local.starts_with(&format!("{address}:")), "{bound}");
    }
}

#[test]
fn a_socket_that_is_bound_to_the_loopback_device_is_served_and_known() {
    needs_privileges!();
    let scene = Scenario::start();
    let (pod, other) = (scene.served_pod("web"), scene.served_pod("other"));
    for destination in [IPV4, IPV6, LISTENERS[0]] {
        let on_lo = ["get", "--device", "lo", "--dst", destination];
        let answer = pod.run(on_lo);
        assert_owned(&answer, &pod);
        assert_eq!(answer["peer"], destination, "{answer}");
        let stolen = other.token();
        let answer = pod.run(on_lo.into_iter().chain(["--token", &stolen]));
        assert_eq!(answer["body"]["code"], "TokenOfAnotherPod", "{answer}");
    }
}

#[test]
fn a_socket_that_is_bound_to_another_device_is_left_alone() {
    needs_privileges!();
    let scene = Scenario::on_network("ebpf", []);
    let pod = scene.served_pod("web");
    let before = connects(&scene.agent, "bound_to_device");
    let answer = pod.run(["get", "--device", "eth0"]);
    assert_eq!(answer["error"], "ECONNREFUSED", "{answer}");
    assert_eq!(connects(&scene.agent, "bound_to_device"), before + 1.0);
}

#[test]
fn a_socket_that_is_bound_to_another_device_is_served_on_the_node_path() {
    needs_privileges!();
    let scene = Scenario::on_network("auto", []);
    let [pod, thief] = ["web", "thief"].map(|name| scene.redirected_pod(name));
    let on_eth0 = ["get", "--device", "eth0", "--timeout-ms", "2000"];
    until("the pod is served without a redirect", || {
        let answer = pod.run(on_eth0);
        assert!(
            answer["status"] == 200 || answer["status"] == 503,
            "{answer}"
        );
        if answer["status"] == 200 {
            assert_owned(&answer, &pod);
        }
        answer["status"] == 200
    });
    let stolen = pod.token();
    for _ in 0..3 {
        let answer = thief.run(on_eth0.into_iter().chain(["--token", &stolen]));
        assert_eq!(answer["body"]["code"], "Detour", "{answer}");
    }
}

#[test]
fn a_socket_without_memory_for_the_callers_record_is_redirected_all_the_same() {
    needs_privileges!();
    let scene = Scenario::on_network("auto", []);
    let pod = scene.redirected_pod("web");
    for destination in [IPV4, IPV6] {
        let answer = pod.run(["get", "--fill", "--dst", destination]);
        assert_eq!(answer["body"]["code"], "CallerNotRecorded", "{answer}");
    }
    assert_owned(&pod.run(["get"]), &pod);
}

#[test]
fn fast_open_is_served() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    for destination in [IPV4, IPV6] {
        let answer = pod.run(["get", "--fast-open", "--dst", destination]);
        assert_owned(&answer, &pod);
    }
}
