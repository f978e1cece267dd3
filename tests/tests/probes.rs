//! How kubelet and Prometheus reach the right one of two agents that share a node's ports.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
};

use podcreds_tests::{
    agent::{Agent, AgentBuilder, Metrics},
    binary,
    eks_auth::EksAuth,
    http::client,
    wait::until,
};

fn agent(eks_auth: &EksAuth, socket: &Path) -> AgentBuilder {
    Agent::on_loopback(eks_auth).args(["--probe-socket", socket.to_str().unwrap()])
}

fn probe(socket: &Path, arguments: &[&str]) -> Output {
    let mut probe = Command::new(binary::podcreds());
    probe.arg("probe").arg("--socket").arg(socket);
    probe.args(arguments).output().unwrap()
}

/// How many requests the agent that answers here has turned away.
fn refusals(metrics: SocketAddr) -> Option<f64> {
    let answer = client::get(metrics, "/metrics").ok()?;
    Some(Metrics::parse(&answer.body).sum("podcreds_refusals_total", &[]))
}

#[test]
fn two_agents_answer_on_the_ports_one_after_the_other() {
    let eks_auth = EksAuth::start();
    let folder = tempfile::tempdir().unwrap();
    let sockets = ["old.sock", "new.sock"].map(|name| folder.path().join(name));
    let mut old = agent(&eks_auth, &sockets[0]).start();
    let (metrics, probes) = (old.metrics_address(), old.probe_address());
    // So that it is told from the new one.
    let refused = client::get(old.node_path_address(), "/").unwrap();
    assert_ne!(refused.status, 200);

    let new = agent(&eks_auth, &sockets[1])
        .set("--metrics-port", &metrics.port().to_string())
        .set("--probe-port", &probes.port().to_string())
        .start();
    for socket in &sockets {
        let answer = probe(socket, &[]);
        assert!(answer.status.success(), "{answer:?}");
        assert_eq!(answer.stdout, b"ok\n");
    }
    for _ in 0..20 {
        assert_eq!(refusals(metrics), Some(1.0), "the new agent answers");
    }

    old.terminate();
    until("the new agent answers", || refusals(metrics) == Some(0.0));
    assert_eq!(
        (new.metrics_address(), new.probe_address()),
        (metrics, probes)
    );
    assert_eq!(new.probe("/readyz"), 200);
    let [gone, here] = sockets.map(|socket| probe(&socket, &["/healthz"]));
    assert_eq!(gone.status.code(), Some(1));
    let said = String::from_utf8(gone.stderr).unwrap();
    assert!(said.contains("old.sock"), "{said}");
    assert!(here.status.success(), "{here:?}");
}

#[test]
fn a_question_that_the_agent_does_not_know_is_refused() {
    let eks_auth = EksAuth::start();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let _agent = agent(&eks_auth, &socket).start();
    let nowhere = probe(&socket, &["/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(1));
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert!(said.contains("/readyz"), "{said}");
}
