//! How pods reach the agent: redirected, at addresses of the host, or both; and what it does where
//! eBPF cannot be had.

use std::net::{Ipv4Addr, TcpListener};

use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    eks_auth::EksAuth,
    http::client,
    needs_privileges,
    node::Node,
    pod::cgroup,
    scenario::{ACCOUNT, ROLE, assert_owned, wait_served},
    token::{BoundObject, Claims},
    wire,
};

/// An agent that takes both roads where it can, with the node path on loopback.
fn auto(node: &Node, eks_auth: &EksAuth) -> AgentBuilder {
    eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
    let loopback = ["--bind-hosts", "127.0.0.1", "--port", "0"];
    Agent::on(node, eks_auth)
        .set("--datapath", "auto")
        .args(loopback)
}

/// Starts it without a capability that eBPF needs.
fn degraded(agent: AgentBuilder) -> AgentBuilder {
    agent.through(["setpriv", "--bounding-set", "-bpf"])
}

fn paths(agent: &Agent) -> (f64, f64) {
    let metrics = agent.metrics();
    let path = |path| metrics.sum("podcreds_paths", &[("path", path)]);
    (path("ebpf"), path("node"))
}

#[test]
fn auto_serves_on_both_paths() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let agent = auto(&node, &eks_auth).start();
    assert_eq!(paths(&agent), (1.0, 1.0));
    let pod = node.pod("web").account(ACCOUNT.0, ACCOUNT.1).start();
    wait_served(&pod, []);
    // From no pod, with nothing but the token.
    let outside = Claims::new(ACCOUNT.0, ACCOUNT.1, BoundObject::new("outside"));
    let token = eks_auth.issuer().sign(&outside);
    let answer = wire::ask_at(agent.node_path_address(), &token);
    assert_eq!(answer["status"], 200, "{answer}");
    let readiness = client::get(agent.probe_address(), "/readyz").unwrap();
    assert_eq!((readiness.status, &*readiness.body), (200, "ok\n"));
}

#[test]
fn auto_without_cgroup2_serves_on_the_node_path() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let mount = cgroup::mount_point().unwrap();
    let unmount = format!("umount --lazy {} && exec \"$@\"", mount.display());
    let agent = auto(&node, &eks_auth);
    let agent = agent.through(["unshare", "--mount", "sh", "-c", &unmount, "sh"]);
    let agent = agent.start();
    assert_eq!(paths(&agent), (0.0, 1.0));
    let readiness = client::get(agent.probe_address(), "/readyz").unwrap();
    assert!(readiness.body.contains("no cgroup2"), "{}", readiness.body);
}

#[test]
fn auto_without_ebpf_serves_on_the_node_path_and_says_so() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let agent = degraded(auto(&node, &eks_auth)).start();
    assert_eq!(paths(&agent), (0.0, 1.0));
    let lines = agent.logs().all();
    let said = lines.iter().filter(|line| line.level == "WARN");
    let said: Vec<_> = said.map(|line| line.raw.as_str()).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("eBPF cannot be had") && said[0].contains("CAP_BPF"));
    let readiness = client::get(agent.probe_address(), "/readyz").unwrap();
    assert_eq!(readiness.status, 200);
    let told = readiness.body.starts_with("ok\nwithout eBPF") && readiness.body.contains("CAP_BPF");
    assert!(told, "{}", readiness.body);

    let pod = node.pod("web").account(ACCOUNT.0, ACCOUNT.1);
    let pod = pod.host_network().start();
    let at = agent.node_path_address().to_string();
    assert_owned(&pod.run(["get", "--dst", &at]), &pod);
}

#[test]
fn auto_without_any_path_ends_and_names_both() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    // An address for documentation: no host has it.
    let agent = degraded(auto(&node, &eks_auth)).set("--bind-hosts", "192.0.2.1");
    let mut agent = agent.spawn();
    assert_eq!(agent.wait_exit().code(), Some(77));
    let last = agent.logs().to_the_end().pop().unwrap().message;
    for part in [
        "CAP_BPF",
        "192.0.2.1",
        "--bind-hosts",
        "podcreds initialize",
    ] {
        assert!(last.contains(part), "{part}: {last}");
    }
}

/// As on a node whose link has no address yet, or whose port 80 is another program's.
#[test]
fn with_ebpf_the_host_addresses_may_come_later() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = other.local_addr().unwrap();
    let hosts = "192.0.2.1,127.0.0.1";
    let agent = auto(&node, &eks_auth)
        .set("--bind-hosts", hosts)
        .set("--port", &taken.port().to_string())
        .start();
    let trouble = "node path: cannot listen; trying again";
    assert_eq!(agent.logs().with_message(trouble).len(), 2);
    assert_eq!(paths(&agent), (1.0, 0.0));
    drop(other);
    agent.wait_metric("podcreds_paths", &[("path", "node")], |open| open == 1.0);
    assert_eq!(agent.node_path_address(), taken);
    assert_eq!(agent.logs().with_message(trouble).len(), 2, "said again");
}

#[test]
fn without_ebpf_one_address_is_enough() {
    let eks_auth = EksAuth::start();
    let agent = Agent::on_loopback(&eks_auth).set("--bind-hosts", "127.0.0.1,2001:db8::1");
    let agent = agent.start();
    assert_eq!(paths(&agent), (0.0, 1.0));
    let trouble = agent
        .logs()
        .with_message("node path: cannot listen; trying again");
    assert_eq!(trouble.len(), 1);
    assert_eq!(trouble[0].level, "WARN");
}
