//! Pods whose own network does not let them reach their listener are left to the node path, as with
//! AWS's agent, for as long as that is so.

use podcreds_tests::{
    agent::{Agent, Metrics},
    eks_auth::EksAuth,
    needs_privileges,
    node::Node,
    pod::Pod,
    scenario::{ACCOUNT, ROLE, Scenario, wait_served},
    wait::until,
};

const IPV4: [&str; 2] = ["--dst", "169.254.170.23:80"];
const IPV6: [&str; 2] = ["--dst", "[fd00:ec2::23]:80"];

/// Drops what goes to `lo`, of one family or of both.
fn drop_loopback(family: &str) -> String {
    format!(
        "table {family} filter {{
           chain output {{
             type filter hook output priority 0
             oifname lo drop
           }}
         }}"
    )
}

/// Sends all connections to a proxy, whatever their destination, as no mesh should.
const CAPTURE_ALL: &str = "table inet mesh {
  chain output {
    type nat hook output priority -100
    meta l4proto tcp redirect to :15001
  }
}";

const REJECT: &str = "table inet filter {
  chain output {
    type filter hook output priority 0
    oifname lo meta l4proto tcp reject with tcp reset
  }
}";

fn scene() -> Scenario {
    Scenario::on_network("auto", [])
}

fn redirected(metrics: &Metrics) -> f64 {
    let connects = |outcome| metrics.sum("podcreds_kernel_connects_total", &[("outcome", outcome)]);
    connects("redirected_ipv4") + connects("redirected_ipv6")
}

fn on_node_path(metrics: &Metrics) -> f64 {
    metrics.sum(
        "podcreds_identity_decisions_total",
        &[("decision", "node_path")],
    )
}

/// Waits until what the pod asks, at either address, is redirected again.
fn wait_redirected(scene: &Scenario, pod: &Pod) {
    let before = redirected(&scene.agent.metrics());
    until("the pod is redirected", || {
        wait_served(pod, IPV4);
        redirected(&scene.agent.metrics()) > before
    });
    wait_served(pod, IPV6);
}

/// Starts a pod, and waits until it is redirected: its very first connects may come by the node
/// path.
fn redirected_pod(scene: &Scenario, name: &str) -> Pod {
    let pod = scene.served_pod(name);
    wait_redirected(scene, &pod);
    pod
}

fn unreachable(scene: &Scenario, wanted: f64) {
    scene
        .agent
        .wait_metric("podcreds_unreachable_listeners", &[], |found| {
            found == wanted
        });
}

#[test]
fn a_pod_without_a_loopback_is_served_on_the_node_path_until_it_has_one() {
    needs_privileges!();
    let scene = scene();
    let pod = scene.pod("web").loopback_down().start();
    scene
        .agent
        .wait_metric("podcreds_network_namespaces", &[], |count| count == 2.0);
    for family in [IPV4, IPV6] {
        wait_served(&pod, family);
    }
    let metrics = scene.agent.metrics();
    assert_eq!(redirected(&metrics), 0.0);
    assert!(on_node_path(&metrics) >= 2.0);
    pod.raise_loopback();
    wait_redirected(&scene, &pod);
    unreachable(&scene, 0.0);
}

#[test]
fn a_pod_that_loses_its_loopback_is_served_and_gains_no_others_credentials() {
    needs_privileges!();
    let scene = scene();
    let [pod, other] = ["web", "other"].map(|name| redirected_pod(&scene, name));
    for change in ["link set lo down", "address del 127.0.0.1/8 dev lo"] {
        pod.ip(change);
        for family in [IPV4, IPV6] {
            wait_served(&pod, family);
        }
        assert!(on_node_path(&scene.agent.metrics()) > 0.0, "{change}");
        // The token of a pod that is redirected is of no use there, also not to one that has cut
        // itself off.
        let stolen = other.token();
        let answer = pod.run(["get", "--token", &stolen]);
        assert_eq!(answer["status"], 503, "{change}: {answer}");
        if change.starts_with("link") {
            pod.ip("link set lo up");
            wait_redirected(&scene, &pod);
        }
    }
}

/// A container that starts is a good moment: those before it may have set packet filters up.
#[test]
fn a_packet_filter_is_noticed_when_the_next_container_starts() {
    needs_privileges!();
    let scene = scene();
    for (name, ruleset) in [
        ("drop", drop_loopback("inet")),
        ("reject", REJECT.to_owned()),
    ] {
        let pod = redirected_pod(&scene, name);
        pod.filter(&ruleset);
        pod.add_container();
        unreachable(&scene, 2.0);
        let before = on_node_path(&scene.agent.metrics());
        for family in [IPV4, IPV6] {
            wait_served(&pod, family);
        }
        assert!(
            on_node_path(&scene.agent.metrics()) >= before + 2.0,
            "{name}"
        );
        pod.filter("flush ruleset");
        pod.add_container();
        wait_redirected(&scene, &pod);
        unreachable(&scene, 0.0);
    }
}

#[test]
fn a_connection_that_a_proxy_takes_counts_as_missing() {
    needs_privileges!();
    let scene = scene();
    let pod = redirected_pod(&scene, "mesh");
    let mut proxy = pod.spawn(["bind-all", "--from", "15001", "--to", "15001"]);
    proxy.line();
    pod.filter(CAPTURE_ALL);
    pod.add_container();
    unreachable(&scene, 2.0);
    pod.filter("flush ruleset");
    // The agent tries again by itself.
    wait_redirected(&scene, &pod);
}

#[test]
fn a_packet_filter_is_noticed_by_what_does_not_arrive() {
    needs_privileges!();
    let scene = scene();
    let pod = redirected_pod(&scene, "web");
    until("it is noticed by what does not arrive", || {
        pod.filter(&drop_loopback("inet"));
        wait_served(&pod, IPV4);
        wait_served(&pod, IPV6);
        let missing = scene
            .agent
            .metrics()
            .sum("podcreds_missing_connections", &[]);
        if missing == 0.0 {
            // The last of the pod's addresses has come just now, and was reason enough to try.
            pod.filter("flush ruleset");
            wait_redirected(&scene, &pod);
        }
        missing > 0.0
    });
    let warned = scene.agent.logs().all().into_iter();
    let warned = warned.filter(|line| line.level == "WARN" && line.raw.contains(pod.uid()));
    assert_eq!(warned.count(), 1);
}

#[test]
fn where_only_ipv6_is_filtered_ipv4_serves_both() {
    needs_privileges!();
    let scene = scene();
    let pod = redirected_pod(&scene, "web");
    let before = on_node_path(&scene.agent.metrics());
    pod.filter(&drop_loopback("ip6"));
    pod.add_container();
    unreachable(&scene, 1.0);
    for family in [IPV4, IPV6] {
        wait_served(&pod, family);
    }
    assert_eq!(on_node_path(&scene.agent.metrics()), before);
}

#[test]
fn a_pod_that_was_filtered_before_the_agent_came_is_never_redirected() {
    needs_privileges!();
    let node = Node::with_network();
    let eks_auth = node.enter(EksAuth::start);
    eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
    let pod = node.pod("web").account(ACCOUNT.0, ACCOUNT.1).start();
    pod.filter(&drop_loopback("inet"));
    let agent = Agent::on(&node, &eks_auth)
        .set("--datapath", "auto")
        .start();
    for family in [IPV4, IPV6] {
        wait_served(&pod, family);
    }
    assert_eq!(redirected(&agent.metrics()), 0.0);
}
