//! What the agent may do: just what `docs/security.md` says, and each of it is needed.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a helper of tests fails the test"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use nix::libc;
use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    aws::NodeCredentials,
    eks_auth::EksAuth,
    jwks::Jwks,
    needs_privileges,
    node::Node,
    pod::Pod,
    program,
    scenario::{assert_owned, wait_served},
    token::{BoundObject, Claims, Issuer, new_uid},
    wait::until,
    wire,
};
use procfs::process::Process;
use serde_json::json;

const DOCUMENT: &str = include_str!("../../docs/security.md");

const NO_PERMISSION: Option<i32> = Some(77);

/// The capabilities in the table below a heading, row by row: those in the first column and those
/// behind it.
fn table(heading: &str) -> Vec<(String, BTreeSet<String>)> {
    let (_, section) = DOCUMENT.split_once(heading).expect("the heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let (first, rest) = row.trim_matches('|').split_once('|').expect("two columns");
        (first.trim().to_owned(), capabilities_in(rest))
    })
    .collect()
}

fn capabilities_in(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|name| name.starts_with("CAP_"))
        .map(str::to_owned)
        .collect()
}

/// All that the document lets it have.
fn documented() -> Vec<String> {
    let rows = table("## Capabilities");
    rows.iter()
        .flat_map(|(capability, _)| capabilities_in(capability))
        .collect()
}

/// The agent with the documented capabilities, but for one.
fn confined(agent: AgentBuilder, without: &str) -> AgentBuilder {
    let names = documented()
        .into_iter()
        .filter(|name| name != without)
        .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    let set = format!("-all{}", names.collect::<String>());
    agent.through(["setpriv", "--bounding-set", &set])
}

/// The names of the capabilities that each thread can use, by the thread's name.
fn held_by_threads(agent: &Agent) -> BTreeMap<String, BTreeSet<String>> {
    let tasks = format!("/proc/{}/task", agent.id());
    fs::read_dir(tasks)
        .unwrap()
        .filter_map(|task| {
            let id = task.unwrap().file_name().into_string().unwrap();
            // One may end meanwhile.
            let status = Process::new(id.parse().unwrap()).ok()?.status().ok()?;
            assert_eq!(status.capeff, status.capprm, "{}", status.name);
            Some((status.name, names(status.capeff)))
        })
        .collect()
}

/// By their numbers in linux/capability.h.
fn names(set: u64) -> BTreeSet<String> {
    let known = [
        (2, "CAP_DAC_READ_SEARCH"),
        (10, "CAP_NET_BIND_SERVICE"),
        (12, "CAP_NET_ADMIN"),
        (19, "CAP_SYS_PTRACE"),
        (21, "CAP_SYS_ADMIN"),
        (39, "CAP_BPF"),
    ];
    let unknown = known.iter().fold(set, |rest, (bit, _)| rest & !(1 << bit));
    assert_eq!(unknown, 0, "undocumented capabilities: {unknown:x}");
    let held = known.iter().filter(|(bit, _)| set & 1 << bit != 0);
    held.map(|(_, name)| (*name).to_owned()).collect()
}

/// Kubelet's folder with the token of a pod of `kube-system/driver`, which belongs to the user that
/// it runs as.
struct Delegate {
    kubelet: tempfile::TempDir,
    jwks: Jwks,
    uid: String,
}

impl Delegate {
    /// The stand-in then gives the other pods a role.
    fn mount(eks_auth: &EksAuth) -> Self {
        eks_auth.associate("default", "default", "default-role");
        let (kubelet, uid) = (tempfile::tempdir().unwrap(), new_uid());
        let pod = BoundObject {
            name: "driver".to_owned(),
            uid: uid.clone(),
        };
        let claims = Claims::new("kube-system", "driver", pod).audience("kubernetes");
        let volume = format!("pods/{uid}/volumes/kubernetes.io~projected/api/..data");
        let data = kubelet.path().join(volume);
        fs::create_dir_all(&data).unwrap();
        let token = data.join("token");
        fs::write(&token, Issuer::cluster().sign(&claims)).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&token, Some(1000), Some(1000)).unwrap();
        let jwks = Jwks::start(&Issuer::cluster());
        Self { kubelet, jwks, uid }
    }

    fn allow(&self, agent: AgentBuilder) -> AgentBuilder {
        agent
            .set("--delegate", "kube-system/driver")
            .set("--kubelet-root", &self.kubelet.path().display().to_string())
            .set("--jwks-url", &self.jwks.url())
    }

    fn start(&self, node: &Node) -> Pod {
        node.pod("driver").uid(&self.uid).start()
    }
}

#[test]
fn the_documented_capabilities_are_enough() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let delegate = Delegate::mount(&eks_auth);
    let agent = Agent::on(&node, &eks_auth).set("--datapath", "auto").args([
        "--bind-hosts",
        "127.0.0.80",
        "--port",
        "80",
    ]);
    let agent = confined(delegate.allow(agent), "none of them").start();
    let victim = node.pod("victim").start();
    wait_served(&victim, []);
    let driver = delegate.start(&node);
    until("the driver is known as a delegate", || {
        let stolen = driver.run(["get", "--token", &victim.token()]);
        stolen["status"] == 200
    });
    until("the node path listens", || {
        agent.metrics().sum("podcreds_paths", &[("path", "node")]) == 1.0
    });
}

/// After its start too: a port below 1024 that comes late, and the agent that comes next.
#[test]
fn the_documented_capabilities_are_enough_to_the_end() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate("default", "default", "default-role");
    // As kubelet makes it where a pod mounts it.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let start = || {
        let agent = Agent::on(&node, &eks_auth)
            .set("--datapath", "auto")
            .set("--bind-hosts", "127.0.0.83")
            .set("--port", "80")
            .set("--handover-dir", folder.path().to_str().unwrap());
        confined(agent, "none of them").start()
    };
    let listens = |agent: &Agent| {
        agent.wait_metric("podcreds_paths", &[("path", "node")], |open| open == 1.0);
    };
    let other = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 83), 80)).unwrap();
    let mut agent = start();
    drop(other);
    listens(&agent);
    let pod = node.pod("web").start();
    wait_served(&pod, []);

    let next = start();
    listens(&next);
    assert!(agent.terminate().success());
    next.wait_metric("podcreds_handover_role", &[("role", "leader")], |it| {
        it == 1.0
    });
    assert_owned(&pod.run(["get"]), &pod);
    let late = node.pod("late").start();
    wait_served(&late, []);
    assert_eq!(eks_auth.call_count(), 2);
}

#[test]
fn each_documented_capability_is_needed() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    for name in documented() {
        if name == "CAP_DAC_READ_SEARCH" {
            continue;
        }
        let agent = match name.as_str() {
            "CAP_NET_BIND_SERVICE" => Agent::on_loopback(&eks_auth)
                .set("--bind-hosts", "127.0.0.81")
                .set("--port", "80"),
            _ => Agent::on(&node, &eks_auth),
        };
        let mut agent = confined(agent, &name).spawn();
        let status = agent.wait_exit();
        let lines = agent.logs().to_the_end();
        let said: String = lines.into_iter().map(|line| line.raw).collect();
        assert_eq!(status.code(), NO_PERMISSION, "without {name}: {said}");
        assert!(said.contains(&name), "without {name}: {said}");
    }
}

/// The token is another user's, so that being root does not help.
#[test]
fn without_dac_read_search_a_delegate_stays_unknown() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let delegate = Delegate::mount(&eks_auth);
    let agent = delegate.allow(Agent::on(&node, &eks_auth));
    let agent = confined(agent, "CAP_DAC_READ_SEARCH").start();
    let victim = node.pod("victim").start();
    wait_served(&victim, []);
    let driver = delegate.start(&node);
    wait_served(&driver, []);
    let stolen = driver.run(["get", "--token", &victim.token()]);
    assert_eq!(stolen["status"], 503, "{stolen}");
    let mut said = String::new();
    until("the pod is told what is missing", || {
        let answer = driver.run(["get", "--token", &victim.token()]);
        assert_eq!(answer["status"], 503, "{answer}");
        said = answer["body"].to_string();
        said.contains("CAP_DAC_READ_SEARCH")
    });
    drop(agent);
}

#[test]
fn each_thread_keeps_its_own_part() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let delegate = Delegate::mount(&eks_auth);
    let agent = Agent::on(&node, &eks_auth).set("--datapath", "auto").args([
        "--bind-hosts",
        "127.0.0.82",
        "--port",
        "80",
    ]);
    let agent = delegate.allow(agent).start();
    // A visitor of the host's namespace, from before the agent gave up anything, may not be quite
    // gone.
    until("the first visitors are gone", || {
        !held_by_threads(&agent).contains_key("netns")
    });
    let mut threads = held_by_threads(&agent);
    // The main thread has the program's name.
    let serving = threads.remove("podcreds").expect("the main thread");
    let rows = table("## What each thread keeps");
    let expected = |thread: &str| {
        let row = rows.iter().find(|(name, _)| name.contains(thread));
        &row.expect("a row of the table").1
    };
    assert_eq!(&serving, expected("serving"));
    assert!(threads.contains_key("control") && threads.contains_key("datapath"));
    for (thread, held) in &threads {
        assert_eq!(held, expected(thread), "{thread}");
    }
}

#[test]
fn without_ebpf_no_thread_keeps_what_that_needs() {
    needs_privileges!();
    let eks_auth = EksAuth::start();
    let agent = Agent::on_loopback(&eks_auth).start();
    let allowed = BTreeSet::from(["CAP_NET_BIND_SERVICE".to_owned()]);
    for (thread, held) in held_by_threads(&agent) {
        assert!(held.is_subset(&allowed), "{thread}: {held:?}");
    }
}

#[test]
fn the_agent_refuses_itself_system_calls_that_it_never_needs() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let agent = Agent::on(&node, &eks_auth).start();
    let status = Process::new(agent.id().cast_signed()).and_then(|process| process.status());
    let status = status.unwrap();
    assert_eq!(status.nonewprivs, Some(1));
    assert_eq!(status.seccomp, Some(2));
    assert_eq!(
        names(status.capinh).len() + names(status.capamb.unwrap()).len(),
        0
    );
}

/// Makes system calls in ways that are seldom used, and prints what the kernel says to each.
const CALLS: &str = r#"
my ($clone, $clone3, $ptrace) = @ARGV;
sub try { my $result = syscall($_[0], $_[1], 0, 0, 0, 0); exit if $result == 0; print $! + 0, "\n" }
try($clone, 0x10000011);
try($clone3, 0);
try(0x40000000 | $ptrace, 0);
"#;

/// The only program that it runs.
#[test]
fn a_credential_process_may_do_no_more_than_the_agent() {
    needs_privileges!();
    let eks_auth = EksAuth::start();
    eks_auth.associate("default", "default", "default-role");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let signer = NodeCredentials::default();
    let numbers = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_ptrace].map(|it| it.to_string());
    let answer = json!({
        "Version": 1,
        "AccessKeyId": signer.access_key_id,
        "SecretAccessKey": signer.secret_access_key,
        "SessionToken": signer.session_token,
    });
    let program = format!(
        "#!/bin/sh\nperl {} {} > {}\ncat /proc/self/status > {}\necho '{answer}'\n",
        at("calls.pl"),
        numbers.join(" "),
        at("said"),
        at("status"),
    );
    fs::write(at("calls.pl"), CALLS).unwrap();
    program::write(Path::new(&at("program")), program);
    let config = format!("[default]\ncredential_process = {}\n", at("program"));
    fs::write(at("config"), config).unwrap();
    let agent = Agent::on_loopback(&eks_auth).env("AWS_CONFIG_FILE", &at("config"));
    let agent = signer
        .env()
        .into_keys()
        .fold(agent, AgentBuilder::env_remove)
        .start();

    let pod = BoundObject::new("web");
    let token = eks_auth
        .issuer()
        .sign(&Claims::new("default", "default", pod));
    let got = wire::ask_at(agent.node_path_address(), &token);
    assert_eq!(got["status"], 200, "{got}");
    assert_eq!(eks_auth.calls()[0].signer, signer.access_key_id);
    let refused = [libc::EPERM, libc::ENOSYS, libc::ENOSYS];
    let refused = refused.map(|error| format!("{error}\n")).concat();
    assert_eq!(fs::read_to_string(at("said")).unwrap(), refused);
    let status = fs::read_to_string(at("status")).unwrap();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    };
    assert_eq!((number("NoNewPrivs:"), number("Seccomp:")), (1, 2));
    assert_eq!(number("CapPrm:"), 0, "it was root's");
}
