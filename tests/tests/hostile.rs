//! Clients that are slow, greedy, rude or make no sense get their due, and harm nobody.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::time::Duration;

use podcreds_tests::{
    agent::{Agent, LISTENERS},
    binary,
    eks_auth::Fault,
    needs_privileges,
    pod::{Client, Pod},
    scenario::{Scenario, assert_owned, wait_served},
    wait::until,
    wire,
};
use serde_json::json;

const HOST: &str = "Host: 169.254.170.23\r\n";

fn refusals(agent: &Agent, reason: &str) -> f64 {
    let labels = [("reason", reason)];
    agent.metrics().sum("podcreds_refusals_total", &labels)
}

/// Waits until no pod is connected, and no descriptor is left that was not there `before`.
fn wait_quiet(agent: &Agent, before: usize) {
    agent.wait_metric("podcreds_connections", &[], |count| count == 0.0);
    until("no descriptor is left over", || {
        agent.usage().descriptors <= before
    });
}

/// This takes the ten seconds that the agent gives a client.
#[test]
fn slow_clients_are_cut_off() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("slow");
    let request = wire::request(&pod, "HTTP/1.1", HOST);
    let before = scene.agent.usage().descriptors;

    let silent = wire::begin(&pod, "");
    let half = wire::begin(&pod, &request[..request.len() / 2]);
    let idle = wire::begin(&pod, &request);
    let never_reads = pod.spawn(["hold", "--mode", "never-read", "--connections", "1"]);
    // A whole request would take it minutes.
    let trickle = pod.spawn(["get", "--trickle-ms", "100", "--timeout-ms", "30000"]);
    scene
        .agent
        .wait_metric("podcreds_connections", &[], |count| count == 5.0);
    // Others are served meanwhile.
    assert_owned(&pod.run(["get"]), &pod);

    for cut_off in [silent, half] {
        let heard = cut_off.finish();
        assert_eq!((&*heard.received, &*heard.end), ("", "closed"));
    }
    let heard = idle.finish();
    assert_eq!((heard.statuses(), &*heard.end), (vec![200], "closed"));
    let trickled = trickle.finish().pop().unwrap();
    let errors = ["EPIPE", "ECONNRESET", "closed"];
    let error = trickled["error"].as_str().unwrap_or_default();
    assert!(errors.contains(&error), "{trickled}");

    // The silent, the half and the trickled request; the idle connection owed nothing.
    let agent = &scene.agent;
    let count = |reason| [("reason", reason)];
    let name = "podcreds_refusals_total";
    agent.wait_metric(name, &count("write_timeout"), |cut_off| cut_off == 1.0);
    assert_eq!(refusals(agent, "head_timeout"), 3.0);
    wait_quiet(agent, before);
    drop(never_reads);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("large");
    let before = scene.agent.usage().descriptors;
    let with = |filler: usize| {
        let filler = ".".repeat(filler);
        let headers = format!("{HOST}Connection: close\r\nX-Filler: {filler}\r\n");
        wire::request(&pod, "HTTP/1.1", &headers)
    };
    // There is room for the largest of tokens.
    assert_eq!(wire::say(&pod, with(12 << 10)).statuses(), [200]);
    assert_eq!(refusals(&scene.agent, "head_too_large"), 0.0);
    let heard = wire::say(&pod, with(17 << 10));
    assert!(heard.received.starts_with("HTTP/1.1 431 "), "{heard:?}");
    assert_ne!(heard.end, "timeout");
    // Of so much, most is never read: the answer may be lost, and that is the client's loss.
    let heard = wire::say(&pod, with(8 << 20));
    assert_ne!(heard.end, "timeout");
    assert_eq!(refusals(&scene.agent, "head_too_large"), 2.0);
    let many = "X: y\r\n".repeat(1000);
    let heard = wire::say(&pod, wire::request(&pod, "HTTP/1.1", &many));
    assert!(heard.received.starts_with("HTTP/1.1 431 "), "{heard:?}");
    wait_quiet(&scene.agent, before);
}

#[test]
fn a_body_is_not_waited_for() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("talkative");
    let before = scene.agent.usage().descriptors;
    let chunked = format!("{HOST}Transfer-Encoding: chunked\r\n");
    let promised = format!("{HOST}Content-Length: 1000000000\r\n");
    for headers in [chunked, promised] {
        // Half a body, and then silence.
        let request = wire::request(&pod, "HTTP/1.1", &headers) + "5\r\nabcde\r\n";
        let heard = wire::say(&pod, request);
        assert_eq!(heard.statuses(), [200], "{headers}");
    }
    assert_eq!(refusals(&scene.agent, "head_timeout"), 0.0);
    wait_quiet(&scene.agent, before);
}

#[test]
fn what_is_not_http_is_refused() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("odd");
    let before = scene.agent.usage().descriptors;
    let tls_hello = [
        &b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"[..],
        &[0xa5; 194],
    ];
    let nonsense: [&[u8]; 5] = [
        &tls_hello.concat(),
        &[0xff; 1000],
        b"\r\n\r\nhello\r\n",
        b"GET /v1/credentials HTTP/1.1\r\nHost : 169.254.170.23\r\n\r\n",
        b"GET /v1/credentials HTTP/1.1\r\nAuthorization: a\0b\r\n\r\n",
    ];
    for bytes in nonsense {
        let heard = wire::say(&pod, bytes);
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(heard.statuses(), [400], "{shown}");
        assert_ne!(heard.end, "timeout", "{shown}");
    }
    // A client that speaks HTTP/2 would not understand an answer.
    let heard = wire::say(&pod, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(heard.received, "");
    assert_ne!(heard.end, "timeout");
    assert_eq!(refusals(&scene.agent, "malformed_request"), 6.0);
    wait_quiet(&scene.agent, before);
}

#[test]
fn a_client_that_hangs_up_at_any_time_harms_nothing() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("hasty");
    let before = scene.agent.usage().descriptors;
    for stage in ["connected", "half-request", "requested", "half-answer"] {
        for _ in 0..10 {
            let answer = pod.run(["get", "--hang-up", stage]);
            assert_eq!(answer["hung_up"], true, "{stage}: {answer}");
        }
        wait_quiet(&scene.agent, before);
    }
    assert_owned(&pod.run(["get"]), &pod);
}

#[test]
fn a_client_that_hangs_up_cancels_nothing() {
    needs_privileges!();
    let scene = Scenario::start();
    let known = scene.served_pod("known");
    let before = scene.agent.usage().descriptors;
    scene.eks_auth.fail(Fault::Slow(Duration::from_millis(300)));
    let pod = scene.pod("hasty").start();
    until("the agent asks for the pod", || {
        pod.run(["get", "--hang-up", "requested"]);
        !scene.eks_auth.calls_for_pod(pod.uid()).is_empty()
    });
    scene
        .agent
        .wait_metric("podcreds_cache_entries", &[], |count| count == 2.0);
    assert_owned(&pod.run(["get"]), &pod);
    assert_eq!(scene.eks_auth.calls_for_pod(pod.uid()).len(), 1);
    drop(known);
    scene
        .agent
        .wait_metric("podcreds_connections", &[], |count| count == 0.0);
    // The listeners of the new pod came in the place of those of the one that is gone.
    until("no descriptor is left over", || {
        scene.agent.usage().descriptors <= before
    });
}

/// Connections that are held, of every kind: the idle ones come last, and fill what the cap has
/// left.
const HOLD: [(&str, &str); 4] = [
    ("never-read", "1"),
    ("half-request", "20"),
    ("forge", "4"),
    ("idle", "300"),
];
/// Connections that come and go as fast as they can.
const CHURN: [(&str, &str); 2] = [("churn", "2"), ("abandon", "2")];

fn flood(pod: &Pod, means: &[(&str, &str)]) -> Vec<Client> {
    let mut clients = Vec::new();
    for (mode, connections) in means {
        let arguments = ["hold", "--mode", mode, "--connections", connections];
        let mut client = pod.spawn(arguments);
        client.line();
        clients.push(client);
    }
    clients
}

/// Has every pod ask over and over, and checks that every answer is its own credentials.
fn assert_all_served(pods: &[&Pod]) {
    let load = [
        "--threads",
        "4",
        "--requests",
        "200",
        "--timeout-ms",
        "20000",
    ];
    let storms: Vec<_> = pods
        .iter()
        .map(|pod| pod.spawn([&["storm"], &load[..]].concat()))
        .collect();
    for (pod, storm) in pods.iter().zip(storms) {
        let tally = storm.finish().pop().unwrap();
        assert_eq!(tally["outcomes"], json!({ "200": 200 }), "{}", pod.name());
        assert_eq!(tally["owners"], json!({ pod.uid(): 200 }), "{tally}");
    }
}

#[test]
fn a_pod_that_floods_delays_no_other_pod() {
    const CAP: f64 = 100.0;
    needs_privileges!();
    let scene = Scenario::with_args(["--max-connections-per-pod", "100"]);
    let agent = &scene.agent;
    let flooder = scene.served_pod("flooder");
    let victim = scene.served_pod("victim");
    let on_host = scene.pod("on-host").host_network().start();
    wait_served(&on_host, []);
    // It is served before it has a queue of its own. Then each of the three has one for each
    // family, and so has the host.
    agent.wait_metric("podcreds_listeners", &[], |count| count == 8.0);
    let before = agent.usage().descriptors;

    let clients = [flood(&flooder, &HOLD), flood(&flooder, &CHURN)];
    agent.wait_metric("podcreds_connections", &[], |count| count >= CAP);
    assert_all_served(&[&victim, &on_host]);
    // One that nobody knew before gets a listener, and its turn at EKS Auth.
    let newcomer = scene.served_pod("newcomer");
    assert_all_served(&[&victim, &newcomer]);
    assert!(refusals(agent, "too_many_connections") >= 200.0);
    // The flooder's, as many that were given up before anybody knew whose they were, and those of
    // the pods that are served.
    let open = agent.metrics().sum("podcreds_connections", &[]);
    assert!(open <= 2.0 * CAP + 8.0, "{open}");
    // Its own token, and a few of the forged ones.
    let calls = scene.eks_auth.calls_for_pod(flooder.uid()).len();
    assert!((2..=20).contains(&calls), "{calls} calls for the flooder");

    drop(clients);
    drop(newcomer);
    wait_quiet(agent, before);
    wait_served(&flooder, []);
    assert_eq!(
        agent.metrics().sum("podcreds_datapath_errors_total", &[]),
        0.0
    );
}

/// Pods in the host's network namespace have a queue each, and their own share of connections.
#[test]
fn a_flood_in_the_hosts_namespace_harms_no_other_pod_there() {
    needs_privileges!();
    let scene = Scenario::with_args(["--max-connections-per-pod", "100"]);
    let agent = &scene.agent;
    let [flooder, victim] = ["flooder", "victim"].map(|name| {
        let pod = scene.pod(name).host_network().start();
        wait_served(&pod, []);
        pod
    });
    // The host's, and one for each of the two.
    agent.wait_metric("podcreds_listeners", &[], |count| count == 6.0);
    let before = agent.usage().descriptors;
    let clients = [flood(&flooder, &HOLD), flood(&flooder, &CHURN)];
    agent.wait_metric("podcreds_connections", &[], |count| count >= 100.0);
    assert_all_served(&[&victim]);
    assert!(refusals(agent, "too_many_connections") >= 200.0);
    drop(clients);
    wait_quiet(agent, before);
}

/// A process of one pod in the network namespace of another is nobody's. However many connections
/// such processes make, they count as those of one caller.
#[test]
fn strangers_share_one_pods_worth_of_connections() {
    needs_privileges!();
    let scene = Scenario::with_args(["--max-connections-per-pod", "20"]);
    let agent = &scene.agent;
    let (victim, other) = (scene.served_pod("victim"), scene.served_pod("other"));
    let stranger = other.join().network(&victim.network());
    let mut command = stranger.command(binary::pod_client());
    let listener = ["--dst", LISTENERS[0], "--no-token"];
    command.args(["hold", "--mode", "idle", "--connections", "30"]);
    command.args(listener);
    let mut holder = Client::spawn(command);
    assert_eq!(holder.line()["failed"], json!({}));
    let refused = [("reason", "too_many_connections")];
    agent.wait_metric("podcreds_refusals_total", &refused, |count| count == 10.0);
    agent.wait_metric("podcreds_connections", &[], |count| count == 20.0);
    assert_all_served(&[&victim, &other]);
    drop(holder);
}
