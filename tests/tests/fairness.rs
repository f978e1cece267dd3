//! One pod takes from the agent all that it can get, and another one notices nothing.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use podcreds_tests::{
    agent::Agent,
    binary, needs_privileges,
    pod::{Client, Pod},
    scenario::{Scenario, assert_owned, wait_served},
    wait::until,
};
use serde_json::{Value, json};

/// What the agent may use, whatever is done to it. The dev build is a few MB larger than the one
/// that ships.
const RESIDENT: u64 = 64_000_000;
/// How often the victim asks in a second, and how often in all.
const RATE: &str = "50";
const REQUESTS: u64 = 400;
/// How long a stalled connect or answer may take, in milliseconds: as long as SDKs wait.
const PATIENCE: &str = "2000";

/// What an attacker does with all it has.
struct Attack {
    name: &'static str,
    /// How many pods take part.
    pods: usize,
    arguments: &'static [&'static str],
}

const ATTACKS: [Attack; 7] = [
    Attack {
        name: "junk, pipelined on 1,000 connections",
        pods: 1,
        arguments: &[
            "flood",
            "--mode",
            "pipeline",
            "--connections",
            "1000",
            "--accept",
            "14000",
            "--no-token",
        ],
    },
    Attack {
        name: "half of a long request on 9,000 connections of nine pods",
        pods: 9,
        arguments: &[
            "flood",
            "--mode",
            "half-request",
            "--connections",
            "1000",
            "--accept",
            "14000",
        ],
    },
    Attack {
        name: "silence on 9,000 connections of nine pods",
        pods: 9,
        arguments: &["flood", "--mode", "idle", "--connections", "1000"],
    },
    Attack {
        name: "answers that nobody reads, on 1,000 connections",
        pods: 1,
        arguments: &["flood", "--mode", "never-read", "--connections", "1000"],
    },
    Attack {
        name: "good requests, pipelined on 1,000 connections",
        pods: 1,
        arguments: &["flood", "--mode", "pipeline", "--connections", "1000"],
    },
    Attack {
        name: "forged tokens",
        pods: 1,
        arguments: &["hold", "--mode", "forge", "--connections", "32"],
    },
    Attack {
        name: "connections that come and go",
        pods: 1,
        arguments: &["hold", "--mode", "churn", "--connections", "4"],
    },
];

/// Has the victim ask at its rate, and returns what it saw.
fn ask(victim: &Pod) -> Value {
    let requests = REQUESTS.to_string();
    victim.run([
        "storm",
        "--rate",
        RATE,
        "--requests",
        &requests,
        "--threads",
        "120",
        "--timeout-ms",
        PATIENCE,
    ])
}

/// Runs `work`, and returns its result and the most memory that the agent had meanwhile.
fn watching<T>(agent: &Agent, work: impl FnOnce() -> T) -> (T, u64) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = agent.usage().resident.max(most);
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap())
    })
}

fn share(cpu: Duration, of: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / of.as_secs_f64()
}

impl Attack {
    /// Attacks from a pod that has asked for no processor time, as most that an attacker gets have
    /// not. Others come before it, as kubelet has it on a node; what goes to the agent cannot be
    /// shared out by the agent.
    fn start(&self, pod: &Pod) -> Client {
        let mut command = pod.command("nice");
        command.args(["-n", "15"]).arg(binary::pod_client());
        command.args(self.arguments);
        Client::spawn(command)
    }

    /// Attacks while the victim asks, and prints what that came to.
    fn run(&self, scene: &Scenario, attackers: &[Pod], victim: &Pod) -> (Value, u64) {
        let attackers = attackers[..self.pods].iter();
        let mut clients: Vec<_> = attackers.map(|pod| self.start(pod)).collect();
        for client in &mut clients {
            client.line();
        }
        let (begun, before) = (Instant::now(), scene.agent.usage().cpu);
        let (seen, resident) = watching(&scene.agent, || ask(victim));
        let (lasted, cpu) = (begun.elapsed(), scene.agent.usage().cpu - before);
        let told: Vec<_> = clients.into_iter().filter_map(last_words).collect();
        let sum = |field: &str| told.iter().filter_map(|told| told[field].as_u64()).sum();
        let (requests, opened, theirs): (u64, u64, u64) = (
            sum("requests") + sum("rounds"),
            sum("opened"),
            sum("cpu_ms"),
        );
        let refused: Vec<_> = scene
            .agent
            .metrics()
            .samples()
            .iter()
            .filter(|sample| sample.name == "podcreds_refusals_total" && sample.value > 0.0)
            .map(|sample| format!("{} {}", sample.value, sample.labels["reason"]))
            .collect();
        println!(
            "{}:\n  the victim: {} in {:.0} s, p50 {} us, p99 {} us, max {} us\n  \
             the agent: {:.1} MB, {:.0} % of a processor\n  \
             the attack: {opened} connections, {requests} requests, {:.0} % of a processor\n  \
             refused until now: {}",
            self.name,
            seen["outcomes"],
            lasted.as_secs_f64(),
            seen["p50_us"],
            seen["p99_us"],
            seen["max_us"],
            resident as f64 / 1e6,
            share(cpu, lasted),
            share(Duration::from_millis(theirs), lasted),
            refused.join(", "),
        );
        (seen, resident)
    }
}

fn last_words(client: Client) -> Option<Value> {
    client.finish().pop()
}

/// Everything is done to one agent, one thing after the other.
#[test]
fn a_greedy_pod_fails_no_request_of_another_pod() {
    needs_privileges!();
    let scene = Scenario::start();
    let victim = scene.served_pod("victim");
    let attackers: Vec<_> = (0..9)
        .map(|number| scene.served_pod(&format!("attacker-{number}")))
        .collect();
    for attack in ATTACKS {
        let (seen, resident) = attack.run(&scene, &attackers, &victim);
        let name = attack.name;
        assert_eq!(seen["outcomes"], json!({ "200": REQUESTS }), "{name}");
        assert_eq!(seen["owners"], json!({ victim.uid(): REQUESTS }), "{name}");
        assert!(resident < RESIDENT, "{name}: {resident} bytes");
        let connections = "podcreds_connections";
        let agent = &scene.agent;
        agent.wait_metric(connections, &[], |count| count == 0.0);
    }
    // A pod that was new to the agent all the time is served like any other, and so are the
    // attackers.
    wait_served(&attackers[0], []);
}

/// Connections of pods that ask for nothing make room for those that do.
#[test]
fn a_new_pod_gets_a_connection_when_all_are_taken() {
    needs_privileges!();
    let scene = Scenario::start();
    let agent = &scene.agent;
    let greedy = [1, 2, 3].map(|number| scene.served_pod(&format!("greedy-{number}")));
    let idle = ["hold", "--mode", "idle", "--connections", "1000"];
    let mut holders = greedy.each_ref().map(|pod| pod.spawn(idle));
    for holder in &mut holders {
        holder.line();
    }
    let evicted = || {
        let labels = [("reason", "evicted")];
        agent.metrics().sum("podcreds_refusals_total", &labels)
    };
    until("there is no more room", || evicted() > 0.0);
    let newcomer = scene.pod("newcomer").start();
    wait_served(&newcomer, []);
    for _ in 0..50 {
        assert_owned(&newcomer.run(["get", "--timeout-ms", PATIENCE]), &newcomer);
    }
    assert!(agent.metrics().sum("podcreds_connections", &[]) <= 768.0);
}

/// A log that is not read, as of a container runtime that hangs, costs lines and nothing else.
#[test]
fn a_log_that_is_not_read_delays_no_request() {
    needs_privileges!();
    let mut scene = Scenario::with_args(["--verbosity", "debug"]);
    let [pod, other] = ["one", "other"].map(|name| scene.served_pod(name));
    let lost = |agent: &Agent| {
        let labels = [("reason", "unread")];
        agent
            .metrics()
            .sum("podcreds_log_lines_lost_total", &labels)
    };
    scene.agent.metrics_address();
    scene.agent.logs().pause(true);
    // Each of these is worth a line at this level.
    let junk = ["storm", "--requests", "2000", "--method", "no method"];
    until("lines are lost", || {
        pod.run(junk);
        lost(&scene.agent) > 0.0
    });
    let seen = ask(&other);
    assert_eq!(seen["outcomes"], json!({ "200": REQUESTS }), "{seen}");
    // Nor does it keep the agent from ending.
    let begun = Instant::now();
    let status = scene.agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
    scene.agent.logs().pause(false);
}
