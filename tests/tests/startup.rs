//! What keeps the agent from starting, and how it reports that: by its exit code and its last line.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::Command,
};

use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    aws::NodeCredentials,
    binary,
    eks_auth::EksAuth,
    imds::Imds,
    needs_privileges,
    node::Node,
    pod::cgroup,
    token::{BoundObject, Claims},
    wire,
};

// From sysexits.h.
const USAGE: Option<i32> = Some(64);
const UNAVAILABLE: Option<i32> = Some(69);
const NO_PERMISSION: Option<i32> = Some(77);

/// Checks that an agent ends with this code, and returns all that it has said.
#[track_caller]
fn assert_fails(agent: AgentBuilder, code: Option<i32>) -> String {
    let mut agent = agent.spawn();
    let status = agent.wait_exit();
    let lines = agent.logs().to_the_end().into_iter();
    let said = lines.map(|line| line.raw).collect::<Vec<_>>().join("\n");
    assert_eq!(status.code(), code, "{said}");
    said
}

#[test]
fn an_invalid_value_is_reported_with_its_flag() {
    let eks_auth = EksAuth::start();
    for (flag, value) in [
        ("--cluster-name", "not/a/name"),
        ("--cluster-name", ""),
        ("--endpoint", "eks-auth.example"),
        ("--metrics-port", "70000"),
        ("--metrics-address", "localhost"),
        ("--probe-port", "http"),
        ("--identity", "maybe"),
        ("--delegate", "no-namespace"),
        ("--max-connections-per-pod", "0"),
        ("--bind-hosts", "127.0.0.1,nowhere"),
        ("--verbosity", "loud"),
        ("--no-such-flag", "1"),
    ] {
        let said = assert_fails(Agent::on_loopback(&eks_auth).set(flag, value), USAGE);
        assert!(said.contains(flag), "{flag} {value:?}: {said}");
    }
}

#[test]
fn a_port_that_is_taken_is_reported_with_its_flag() {
    let eks_auth = EksAuth::start();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (flag, named) in [
        ("--metrics-port", "--metrics-port"),
        ("--probe-port", "--probe-port"),
        ("--port", "--bind-hosts"),
    ] {
        let said = assert_fails(Agent::on_loopback(&eks_auth).set(flag, &port), USAGE);
        assert!(said.contains(named) && said.contains(&port), "{said}");
    }
}

/// No flag names the default ports, so the agent starts without them and takes them when they are
/// free.
#[test]
fn a_default_port_that_is_taken_keeps_no_agent_from_starting() {
    needs_privileges!();
    let node = Node::with_network();
    let eks_auth = node.enter(EksAuth::start);
    let taken = node.enter(|| {
        let taken = |ip, port| TcpListener::bind((ip, port)).unwrap();
        [
            taken(Ipv4Addr::UNSPECIFIED, 2705),
            taken(Ipv4Addr::LOCALHOST, 2703),
        ]
    });
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let agent = || {
        Agent::on(&node, &eks_auth)
            .unset("--metrics-address")
            .unset("--metrics-port")
            .unset("--probe-port")
    };
    let running = agent()
        .set("--probe-socket", socket.to_str().unwrap())
        .start();
    let ready = || {
        let mut probe = Command::new(binary::podcreds());
        let answer = probe.arg("probe").arg("--socket").arg(&socket).output();
        String::from_utf8(answer.unwrap().stdout).unwrap()
    };
    let said = ready();
    for port in ["2705", "2703"] {
        let missing = said.lines().find(|line| line.contains(port));
        assert!(missing.unwrap().starts_with("without a "), "{said}");
    }
    drop(taken);
    assert_eq!(running.probe("/healthz"), 200);
    running.wait_metric("podcreds_build_info", &[], |it| it == 1.0);
    assert_eq!(ready(), "ok\n");
    drop(running);

    let _taken = node.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 2705)).unwrap());
    let said = assert_fails(agent().set("--metrics-port", "2705"), USAGE);
    assert!(said.contains("--metrics-port"), "{said}");
}

#[test]
fn a_missing_cluster_name_is_reported() {
    for command in [&["server"][..], &["server", "--port", "80"]] {
        let output = Command::new(binary::podcreds()).args(command).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), USAGE);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("--cluster-name <NAME>"), "{said}");
    }
}

#[test]
fn addresses_that_the_host_does_not_have_are_reported() {
    let eks_auth = EksAuth::start();
    // For documentation: no host has them.
    let agent = Agent::on_loopback(&eks_auth).set("--bind-hosts", "192.0.2.1,2001:db8::1");
    let said = assert_fails(agent, USAGE);
    assert_eq!(said.matches("\"ERROR\"").count(), 1, "{said}");
    for part in [
        "192.0.2.1:",
        "[2001:db8::1]:",
        "--bind-hosts",
        "podcreds initialize",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_port_that_needs_a_capability_is_reported() {
    needs_privileges!();
    let node = Node::with_network();
    let eks_auth = node.enter(EksAuth::start);
    let agent = Agent::on(&node, &eks_auth).set("--datapath", "node");
    let agent = agent.through(["setpriv", "--bounding-set", "-net_bind_service"]);
    let said = assert_fails(agent, NO_PERMISSION);
    assert!(said.contains("CAP_NET_BIND_SERVICE"), "{said}");
}

#[test]
fn rotating_credentials_without_a_file_is_refused() {
    let eks_auth = EksAuth::start();
    let agent = Agent::on_loopback(&eks_auth).args(["--rotate-credentials"]);
    let said = assert_fails(agent, USAGE);
    let told =
        said.contains("--rotate-credentials") && said.contains("AWS_SHARED_CREDENTIALS_FILE");
    assert!(told, "{said}");
}

#[test]
fn a_cgroup_root_that_is_none_is_refused() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    for path in ["/proc", "/no/such/folder"] {
        let agent = Agent::on(&node, &eks_auth).set("--cgroup-root", path);
        let said = assert_fails(agent, USAGE);
        let told = said.contains("--cgroup-root") && said.contains(path);
        assert!(told, "{said}");
    }
}

#[test]
fn missing_capabilities_are_named() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let all = [
        "CAP_BPF",
        "CAP_NET_ADMIN",
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
    ];
    let without = |set: &str| {
        let agent = Agent::on(&node, &eks_auth).through(["setpriv", "--bounding-set", set]);
        let said = assert_fails(agent, NO_PERMISSION);
        assert!(said.contains("--datapath node"), "no way out: {said}");
        all.map(|name| said.contains(name))
    };
    assert_eq!(without("-all"), [true; 4]);
    assert_eq!(without("-bpf"), [true, false, false, false]);
    assert_eq!(without("-sys_admin"), [false, false, true, false]);
}

#[test]
fn a_user_namespace_is_not_enough() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let agent = Agent::on(&node, &eks_auth).through(["unshare", "--user", "--map-root-user"]);
    let said = assert_fails(agent, NO_PERMISSION);
    assert!(said.contains("CAP_BPF"), "{said}");
}

#[test]
fn a_missing_cgroup2_hierarchy_is_reported() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let mount = cgroup::mount_point().unwrap();
    let unmount = format!("umount --lazy {} && exec \"$@\"", mount.display());
    let agent = Agent::on(&node, &eks_auth);
    let agent = agent.through(["unshare", "--mount", "sh", "-c", &unmount, "sh"]);
    let said = assert_fails(agent, UNAVAILABLE);
    assert!(said.contains("no cgroup2 hierarchy"), "{said}");
}

#[test]
fn missing_certificate_authorities_are_reported() {
    let eks_auth = EksAuth::start();
    let agent = Agent::on_loopback(&eks_auth)
        .env("SSL_CERT_FILE", "/no/such/bundle")
        .env("SSL_CERT_DIR", "/no/such/folder");
    let said = assert_fails(agent, UNAVAILABLE);
    assert!(said.contains("SSL_CERT_FILE"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_region_that_is_missing_or_none_is_reported() {
    let eks_auth = EksAuth::start();
    let agent = || Agent::on_loopback(&eks_auth).env_remove("AWS_REGION");
    let empty = || agent().env("AWS_REGION", "");
    let odd = || agent().env("AWS_REGION", "eu-central-1 ");
    for agent in [agent(), empty(), odd()] {
        let said = assert_fails(agent, USAGE);
        assert!(said.contains("AWS_REGION"), "{said}");
    }
}

/// The region and the credentials come from IMDS, with which EKS Auth's signature is checked.
#[test]
fn the_nodes_region_and_credentials_come_from_imds() {
    let eks_auth = EksAuth::start();
    let signer = NodeCredentials::named("imds");
    let imds = Imds::start(signer.clone());
    eks_auth.accept_signer(&signer);
    eks_auth.associate("shop", "reader", "shop-reader");
    let agent = Agent::on_loopback(&eks_auth).node_from(&imds);
    // As where a variable of an installation's was empty.
    let agent = agent.env("AWS_REGION", "").start();
    let paths = imds.paths().join(" ");
    assert!(paths.contains("/placement/region"), "{paths}");

    let claims = Claims::new("shop", "reader", BoundObject::new("reader-0"));
    let token = eks_auth.issuer().sign(&claims);
    let answer = wire::ask_at(agent.node_path_address(), &token);
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(eks_auth.calls()[0].signer, signer.access_key_id);
}
