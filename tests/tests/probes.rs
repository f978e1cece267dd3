//! How kubelet and Prometheus reach the right one of two agents that share the ports of a node.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use podcreds_tests::{
    agent::{Agent, AgentBuilder, Metrics},
    binary,
    eks_auth::EksAuth,
    http::client,
    wait::until,
};

/// Connections that are opened at once.
const FLOOD: usize = 200;
/// As long as kubelet waits.
const PATIENCE: Duration = Duration::from_secs(5);

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
fn the_new_agent_answers_on_the_ports_when_the_old_one_has_ended() {
    let eks_auth = EksAuth::start();
    let folder = tempfile::tempdir().unwrap();
    let sockets = ["old.sock", "new.sock"].map(|name| folder.path().join(name));
    let mut old = agent(&eks_auth, &sockets[0]).start();
    let (metrics, probes) = (old.metrics_address(), old.probe_address());
    // Its counter of refusals tells it from the new one.
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
        assert_eq!(refusals(metrics), Some(1.0), "the old agent answers");
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

/// Opens many connections, which send this and then nothing.
fn flood(address: SocketAddr, said: &str) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        // The agent may have ended it already.
        let _said = stream.write_all(said.as_bytes());
        stream
    };
    (0..FLOOD).map(connect).collect()
}

#[test]
fn kubelet_and_prometheus_are_answered_however_many_others_connect() {
    let eks_auth = EksAuth::start();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let agent = agent(&eks_auth, &socket).start();
    let (metrics, probes) = (agent.metrics_address(), agent.probe_address());
    let before = agent.usage();
    for said in [
        "",
        "GET /healthz HTTP/1.1\r\nHost: ",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let held = [metrics, probes].map(|address| flood(address, said));
        for (address, path) in [
            (metrics, "/metrics"),
            (probes, "/healthz"),
            (probes, "/readyz"),
        ] {
            let start = Instant::now();
            let answer = client::get(address, path).unwrap();
            assert_eq!(answer.status, 200, "{said:?} {path}");
            let took = start.elapsed();
            assert!(took < PATIENCE, "{said:?} {path}: {took:?}");
            println!("{FLOOD} clients with {said:?}: {path} after {took:?}");
        }
        assert!(probe(&socket, &["/healthz"]).status.success());
        drop(held);
    }
    let after = agent.usage();
    let grown = after.resident.saturating_sub(before.resident) >> 10;
    println!("grown by {grown} KiB, {} descriptors", after.descriptors);
    assert!(grown < 16 << 10, "{grown} KiB");
}

#[test]
fn a_probe_of_an_unknown_path_fails() {
    let eks_auth = EksAuth::start();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let _agent = agent(&eks_auth, &socket).start();
    let nowhere = probe(&socket, &["/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(1));
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert!(said.contains("/readyz"), "{said}");
}
