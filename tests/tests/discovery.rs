//! Pods are found wherever kubelet puts them, followed while they change, and forgotten when they
//! go.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use podcreds_tests::{
    agent::{Agent, LogLine},
    binary::pod_client,
    eks_auth::EksAuth,
    needs_privileges,
    node::Node,
    pod::{Client, Driver, Join, Pod, Qos},
    scenario::{ACCOUNT, Scenario, assert_owned, wait_served},
    wait::until,
};

const CYCLES: usize = 200;
/// How soon what has happened is followed. Nothing waits for a timer of so long.
const PROMPT: Duration = Duration::from_secs(10);

#[test]
fn pods_of_both_drivers_and_every_class_are_found() {
    needs_privileges!();
    let scene = Scenario::start();
    for driver in [Driver::Systemd, Driver::Cgroupfs] {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let pod = scene.pod("web").driver(driver).qos(qos).start();
            wait_served(&pod, []);
        }
    }
}

#[test]
fn pods_of_a_cluster_in_a_container_are_found() {
    needs_privileges!();
    let (eks_auth, node) = scene_without_agent();
    let pod = |name: &str| node.pod(name).account(ACCOUNT.0, ACCOUNT.1);
    let kind = pod("kind")
        .below("docker/0123abc/kubelet")
        .driver(Driver::Cgroupfs)
        .start();
    let nested = pod("nested")
        .below("system.slice/docker-0123abc.scope/kubelet.slice")
        .kubelet_root("kubelet")
        .start();
    let _agent = Agent::on(&node, &eks_auth).start();
    for pod in [&kind, &nested] {
        wait_served(pod, []);
    }
    // Once kubelet's levels are there, a further pod is found as anywhere.
    let late = pod("late")
        .below("docker/0123abc/kubelet")
        .driver(Driver::Cgroupfs)
        .start();
    wait_served(&late, []);
}

#[test]
fn pods_that_are_older_than_the_agent_are_served_from_its_first_moment() {
    needs_privileges!();
    let (eks_auth, node) = scene_without_agent();
    let pods: Vec<Pod> = (0..5)
        .map(|number| node.pod(&format!("web-{number}")))
        .map(|pod| pod.account(ACCOUNT.0, ACCOUNT.1).start())
        .collect();
    let _agent = Agent::on(&node, &eks_auth).start();
    for pod in &pods {
        assert_owned(&pod.run(["get"]), pod);
    }
}

#[test]
fn a_pod_with_a_user_namespace_is_served() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.pod("web").user_namespace().start();
    wait_served(&pod, []);
}

#[test]
fn a_process_that_passes_through_a_pod_does_not_change_its_namespace() {
    needs_privileges!();
    let (eks_auth, node) = scene_without_agent();
    // A stranger, older than the pod, with a namespace of its own.
    let stranger = node.pod("stranger").start();
    let pod = node.pod("web").account(ACCOUNT.0, ACCOUNT.1).start();
    let move_to = |cgroup: &Path| {
        let procs = cgroup.join("cgroup.procs");
        fs::write(procs, stranger.pause_pid().to_string()).unwrap();
    };
    // It is in both of the pod's containers in turn when the agent looks for the first time.
    for container in [pod.app_cgroup().to_owned(), sandbox(&pod)] {
        move_to(&container);
        let _agent = Agent::on(&node, &eks_auth).start();
        assert_owned(&pod.run(["get"]), &pod);
    }
    move_to(stranger.app_cgroup());
}

#[test]
fn a_pod_keeps_its_namespace_whatever_it_starts() {
    needs_privileges!();
    let (eks_auth, node) = scene_without_agent();
    let pod = node.pod("docker").account(ACCOUNT.0, ACCOUNT.1).start();
    let inner = [sandbox(&pod), pod.add_container()].map(|cgroup| inner_process(&cgroup));
    let _agent = Agent::on(&node, &eks_auth).start();
    assert_owned(&pod.run(["get"]), &pod);
    for mut process in inner {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

#[test]
fn the_hosts_namespace_is_never_a_pods() {
    needs_privileges!();
    let scene = Scenario::start();
    // Its first process is in the host's namespace, as a container runtime's helper is at first.
    let pod = scene.pod("web").host_network().start();
    wait_served(&pod, []);
    let mut inner = inner_process(&pod.add_container());
    let join = pod
        .join()
        .network(Path::new(&format!("/proc/{}/ns/net", inner.id())));
    until("the pod's own namespace is served", || {
        let mut command = pod.with_env(join.command(pod_client()));
        command.args(["get", "--timeout-ms", "2000"]);
        let answer = Client::spawn(command).finish().pop().unwrap_or_default();
        answer["status"] == 200
    });
    inner.kill().unwrap();
    inner.wait().unwrap();
}

/// EKS Auth and a node, for pods that are there before the agent.
fn scene_without_agent() -> (EksAuth, Node) {
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate(ACCOUNT.0, ACCOUNT.1, "role");
    (eks_auth, node)
}

/// The cgroup of a pod's pause container.
fn sandbox(pod: &Pod) -> PathBuf {
    let containers = fs::read_dir(pod.cgroup()).unwrap().flatten();
    containers
        .map(|entry| entry.path())
        .find(|path| path.is_dir() && path != pod.app_cgroup())
        .unwrap()
}

/// A process in a pod's cgroup that has made itself a network namespace.
fn inner_process(cgroup: &Path) -> Child {
    let inner = Join::nothing()
        .cgroup(cgroup)
        .command("unshare")
        .args([
            "--net",
            "sh",
            "-c",
            "ip link set lo up; exec sleep infinity",
        ])
        .spawn()
        .unwrap();
    until("the inner process has its own namespace", || {
        let net = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net"));
        net(inner.id()).unwrap() != net(std::process::id()).unwrap()
            && fs::read_to_string(format!("/proc/{}/comm", inner.id())).unwrap() == "sleep\n"
    });
    inner
}

#[test]
fn a_pod_whose_sandbox_is_made_anew_is_followed() {
    needs_privileges!();
    let scene = Scenario::start();
    let mut pod = scene.served_pod("web");
    let start = Instant::now();
    pod.restart_pause();
    wait_served(&pod, []);
    scene
        .agent
        .wait_metric("podcreds_network_namespaces", &[], |count| count == 2.0);
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

/// Nothing is made in the pod that could be noticed: its process goes to another namespace.
#[test]
fn a_pod_whose_process_changes_its_namespace_is_followed() {
    needs_privileges!();
    let scene = Scenario::start();
    let mut pod = scene.served_pod("web");
    let script = "read line; exec unshare --net \
                  sh -c 'ip link set lo up; exec sleep infinity'";
    let mut process = pod.command("sh");
    let process = process.args(["-c", script]).stdin(Stdio::piped());
    let mut process = process.spawn().unwrap();
    let id = process.id();
    let runs = |name: &str| {
        let comm = fs::read_to_string(format!("/proc/{id}/comm"));
        comm.is_ok_and(|comm| comm.trim() == name)
    };
    until("the process is in the pod", || runs("sh"));
    pod.kill_pause();
    let namespaces = "podcreds_network_namespaces";
    let network = PathBuf::from(format!("/proc/{}/ns/net", process.id()));
    let is_served = || {
        let join = Join::nothing().cgroup(pod.app_cgroup()).network(&network);
        let mut command = pod.with_env(join.command(pod_client()));
        command.args(["get", "--timeout-ms", "2000"]);
        let answer = Client::spawn(command).finish().pop().unwrap_or_default();
        answer["status"] == 200
    };
    // The agent waits for the end of one process, and then of the other.
    scene
        .agent
        .wait_metric(namespaces, &[], |count| count == 2.0);
    until("the pod is served", is_served);
    let before = fs::read_link(&network).unwrap();
    process.stdin.take().unwrap().write_all(b"go\n").unwrap();
    until("the process is elsewhere and `lo` is up", || {
        fs::read_link(&network).unwrap() != before && runs("sleep")
    });
    until("the new namespace is served", is_served);
    // The old one is given up, which is the last process of the pod to leave it.
    scene
        .agent
        .wait_metric(namespaces, &[], |count| count == 2.0);
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn pods_are_followed_although_events_are_lost() {
    needs_privileges!();
    let scene = Scenario::start();
    let (stays, goes) = (scene.served_pod("stays"), scene.served_pod("goes"));
    let mut remade = scene.served_pod("remade");
    scene.agent.signal(Signal::SIGSTOP);
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let kubelets = stays.cgroup().parent().unwrap().join("other");
    for _ in 0..queue.trim().parse::<u32>().unwrap() {
        fs::create_dir(&kubelets).unwrap();
        fs::remove_dir(&kubelets).unwrap();
    }
    drop(goes);
    remade.restart_pause();
    let comes = scene.pod("comes").start();
    scene.agent.signal(Signal::SIGCONT);
    let start = Instant::now();
    let agent = &scene.agent;
    // The node path serves them all, and as many came as went: the log says when it has begun.
    let lost = |line: &LogLine| line.message.starts_with("cgroup events were lost");
    agent.logs().wait_for("events are lost", lost);
    for pod in [&stays, &remade, &comes] {
        wait_served(pod, []);
    }
    agent.wait_metric("podcreds_pods", &[], |pods| pods == 3.0);
    agent.wait_metric("podcreds_network_namespaces", &[], |count| count == 4.0);
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

#[test]
fn a_process_that_dies_while_it_is_looked_at_does_no_harm() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.pod("crash-loop").start();
    for _ in 0..50 {
        let container = pod.add_container();
        let status = Join::nothing()
            .cgroup(&container)
            .network(&pod.network())
            .command("true")
            .status();
        assert!(status.unwrap().success());
        until("the container's cgroup can go", || {
            fs::remove_dir(&container).is_ok()
        });
    }
    wait_served(&pod, []);
}

#[test]
fn pods_that_come_and_go_leave_nothing() {
    needs_privileges!();
    let scene = Scenario::start();
    let resident = scene.served_pod("resident");
    let before = scene.agent.usage();
    let watched = scene.agent.inotify_watches();
    let mut served = 0;
    for number in 0..CYCLES {
        let pod = scene.pod(&format!("web-{number}")).start();
        if number % 20 == 0 {
            wait_served(&pod, []);
            served += 1;
        }
    }
    assert_eq!(served, CYCLES / 20);
    let agent = &scene.agent;
    agent.wait_metric("podcreds_pods", &[], |pods| pods == 1.0);
    agent.wait_metric("podcreds_network_namespaces", &[], |count| count == 2.0);
    agent.wait_metric("podcreds_listeners", &[], |count| count == 4.0);
    agent.wait_metric("podcreds_cache_entries", &[], |entries| entries == 1.0);
    until(
        "the agent has as many descriptors and threads as before",
        || {
            let now = agent.usage();
            now.descriptors <= before.descriptors && now.threads <= before.threads
        },
    );
    let watches = agent.inotify_watches();
    assert!(watches <= watched, "{watches} watches, {watched} before");
    assert_eq!(agent.map_entries("PODS"), 1);
    assert_eq!(
        agent.metrics().sum("podcreds_datapath_errors_total", &[]),
        0.0
    );
    assert_owned(&resident.run(["get"]), &resident);
}

#[test]
fn a_pod_with_a_thousand_processes_keeps_no_other_waiting() {
    needs_privileges!();
    let scene = Scenario::start();
    let crowd = scene.served_pod("crowd");
    let script = "i=0; while [ $i -lt 1000 ]; do sleep 1000 & i=$((i+1)); done; echo done; wait";
    let mut shell = crowd
        .command("sh")
        .args(["-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = shell.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    // Every look at the crowd would take long, were all of it looked at.
    let before = scene.agent.usage().cpu;
    for _ in 0..20 {
        fs::remove_dir(crowd.add_container()).unwrap();
    }
    let late = scene.served_pod("late");
    assert_owned(&crowd.run(["get"]), &crowd);
    let spent = scene.agent.usage().cpu - before;
    assert!(spent < Duration::from_secs(2), "{spent:?}");
    drop((late, crowd));
    shell.wait().unwrap();
}

#[test]
fn a_listener_that_is_destroyed_is_opened_anew() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    // What CAP_NET_ADMIN in the pod is enough for.
    for address in ["127.0.0.1", "[::1]"] {
        let status = pod
            .command("ss")
            .args([
                "--kill",
                "--listening",
                "--tcp",
                "--numeric",
                "src",
                address,
            ])
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
    wait_served(&pod, []);
    wait_served(&pod, ["--v6only", "--dst", "[fd00:ec2::23]:80"]);
    assert_eq!(scene.agent.metrics().sum("podcreds_listeners", &[]), 4.0);
}

#[test]
fn a_user_of_the_node_cannot_make_pods() {
    needs_privileges!();
    let scene = Scenario::start();
    let delegated = scene.node.cgroup().join("kubepods/besteffort");
    fs::create_dir_all(&delegated).unwrap();
    std::os::unix::fs::chown(&delegated, Some(65534), None).unwrap();
    let status = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "mkdir"])
        .arg(delegated.join("pod0f0e0d0c-0b0a-0908-0706-050403020100"))
        .status();
    assert!(status.unwrap().success());
    let _known = scene.served_pod("web");
    assert_eq!(scene.agent.map_entries("PODS"), 1);
}
