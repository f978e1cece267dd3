//! Simulated pods: what they are made of is there, and gone afterwards.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{fs, os::unix::fs::MetadataExt, panic, path::Path};

use podcreds_tests::{
    needs_privileges,
    node::Node,
    pod::{Client, Driver, Join, Pod, Qos, cgroup},
    token::Issuer,
};
use serde_json::Value;

/// What a shell says in a pod.
fn shell(pod: &Pod, script: &str) -> String {
    output(pod.command("sh").args(["-c", script]))
}

fn output(command: &mut std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A process' cgroup, as a folder.
fn cgroup_in_unified(proc_cgroup: &str) -> std::path::PathBuf {
    let line = proc_cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap();
    cgroup::mount_point().unwrap().join(line)
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn a_pod_has_its_own_cgroup_and_network_and_leaves_nothing() {
    needs_privileges!();
    let node = Node::new();
    let pod = node.pod("web").account("shop", "reader").start();
    let own = shell(&pod, "cat /proc/self/cgroup");
    assert_eq!(cgroup_in_unified(&own), pod.app_cgroup());
    assert!(pod.app_cgroup().starts_with(pod.cgroup()));
    let network: u64 = shell(&pod, "stat -L -c %i /proc/self/ns/net")
        .parse()
        .unwrap();
    assert_eq!(network, inode(&pod.network()));
    assert_ne!(network, inode(Path::new("/proc/self/ns/net")));
    assert_eq!(
        shell(
            &pod,
            "cat /sys/class/net/lo/flags >/dev/null; ip -br link | cut -d' ' -f1"
        ),
        "lo"
    );
    let claims = Issuer::cluster().verify(&pod.token()).unwrap();
    assert_eq!(claims.pod_uid(), pod.uid());
    assert_eq!(claims.sub, "system:serviceaccount:shop:reader");

    let (pause, folder, root) = (
        pod.pause_pid(),
        pod.cgroup().to_owned(),
        node.cgroup().to_owned(),
    );
    drop(pod);
    assert!(!folder.exists() && !Path::new("/proc").join(pause.to_string()).exists());
    drop(node);
    assert!(!root.exists());
}

#[test]
fn a_panicking_test_leaves_nothing() {
    needs_privileges!();
    let mut root = None;
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let node = Node::new();
        root = Some(node.cgroup().to_owned());
        let pod = node.pod("web").start();
        let _still_running = pod.spawn(["bind-all", "--from", "80", "--to", "80"]);
        panic!("as the test asked");
    }));
    assert!(panicked.is_err());
    assert!(!root.unwrap().exists());
}

#[test]
fn cgroups_are_named_as_the_kubelet_names_them() {
    needs_privileges!();
    let node = Node::new();
    let name = |pod: &Pod| {
        let path = pod.cgroup().strip_prefix(node.cgroup()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let systemd = node.pod("a").qos(Qos::Guaranteed).start();
    let uid = systemd.uid().replace('-', "_");
    assert_eq!(
        name(&systemd),
        format!("kubepods.slice/kubepods-pod{uid}.slice")
    );
    let nested = node
        .pod("b")
        .driver(Driver::Cgroupfs)
        .qos(Qos::BestEffort)
        .below("docker/x")
        .start();
    assert_eq!(
        name(&nested),
        format!("docker/x/kubepods/besteffort/pod{}", nested.uid())
    );
    let fixed = node.pod("c").static_pod().start();
    assert_eq!(fixed.uid().len(), 32);
}

#[test]
fn loopback_and_ipv6_are_as_asked_for() {
    needs_privileges!();
    let node = Node::new();
    let late = node.pod("late").loopback_down().without_ipv6().start();
    assert_eq!(connect(&late, "127.0.0.1:9"), "ENETUNREACH");
    late.raise_loopback();
    assert_eq!(connect(&late, "127.0.0.1:9"), "ECONNREFUSED");
    assert_eq!(connect(&late, "[::1]:9"), "EADDRNOTAVAIL");
    let usual = node.pod("usual").start();
    assert_eq!(connect(&usual, "[::1]:9"), "ECONNREFUSED");
    usual.disable_ipv6();
    assert_eq!(connect(&usual, "[::1]:9"), "EADDRNOTAVAIL");
}

fn connect(pod: &Pod, destination: &str) -> String {
    let result = pod.run(["get", "--dst", destination, "--timeout-ms", "2000"]);
    assert_eq!(result["stage"], "connect", "{result}");
    result["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_user_namespace_owns_the_network() {
    needs_privileges!();
    let node = Node::new();
    let pod = node.pod("web").user_namespace().start();
    assert_eq!(connect(&pod, "127.0.0.1:9"), "ECONNREFUSED");
    let user: u64 = shell(&pod, "stat -L -c %i /proc/self/ns/user")
        .parse()
        .unwrap();
    assert_ne!(user, inode(Path::new("/proc/self/ns/user")));
}

#[test]
fn parts_of_pods_can_be_mixed() {
    needs_privileges!();
    let node = Node::new();
    let (one, two) = (node.pod("one").start(), node.pod("two").start());
    let sidecar = node.pod("sidecar").network_of(&two).start();
    assert_eq!(inode(&sidecar.network()), inode(&two.network()));
    let nested = one.add_container().join("nested");
    fs::create_dir(&nested).unwrap();
    let mixed = Join::nothing().cgroup(&nested).network(&two.network());
    let seen = output(mixed.command("sh").args([
        "-c",
        "cat /proc/self/cgroup; stat -L -c %i /proc/self/ns/net",
    ]));
    assert_eq!(cgroup_in_unified(&seen), nested);
    assert!(seen.ends_with(&inode(&two.network()).to_string()));
    let host = node.pod("host").host_network().start();
    assert_eq!(
        inode(&host.network()),
        inode(Path::new("/proc/self/ns/net"))
    );
}

#[test]
fn clients_report_what_they_see() {
    needs_privileges!();
    let node = Node::new();
    let pod = node.pod("web").start();
    // The whole range: nothing else listens in the pod.
    let mut server = pod.spawn(["bind-all", "--from", "7000", "--to", "7099"]);
    let bound = server.line();
    assert_eq!(bound["bound"], 200, "{bound}");
    assert_eq!(
        bound["failed"],
        Value::Object(Default::default()),
        "{bound}"
    );
    for destination in ["127.0.0.1:7000", "[::1]:7099", "[::ffff:127.0.0.1]:7050"] {
        let seen = pod.run(["get", "--dst", destination, "--hang-up", "requested"]);
        assert_eq!(seen["peer"], destination, "{seen}");
        let silent = pod.run(["get", "--dst", destination, "--timeout-ms", "50"]);
        assert_eq!(
            (&silent["error"], &silent["stage"]),
            (&"timeout".into(), &"request".into())
        );
    }
    let only = pod.run(["get", "--v6only", "--dst", "[::ffff:127.0.0.1]:7050"]);
    assert_eq!(only["error"], "ENETUNREACH", "{only}");

    let mut holder = pod.spawn([
        "hold",
        "--mode",
        "idle",
        "--dst",
        "127.0.0.1:7001",
        "--connections",
        "5",
    ]);
    assert_eq!(holder.line()["held"], 5);
    holder.finish();
    let storm = pod.run([
        "storm",
        "--dst",
        "127.0.0.1:9",
        "--threads",
        "4",
        "--requests",
        "40",
    ]);
    assert_eq!(storm["outcomes"]["ECONNREFUSED"], 40, "{storm}");
    server.finish();
}

#[test]
fn sockets_can_change_hands() {
    needs_privileges!();
    let node = Node::new();
    let (one, two) = (node.pod("one").start(), node.pod("two").start());
    let mut server = one.spawn(["bind-all", "--from", "7000", "--to", "7000"]);
    server.line();
    let target = two.app_cgroup().to_str().unwrap();
    let request = ["get", "--dst", "127.0.0.1:7000", "--hang-up", "requested"];
    let moved = one.run(request.into_iter().chain(["--move-to", target]));
    assert_eq!(moved["hung_up"], true, "{moved}");
    for connect in [&[][..], &["--connect"]] {
        let passed = one.client([
            "pass-socket",
            "--to-cgroup",
            target,
            "--dst",
            "127.0.0.1:7000",
        ]);
        let mut passed = passed;
        passed.args(connect).args(["--", "--hang-up", "requested"]);
        let lines = Client::spawn(passed).finish();
        assert_eq!(lines[0]["peer"], "127.0.0.1:7000", "{lines:?}");
    }
    server.finish();
}

#[test]
fn the_unmodified_sdk_runs_in_a_pod() {
    needs_privileges!();
    let node = Node::new();
    let pod = node.pod("web").start();
    let result = pod.run(["sdk"]);
    assert!(result["error"].is_string(), "nobody answers here: {result}");
}
