//! A real Prometheus scrapes an agent while things go wrong: the alerts of `deploy/prometheus` fire
//! in their fault and clear after it, and every query of the dashboards has an answer.
//!
//! All windows of the rules are a hundredth of what they are: five minutes are three seconds. Where
//! an agent hardly calls, they are a tenth.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    env, fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use podcreds_tests::{
    agent::Agent,
    checkout,
    dashboards::{self, DASHBOARDS, expressions, panels, read},
    eks_auth::{EksAuth, Fault},
    http::client,
    jwks::Jwks,
    needs_privileges,
    node::Node,
    pod::Pod,
    privileged::can_run,
    prometheus::{self, Prometheus},
    scenario::{ROLE, Scenario, wait_served},
    token::Issuer,
    wait::until,
};
use tempfile::TempDir;

/// One more start within an hour than an alert allows.
const RESTARTS: usize = 3;

const THROTTLED: Fault = Fault::Throttle {
    retry_after: Some(0),
};

/// Drops what a pod sends to itself.
const NO_LOOPBACK: &str = "table inet filter {
  chain output {
    type filter hook output priority 0
    oifname lo drop
  }
}";

/// An agent that knows the cluster's keys, and a Prometheus that scrapes it.
struct Scene {
    prometheus: Prometheus,
    started: Instant,
    node: Scenario,
    keys: Jwks,
    _handover: TempDir,
}

impl Scene {
    /// Starts both. No agent is scraped until the absence of all has been noticed.
    fn start() -> Self {
        let node = Node::new();
        let prometheus = Prometheus::start(&node, 100);
        prometheus.wait_firing(["PodcredsAbsent"]);
        let keys = Jwks::start(&Issuer::cluster());
        let url = keys.url();
        let handover = tempfile::tempdir().unwrap();
        let folder = handover.path().to_str().unwrap();
        let node = Scenario::run(node, EksAuth::start(), |agent| {
            let agent = agent.args(["--jwks-url", &url, "--metrics-per-service-account", "10"]);
            agent.set("--handover-dir", folder)
        });
        prometheus.scrape([("a", &node.agent)]);
        Self {
            prometheus,
            started: Instant::now(),
            node,
            keys,
            _handover: handover,
        }
    }

    fn pods<const N: usize>(&self, name: &str) -> [Pod; N] {
        std::array::from_fn(|number| self.node.pod(&format!("{name}-{number}")).start())
    }
}

/// Does something again and again while something else is done.
fn meanwhile(again: impl Fn() + Sync, work: impl FnOnce()) {
    /// Ends the loop also when the work fails.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                again();
                thread::sleep(Duration::from_millis(50));
            }
        });
        work();
    });
}

/// The token with another signature than the cluster's, a different one for each number.
fn forged(token: &str, number: usize) -> String {
    let (unsigned, signature) = token.rsplit_once('.').unwrap();
    format!("{unsigned}.{number:08}{}", &signature[8..])
}

/// An agent that pods are not redirected to, beside the one that they are.
fn node_path_only(scene: &Scene) {
    let other = Agent::on_loopback(&scene.node.eks_auth).start();
    scene
        .prometheus
        .scrape([("a", &scene.node.agent), ("b", &other)]);
    scene.prometheus.wait_firing(["PodcredsNodePathOnly"]);
    scene.prometheus.scrape([("a", &scene.node.agent)]);
    scene.prometheus.wait_clear(["PodcredsNodePathOnly"]);
}

/// Tokens that are not the caller's, and requests without one.
fn strange_tokens(scene: &Scene) {
    let [pod, thief] = scene.pods("strange");
    wait_served(&pod, []);
    wait_served(&thief, []);
    let refused = |arguments: &[&str]| {
        let answer = pod.run([&["get"], arguments].concat());
        assert!(answer["status"].as_u64().unwrap() >= 400, "{answer}");
    };
    let alerts = [
        "PodcredsTokenOfAnotherPod",
        "PodcredsTokenThroughProxy",
        "PodcredsTokenForged",
        "PodcredsRefusalsSpike",
    ];
    let (own, stolen) = (pod.token(), thief.token());
    let number = AtomicUsize::new(0);
    let strange = || {
        let forged = forged(&own, number.fetch_add(1, Ordering::Relaxed));
        refused(&["--token", &stolen]);
        refused(&["--token", &stolen, "--header", "Via: 1.1 squid"]);
        refused(&["--token", &forged]);
        refused(&["--no-token"]);
    };
    meanwhile(strange, || scene.prometheus.wait_firing(alerts));
    scene.prometheus.wait_clear(alerts);
}

/// A pod with credentials for ten minutes, and one that drops what it sends to itself.
fn troubled_pods(scene: &Scene) {
    let (namespace, account) = ("shop", "short");
    let minutes = Duration::from_secs(600);
    let eks_auth = &scene.node.eks_auth;
    eks_auth.associate_for(namespace, account, ROLE, minutes);
    let short = scene
        .node
        .node
        .pod("short")
        .account(namespace, account)
        .start();
    wait_served(&short, []);
    let [cut_off] = scene.pods("cut-off");
    wait_served(&cut_off, []);
    cut_off.filter(NO_LOOPBACK);
    // Which is when the agent looks.
    cut_off.add_container();
    let alerts = [
        "PodcredsCredentialsNearExpiry",
        "PodcredsListenersUnreachable",
    ];
    let ask = || {
        short.run(["get"]);
        cut_off.run(["get", "--timeout-ms", "200"]);
    };
    meanwhile(ask, || scene.prometheus.wait_firing(alerts));
    cut_off.filter("flush ruleset");
    drop(short);
    scene.prometheus.wait_clear(alerts);
}

/// The cluster's keys cannot be fetched, while tokens come that name one that is not known.
fn keys_out_of_reach(scene: &Scene) {
    let [pod] = scene.pods("keyless");
    wait_served(&pod, []);
    let foreign = Issuer::new().sign(pod.claims());
    let number = AtomicUsize::new(0);
    let ask = || {
        // A refused one is not looked at again for a while.
        let token = forged(&foreign, number.fetch_add(1, Ordering::Relaxed));
        pod.run(["get", "--token", &token]);
    };
    let alerts = ["PodcredsKeysUnreachable"];
    scene.keys.set_down(true);
    meanwhile(ask, || scene.prometheus.wait_firing(alerts));
    until("readiness says so", || {
        let answer = client::get(scene.node.agent.probe_address(), "/readyz");
        answer.is_ok_and(|it| it.status == 200 && it.body.contains("without the newest keys"))
    });
    scene.keys.set_down(false);
    meanwhile(ask, || {
        until("the keys are fetched", || {
            let metrics = scene.node.agent.metrics();
            metrics.sum("podcreds_keys_consecutive_failures", &[]) == 0.0
        });
    });
    scene.prometheus.wait_clear(alerts);
}

/// EKS Auth throttles once, then gives no answer at all, while new pods ask.
fn eks_auth_in_trouble(scene: &Scene) {
    let eks_auth = &scene.node.eks_auth;
    let cold = scene.pods::<4>("cold");
    let [served] = scene.pods("served");
    wait_served(&served, []);
    let ask = || {
        for pod in cold.iter().chain([&served]) {
            pod.run(["get", "--timeout-ms", "100"]);
        }
    };
    eks_auth.fail_next(1, THROTTLED);
    eks_auth.fail(Fault::unavailable());
    meanwhile(ask, || {
        let alerts = [
            "PodcredsEksAuthUnavailable",
            "PodcredsNodeCannotReachEksAuth",
            "PodcredsErrorBudgetBurnsFast",
        ];
        scene.prometheus.wait_firing(alerts);
        every_panel_shows_something(scene);
        metrics_are_well_formed(scene);
        draw_pictures(scene);
        eks_auth.heal();
        scene.prometheus.wait_clear(alerts);
    });
}

/// The dashboards' queries, with what somebody has chosen who looks at this agent.
fn every_panel_shows_something(scene: &Scene) {
    let mut empty = Vec::new();
    for name in DASHBOARDS {
        let dashboard = read(name).unwrap();
        for panel in panels(&dashboard) {
            for query in expressions(panel) {
                let chosen = [
                    ("$__rate_interval", "60s"),
                    ("$cluster", "test"),
                    ("$namespace", ".*"),
                    ("$job", "podcreds"),
                    ("$node", "a"),
                ];
                let query = chosen
                    .iter()
                    .fold(query.to_owned(), |query, (name, value)| {
                        query.replace(name, value)
                    });
                assert!(!query.contains('$'), "{query}");
                if scene.prometheus.count(&query) == 0.0 {
                    empty.push(format!("{name}: {}: {query}", panel["title"]));
                }
            }
        }
    }
    assert!(empty.is_empty(), "\n{}\n", empty.join("\n"));
}

/// But for those that are called what AWS's agent calls them.
fn metrics_are_well_formed(scene: &Scene) {
    let scraped = client::get(scene.node.agent.metrics_address(), "/metrics").unwrap();
    let mut complaints = prometheus::complaints(&scraped.body).unwrap();
    complaints.retain(|complaint| !complaint.starts_with("pod_identity_"));
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Draws the dashboards without Grafana, of what has happened so far: into the folder that is named
/// for them, or else to see that they can be drawn.
fn draw_pictures(scene: &Scene) {
    if !can_run(dashboards::check()) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let named = env::var_os("PODCREDS_PICTURES").map(checkout::file);
    let folder = named.as_deref().unwrap_or(temporary.path());
    for name in DASHBOARDS {
        let picture = folder.join(format!("{name}.svg"));
        let chosen = [("cluster", "test"), ("job", "podcreds"), ("node", "a")];
        let url = scene.prometheus.url();
        dashboards::draw(name, &url, scene.started.elapsed(), &chosen, &picture).unwrap();
        let drawn = fs::read_to_string(&picture).unwrap();
        let bytes = drawn.len();
        assert!((20_000..300_000).contains(&bytes), "{name}: {bytes} bytes");
        let not_shown = dashboards::not_shown(&read(name).unwrap(), &drawn);
        assert!(not_shown.is_empty(), "{name}: {not_shown:?}");
    }
}

/// The serving thread stands still for a second again and again.
fn slow_answers(scene: &Scene) {
    let [pod] = scene.pods("slow");
    wait_served(&pod, []);
    let ask = || {
        let stopped = scene.node.agent.stop_thread("podcreds");
        let mut client = pod.spawn(["get", "--timeout-ms", "5000"]);
        thread::sleep(Duration::from_millis(1300));
        drop(stopped);
        client.line();
        client.finish();
    };
    meanwhile(ask, || {
        scene.prometheus.wait_firing(["PodcredsAnswersSlow"])
    });
    let ask = || drop(pod.run(["get"]));
    meanwhile(ask, || scene.prometheus.wait_clear(["PodcredsAnswersSlow"]));
}

/// The agent starts more often than an alert allows, and is gone for a while. In this order: what
/// was seen too long ago before a start does not make that a restart.
fn restarts(scene: &mut Scene) {
    let start = |scene: &mut Scene| {
        scene.node.agent = Agent::on(&scene.node.node, &scene.node.eks_auth).start();
        scene.prometheus.scrape([("a", &scene.node.agent)]);
    };
    for number in 0..RESTARTS {
        scene.node.agent.terminate();
        start(scene);
        until("the next agent is seen", || {
            let starts = "changes(process_start_time_seconds{node=\"a\"}[5m])";
            scene.prometheus.count(&format!("{starts} > {number}")) > 0.0
        });
    }
    scene.prometheus.wait_firing(["PodcredsAgentRestarts"]);
    scene.prometheus.wait_clear(["PodcredsAgentRestarts"]);
    let gone = ["PodcredsAgentDown", "PodcredsAbsent"];
    scene.node.agent.terminate();
    scene.prometheus.wait_firing(gone);
    start(scene);
    scene.prometheus.wait_clear(gone);
}

#[test]
fn alerts_fire_in_their_fault_and_clear_after_it_and_every_panel_shows_something() {
    needs_privileges!();
    if !can_run(prometheus::check()) {
        return;
    }
    let mut scene = Scene::start();
    scene.prometheus.wait_clear(["PodcredsAbsent"]);
    scene.prometheus.wait_firing(["PodcredsPodsNotFound"]);
    let [first] = scene.pods("first");
    wait_served(&first, []);
    scene.prometheus.wait_clear(["PodcredsPodsNotFound"]);
    scene.prometheus.wait_quiet();

    node_path_only(&scene);
    strange_tokens(&scene);
    troubled_pods(&scene);
    keys_out_of_reach(&scene);
    eks_auth_in_trouble(&scene);
    slow_answers(&scene);
    restarts(&mut scene);
}

/// An agent that is throttled again and again calls three times a minute.
#[test]
fn the_alert_fires_of_an_agent_that_is_throttled_each_time_and_clears_when_it_is_not() {
    needs_privileges!();
    if !can_run(prometheus::check()) {
        return;
    }
    let node = Node::new();
    let prometheus = Prometheus::start(&node, 10);
    let scene = Scenario::run(node, EksAuth::start(), |agent| agent);
    prometheus.scrape([("a", &scene.agent)]);
    scene.eks_auth.fail(THROTTLED);
    let cold = scene.pod("cold").start();
    let ask = || {
        cold.run(["get", "--timeout-ms", "100"]);
    };
    meanwhile(ask, || {
        prometheus.wait_firing(["PodcredsThrottled"]);
        scene.eks_auth.heal();
        prometheus.wait_clear(["PodcredsThrottled"]);
    });
}
