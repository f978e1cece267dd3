//! What the agent says about itself, and what it never says.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{collections::BTreeMap, fs, process::Command};

use podcreds_tests::{
    agent::{Agent, Metrics, Sample},
    aws::NodeCredentials,
    eks_auth::{EksAuth, Fault, Outcome},
    http::client,
    needs_privileges,
    pod::Pod,
    scenario::{Scenario, wait_served},
    token::Issuer,
    wait::until,
};

/// A scrape, as text.
fn scrape(agent: &Agent) -> String {
    let answer = client::get(agent.metrics_address(), "/metrics").unwrap();
    assert_eq!(answer.status, 200);
    let format = "text/plain; version=0.0.4";
    assert_eq!(answer.header("content-type"), Some(format));
    answer.body
}

/// An agent that has seen all that it has metrics for, as far as that is possible here.
fn busy() -> (Scenario, [Pod; 2]) {
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    for arguments in [&["--no-token"][..], &["--path", "/"], &["--token", "x"]] {
        pod.run([&["get"], arguments].concat());
    }
    scene.eks_auth.fail(Fault::unavailable());
    let cold = scene.pod("cold").start();
    until("the agent finds the pod", || {
        cold.run(["get"])["status"] == 503
    });
    (scene, [pod, cold])
}

/// What `promtool check metrics` checks, and that every series has a help and a type.
#[test]
fn metrics_are_well_formed() {
    needs_privileges!();
    let (scene, _pods) = busy();
    let text = scrape(&scene.agent);
    let comments = |kind: &str| {
        let mut found = BTreeMap::new();
        for line in text.lines() {
            if let Some((name, rest)) = line
                .strip_prefix(kind)
                .and_then(|rest| rest.split_once(' '))
            {
                let double = found.insert(name.to_owned(), rest.to_owned());
                assert!(double.is_none(), "{kind}{name} comes twice");
            }
        }
        found
    };
    let (helps, types) = (comments("# HELP "), comments("# TYPE "));
    assert!(types.len() > 20, "{types:?}");
    let is_ours = |name: &&String| !OFFICIAL.contains(&name.as_str());
    for (name, kind) in types.iter().filter(|(name, _)| is_ours(name)) {
        assert!(
            helps.get(name).is_some_and(|help| help.len() > 10),
            "{name}"
        );
        assert!(
            name.starts_with("podcreds_") || name.starts_with("process_"),
            "{name}"
        );
        let total = name.ends_with("_total");
        assert_eq!(kind == "counter", total, "{name} is a {kind}");
        for unit in [
            "_ms",
            "milliseconds",
            "microseconds",
            "_us",
            "minutes",
            "kilobytes",
        ] {
            assert!(!name.contains(unit), "{name} is in no base unit");
        }
        if kind == "histogram" {
            assert!(name.ends_with("_seconds"), "{name} has no unit");
        }
    }
    let metrics = Metrics::parse(&text);
    let mut seen = Vec::new();
    for sample in metrics.samples() {
        let kind = types
            .get(family(sample, &types))
            .unwrap_or_else(|| panic!("{sample:?}"));
        assert!(kind == "gauge" || sample.value >= 0.0, "{sample:?}");
        let series = (&sample.name, &sample.labels);
        assert!(!seen.contains(&series), "{series:?} comes twice");
        seen.push(series);
    }
    for (name, _) in types.iter().filter(|(_, kind)| *kind == "histogram") {
        assert_is_histogram(&metrics, name);
    }
}

#[test]
fn the_stages_of_requests_add_up_to_what_pods_wait() {
    needs_privileges!();
    let (scene, pods) = busy();
    for _ in 0..20 {
        assert_eq!(pods[0].run(["get"])["status"], 200);
    }
    let whole = "podcreds_connect_to_response_duration_seconds";
    let requests = |metrics: &Metrics| metrics.sum("podcreds_requests_total", &[]);
    let waits = |metrics: &Metrics| metrics.sum(&format!("{whole}_count"), &[]);
    until("the last answer has been noted as written", || {
        let metrics = scene.agent.metrics();
        waits(&metrics) == requests(&metrics)
    });
    let metrics = scene.agent.metrics();
    let stages = metrics.sum("podcreds_request_stage_duration_seconds_sum", &[]);
    let waited = metrics.sum(&format!("{whole}_sum"), &[]);
    assert!(
        waited > 0.0 && (stages - waited).abs() < 0.01 * waited,
        "{stages} {waited}"
    );
    for code in ["200", "400", "404", "503"] {
        let count = metrics.sum(&format!("{whole}_count"), &[("code", code)]);
        assert!(count > 0.0, "{code}");
    }
}

/// What AWS's agent calls its metrics: they have no unit and no `_total`, as dashboards expect
/// them.
const OFFICIAL: [&str; 3] = [
    "pod_identity_http_response",
    "pod_identity_cache_state",
    "pod_identity_cache_errors",
];

#[test]
fn the_official_metrics_say_the_same_as_ours() {
    needs_privileges!();
    let (scene, pods) = busy();
    assert_eq!(pods[0].run(["get"])["status"], 200);
    let metrics = scene.agent.metrics();
    for code in ["200", "400", "404", "503"] {
        let labels = [("code", code)];
        let official = metrics.sum("pod_identity_http_response", &labels);
        let ours = metrics.sum("podcreds_request_duration_seconds_count", &labels);
        assert!(
            official > 0.0 && official == ours,
            "{code}: {official} {ours}"
        );
    }
    let state = |state| metrics.sum("pod_identity_cache_state", &[("state", state)]);
    let ours = |result| metrics.sum("podcreds_cache_requests_total", &[("result", result)]);
    assert_eq!(state("hit"), ours("hit") + ours("stale"));
    assert_eq!(state("miss"), ours("miss") + ours("joined"));
    assert!(state("hit") > 0.0 && state("miss") > 0.0 && state("evicted") == 0.0);
}

/// The name under which a sample's help and type stand.
fn family<'a>(sample: &'a Sample, types: &BTreeMap<String, String>) -> &'a str {
    let parts = ["_bucket", "_sum", "_count"].into_iter();
    let mut bases = parts.filter_map(|part| sample.name.strip_suffix(part));
    bases
        .find(|base| types.get(*base).is_some_and(|kind| kind == "histogram"))
        .unwrap_or(&sample.name)
}

/// Checks that the buckets of each series grow, and that the last of them is the count.
fn assert_is_histogram(metrics: &Metrics, name: &str) {
    let of = |part: &str| {
        let name = format!("{name}{part}");
        let samples = metrics.samples().iter();
        samples.filter(move |sample| sample.name == name)
    };
    assert!(of("_count").count() > 0, "{name} has no series");
    for count in of("_count") {
        let labels: Vec<_> = count
            .labels
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let buckets: Vec<_> = of("_bucket")
            .filter(|bucket| bucket.matches(&format!("{name}_bucket"), &labels))
            .map(|bucket| (bucket.labels["le"].parse::<f64>().unwrap(), bucket.value))
            .collect();
        let grow = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        assert!(buckets.windows(2).all(grow), "{name}: {buckets:?}");
        assert_eq!(
            buckets.last(),
            Some(&(f64::INFINITY, count.value)),
            "{name}"
        );
    }
}

#[test]
fn every_stage_is_measured() {
    needs_privileges!();
    let (scene, _pods) = busy();
    let metrics = scene.agent.metrics();
    for (name, labels) in [
        (
            "podcreds_kernel_connects_total",
            &[("outcome", "redirected_ipv4")][..],
        ),
        (
            "podcreds_kernel_accepts_total",
            &[("outcome", "identified")],
        ),
        ("podcreds_pods", &[]),
        ("podcreds_listeners", &[]),
        (
            "podcreds_identity_decisions_total",
            &[("decision", "matched")],
        ),
        (
            "podcreds_request_duration_seconds_count",
            &[("code", "200")],
        ),
        (
            "podcreds_request_duration_seconds_count",
            &[("code", "503")],
        ),
        ("podcreds_connect_to_response_duration_seconds_count", &[]),
        ("podcreds_refusals_total", &[("reason", "malformed_token")]),
        ("podcreds_cache_requests_total", &[("result", "miss")]),
        ("podcreds_cache_entries", &[]),
        (
            "podcreds_upstream_request_duration_seconds_count",
            &[("outcome", "ok")],
        ),
        (
            "podcreds_upstream_request_duration_seconds_count",
            &[("outcome", "unavailable")],
        ),
        (
            "podcreds_request_stage_duration_seconds_count",
            &[("stage", "exchange")],
        ),
        ("podcreds_requests_total", &[("outcome", "served")]),
        ("podcreds_requests_total", &[("outcome", "failed")]),
        ("podcreds_requests_total", &[("outcome", "client_fault")]),
        (
            "podcreds_limiter_wait_duration_seconds_count",
            &[("urgency", "asked")],
        ),
        ("podcreds_pod_listener_duration_seconds_count", &[]),
        ("podcreds_pod_first_credentials_duration_seconds_count", &[]),
        ("process_cpu_seconds_total", &[]),
        ("process_open_fds", &[]),
        ("process_resident_memory_bytes", &[]),
    ] {
        assert!(metrics.sum(name, labels) > 0.0, "{name}{labels:?}");
    }
    let build = metrics
        .samples()
        .iter()
        .find(|sample| sample.name == "podcreds_build_info");
    let build = build.unwrap();
    assert_eq!(build.value, 1.0);
    assert_eq!(build.labels["version"], env!("CARGO_PKG_VERSION"));
    assert!(!build.labels["revision"].is_empty());
}

#[test]
fn only_what_is_there_is_served() {
    let agent = Agent::on_loopback(&EksAuth::start()).start();
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 404),
        ("/", 404),
    ] {
        assert_eq!(agent.probe(path), status, "{path}");
    }
    let elsewhere = client::get(agent.metrics_address(), "/healthz").unwrap();
    assert_eq!(elsewhere.status, 404);
}

/// The whole of a secret, and the parts of a token that are worth something by themselves.
fn parts(secret: &str) -> Vec<&str> {
    let parts = secret.split('.').filter(|part| part.len() > 20);
    parts.chain([secret]).collect()
}

#[test]
fn secrets_are_in_neither_logs_nor_metrics() {
    needs_privileges!();
    let mut scene = Scenario::with_args(["--verbosity", "trace"]);
    let pod = scene.served_pod("web");
    let thief = scene.served_pod("thief");
    let cluster = Issuer::cluster();
    let mut secrets = vec![pod.token(), thief.token()];
    let mut ask = |token: String| {
        let answer = pod.run(["get", "--token", &token]);
        secrets.push(token);
        answer["status"].as_u64().unwrap()
    };
    // Everything that a token can be, and all that can happen to it.
    assert_eq!(ask(thief.token()), 403);
    assert_eq!(ask(Issuer::new().sign(pod.claims())), 400);
    assert_eq!(ask(cluster.sign(&pod.claims().clone().expired())), 400);
    assert_eq!(
        ask(format!("garbage.{}.garbage", "c2VjcmV0".repeat(8))),
        400
    );
    for fault in [
        Fault::Nonsense,
        Fault::Reset,
        Fault::Truncated,
        Fault::Expired,
        Fault::Missing("/credentials/accessKeyId"),
        Fault::Throttle {
            retry_after: Some(0),
        },
        Fault::internal(),
    ] {
        scene.eks_auth.fail_next(1, fault);
        let cold = scene.pod("cold").start();
        wait_served(&cold, []);
        secrets.push(cold.token());
    }
    for call in scene.eks_auth.calls() {
        if let Outcome::Issued(owner) = call.outcome {
            secrets.push(format!("secret-of-{}", owner.access_key_id()));
            secrets.push(owner.to_string());
        }
    }
    let node = NodeCredentials::default();
    secrets.extend([node.secret_access_key, node.session_token]);

    let metrics = scrape(&scene.agent);
    scene.agent.terminate();
    let lines = scene.agent.logs().to_the_end();
    assert!(
        lines
            .iter()
            .any(|line| matches!(&*line.level, "DEBUG" | "TRACE"))
    );
    for line in &lines {
        assert!(!line.level.is_empty(), "not JSON: {}", line.raw);
        assert!(line.field("timestamp").is_some(), "{}", line.raw);
    }
    let said = lines
        .iter()
        .map(|line| line.raw.as_str())
        .chain([metrics.as_str()]);
    for text in said {
        for part in secrets.iter().flat_map(|secret| parts(secret)) {
            assert!(
                !text.contains(part),
                "a secret is shown: {part}\nin: {text}"
            );
        }
    }
}

/// Root without the capabilities for that may still look into processes that have no more
/// privileges than itself, unless they have made themselves undumpable.
#[test]
fn memory_is_neither_dumped_nor_shown() {
    needs_privileges!();
    let few = "-sys_ptrace,-sys_admin,-perfmon";
    let unprivileged = ["setpriv", "--bounding-set", few];
    let agent = Agent::on_loopback(&EksAuth::start());
    let agent = agent.through(unprivileged).start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let values: Vec<_> = core.unwrap().split_whitespace().skip(4).collect();
    assert_eq!(values, ["0", "0", "bytes"]);

    let can_read = |pid: &str| {
        let mut command = Command::new(unprivileged[0]);
        let file = format!("/proc/{pid}/environ");
        command.args(&unprivileged[1..]).args(["cat", &file]);
        command.output().unwrap().status.success()
    };
    assert!(can_read("self"), "the test itself is wrong");
    assert!(!can_read(&agent.id().to_string()));
}
