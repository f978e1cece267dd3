//! The node path, as pods use it: over the network, from addresses of their own, known by a token
//! only.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{net::SocketAddr, time::Duration};

use podcreds_tests::{
    agent::Agent,
    binary,
    eks_auth::{EksAuth, Fault},
    jwks::Jwks,
    needs_privileges,
    node::Node,
    pod::{Client, Join, Pod},
    privileged::can_run,
    scenario::{ACCOUNT, ROLE, Road, Scenario, assert_owned, wait_served},
    sdk::{Got, Sdk},
    token::{BoundObject, Claims, Issuer},
    wait::until,
    wire,
};
use serde_json::{Value, json};

const IPV6: [&str; 2] = ["--dst", "[fd00:ec2::23]:80"];

/// A scene in which the agent knows the cluster's keys.
fn with_keys() -> (Scenario, Jwks) {
    let node = Node::with_network();
    let (eks_auth, jwks) = node.enter(|| (EksAuth::start(), Jwks::start(&Issuer::cluster())));
    let scene = Scenario::run(node, eks_auth, |agent| {
        let agent = agent.set("--datapath", "node");
        agent.set("--jwks-url", &jwks.url())
    });
    (scene, jwks)
}

/// What a process gets that is in a pod's network, but in no pod that the agent knows: as a
/// sandboxed pod's are.
fn ask_unknown(pod: &Pod) -> Value {
    let mut command = Join::nothing()
        .network(&pod.network())
        .command(binary::pod_client());
    command.args(["get", "--token", &pod.token(), "--timeout-ms", "2000"]);
    Client::spawn(command).finish().pop().unwrap()
}

fn decisions(agent: &Agent, decision: &str) -> f64 {
    let labels = [("decision", decision)];
    agent
        .metrics()
        .sum("podcreds_identity_decisions_total", &labels)
}

#[test]
fn unmodified_sdks_are_served() {
    needs_privileges!();
    let scene = Scenario::on(Road::Node);
    for sdk in Sdk::ALL.into_iter().filter(|sdk| can_run(sdk.check())) {
        let pod = scene.pod(&format!("{sdk:?}").to_lowercase()).start();
        match sdk.run(|program| pod.command(program)).unwrap() {
            Got::Credentials(owner) => assert_eq!(owner.uid, pod.uid(), "{}", sdk.name()),
            other => panic!("{}: {other:?}", sdk.name()),
        }
    }
    assert_eq!(
        scene
            .agent
            .metrics()
            .sum("podcreds_kernel_accepts_total", &[]),
        0.0
    );
}

#[test]
fn a_pods_two_families_share_one_exchange() {
    needs_privileges!();
    let scene = Scenario::on(Road::Node);
    let pod = scene.served_pod("web");
    assert_owned(&wait_served(&pod, IPV6), &pod);
    assert_owned(&pod.run(["get"]), &pod);
    assert_eq!(scene.eks_auth.calls_for_pod(pod.uid()).len(), 1);
}

#[test]
fn both_families_share_one_limiter() {
    let eks_auth = EksAuth::start();
    eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
    let agent = Agent::on_loopback(&eks_auth).set("--bind-hosts", "127.0.0.1,[::1]");
    let agent = agent.start();
    let listening = agent.logs().with_message("node path listening");
    let addresses = listening.iter().map(|line| line.field("address").unwrap());
    let addresses: Vec<SocketAddr> = addresses.map(|it| it.parse().unwrap()).collect();
    let families = addresses.iter().map(SocketAddr::is_ipv4);
    assert_eq!(families.collect::<Vec<_>>(), [true, false]);
    // What EKS Auth says to a call for one of them holds for the other.
    let retry_after = Some(60);
    eks_auth.fail(Fault::Throttle { retry_after });
    for address in addresses {
        let claims = Claims::new(ACCOUNT.0, ACCOUNT.1, BoundObject::new("pod"));
        let token = eks_auth.issuer().sign(&claims);
        assert_eq!(wire::ask_at(address, &token)["status"], 503);
    }
    assert_eq!(eks_auth.call_count(), 1);
}

/// How many pods flood.
const FLOODERS: usize = 4;
/// How long a pod may wait meanwhile, in milliseconds. In one queue with the tokens of the flood
/// that may wait, it would be four seconds and more.
const NOT_LONG: u64 = 3000;
/// How many pods may be tried until two have not waited for long: on a busy machine, a pod waits
/// for that too.
const TRIES: usize = 6;

#[test]
fn a_flood_of_forged_tokens_keeps_no_other_address_waiting_without_keys() {
    needs_privileges!();
    let scene = Scenario::on_network("node", []);
    let flooders: Vec<_> = (0..FLOODERS)
        .map(|number| scene.pod(&format!("flooder-{number}")).start())
        .collect();
    let load = ["--threads", "150", "--rate", "200", "--until-end-of-input"];
    let flood = [&["storm", "--forge"], &load[..]].concat();
    let floods: Vec<_> = flooders
        .iter()
        .map(|pod| pod.spawn(flood.iter().copied()))
        .collect();
    let mut waits: Vec<u64> = Vec::new();
    while waits.iter().filter(|waited| **waited < NOT_LONG).count() < 2 {
        assert!(waits.len() < TRIES, "pods have waited for {waits:?} ms");
        let pod = scene.pod(&format!("cold-{}", waits.len())).start();
        let before = scene.eks_auth.refused().len();
        until("the flood reaches EKS Auth", || {
            scene.eks_auth.refused().len() > before + 100
        });
        let answer = pod.run(["patient"]);
        assert_owned(&answer, &pod);
        waits.extend(answer["waited_ms"].as_u64());
    }
    for flood in floods {
        let tally = flood.finish().pop().unwrap();
        assert_eq!(tally["owners"], json!({}), "{tally}");
    }
}

#[test]
fn an_address_with_too_many_connections_keeps_no_other_out() {
    needs_privileges!();
    let arguments = ["--max-connections-per-pod", "20"];
    let scene = Scenario::on_network("node", arguments);
    let (greedy, other) = (scene.served_pod("greedy"), scene.served_pod("other"));
    let hold = ["hold", "--mode", "idle", "--connections", "30"];
    let mut holder = greedy.spawn(hold);
    assert_eq!(holder.line()["failed"], json!({}));
    let refused = [("reason", "too_many_connections")];
    let agent = &scene.agent;
    agent.wait_metric("podcreds_refusals_total", &refused, |count| count == 10.0);
    agent.wait_metric("podcreds_connections", &[], |count| count == 20.0);
    assert_owned(&other.run(["get"]), &other);
    assert_owned(&other.run(["get", "--dst", "[fd00:ec2::23]:80"]), &other);
}

#[test]
fn a_rotated_token_is_known_by_its_signature() {
    needs_privileges!();
    let (scene, jwks) = with_keys();
    let pod = scene.served_pod("web");
    scene.eks_auth.fail(Fault::unavailable());
    pod.write_token(&Issuer::cluster().sign(&pod.claims().clone().expires_in(TWO_DAYS)));
    assert_owned(&pod.run(["get"]), &pod);
    assert_owned(&wait_served(&pod, IPV6), &pod);
    assert_eq!(scene.eks_auth.call_count(), 1);
    assert_eq!(jwks.fetches(), 1);
    let metrics = scene.agent.metrics();
    assert_eq!(metrics.sum("podcreds_tokens_adopted_total", &[]), 1.0);
    assert_eq!(metrics.sum("podcreds_cache_entries", &[]), 1.0);
}

/// Longer than the first token's life, so that the second one is another within the same second
/// too.
const TWO_DAYS: Duration = Duration::from_secs(2 * 24 * 60 * 60);

#[test]
fn tokens_that_the_cluster_has_not_signed_for_eks_are_refused_by_the_agent() {
    needs_privileges!();
    let (scene, _jwks) = with_keys();
    let (victim, thief) = (scene.served_pod("victim"), scene.served_pod("thief"));
    let calls = scene.eks_auth.call_count();
    let (own, wanted) = (thief.token(), victim.token());
    let (own, wanted): (Vec<_>, Vec<_>) = (own.split('.').collect(), wanted.split('.').collect());
    let forged = [own[0], wanted[1], own[2]].join(".");
    let foreign = victim.claims().clone().audience("sts.amazonaws.com");
    let foreign = Issuer::cluster().sign(&foreign);
    for (token, reason) in [(&forged, "not signed"), (&foreign, "another audience")] {
        let answer = thief.run(["get", "--token", token]);
        assert_eq!(answer["status"], 400, "{answer}");
        assert!(answer.to_string().contains(reason), "{answer}");
    }
    assert_eq!(scene.eks_auth.call_count(), calls);
    // What no key can decide goes to EKS Auth, and reaches nothing that is in memory.
    let stranger = Issuer::new().sign(victim.claims());
    assert_eq!(thief.run(["get", "--token", &stranger])["status"], 400);
    assert_eq!(scene.eks_auth.call_count(), calls + 1);
    assert_owned(&victim.run(["get"]), &victim);
}

#[test]
fn with_both_paths_a_pod_that_is_not_redirected_is_served_by_its_token() {
    needs_privileges!();
    let scene = Scenario::on_network("auto", []);
    let pod = scene.redirected_pod("web");
    let sandboxed = scene.pod("sandboxed").start();
    assert_owned(&pod.run(["get"]), &pod);
    let agent = &scene.agent;
    assert_eq!(decisions(agent, "node_path"), 0.0, "the pod was redirected");
    assert_owned(&ask_unknown(&sandboxed), &sandboxed);
    assert_eq!(decisions(agent, "node_path"), 1.0);
    assert_eq!(scene.eks_auth.call_count(), 2);
    // This pod is redirected, so its token is refused on any other path.
    let stolen = ask_unknown(&pod);
    assert_eq!(stolen["status"], 503, "{stolen}");
    assert_eq!(stolen["body"]["code"], "Detour", "{stolen}");
    assert_owned(&pod.run(["get"]), &pod);
}

/// After the redirect has ended all pods come by the node path, with tokens that are not stolen.
#[test]
fn with_both_paths_the_node_path_serves_all_pods_after_the_redirect_has_ended() {
    needs_privileges!();
    let mut scene = Scenario::on_network("auto", []);
    let pod = scene.served_pod("web");
    let both = ["--dst", "169.254.170.23:80", "--dst", IPV6[1]];
    let load = ["--threads", "8", "--rate", "300", "--until-end-of-input"];
    let storm = pod.spawn([&["storm"], &both[..], &load].concat());
    let answers = "podcreds_request_duration_seconds_count";
    let agent = &scene.agent;
    agent.wait_metric(answers, &[("code", "200")], |count| count >= 100.0);
    assert!(scene.agent.terminate().success());
    until("nobody answers", || {
        pod.run(["get"])["error"] == "ECONNREFUSED"
    });
    let tally = storm.finish().pop().unwrap();
    let outcomes = tally["outcomes"].as_object().unwrap();
    let outcomes: Vec<_> = outcomes.keys().collect();
    assert_eq!(outcomes, ["200", "ECONNREFUSED"], "{tally}");
}

/// The next agent accepts from the same listeners, and knows of no redirected pod.
#[test]
fn an_update_from_both_paths_to_the_node_path_loses_no_request() {
    needs_privileges!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let node = Node::with_network();
    let eks_auth = node.enter(EksAuth::start);
    let mut scene = Scenario::run(node, eks_auth, |agent| {
        let agent = agent.set("--datapath", "auto");
        agent.set("--handover-dir", folder)
    });
    let pod = scene.served_pod("web");
    let load = ["--threads", "8", "--rate", "300", "--until-end-of-input"];
    let storm = pod.spawn([&["storm"], &load[..]].concat());
    let next = Agent::on(&scene.node, &scene.eks_auth).set("--datapath", "node");
    let next = next.set("--handover-dir", folder).start();
    assert!(scene.agent.terminate().success());
    assert_owned(&pod.run(["get"]), &pod);
    let tally = storm.finish().pop().unwrap();
    let outcomes = tally["outcomes"].as_object().unwrap();
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["200"], "{tally}");
    drop(next);
}

/// A proxy in another pod, and one on the node: neither counts as a thief, and neither gets
/// credentials.
#[test]
fn with_both_paths_a_request_through_a_proxy_is_refused_with_the_reason() {
    needs_privileges!();
    let scene = Scenario::on_network("auto", []);
    let [pod, proxy] = ["web", "proxy"].map(|name| scene.redirected_pod(name));
    let token = pod.token();
    let forwarded = ["--token", &token, "--header", "Via: 1.1 squid"];
    let absolute = [
        "--token",
        &token,
        "--path",
        "http://169.254.170.23/v1/credentials",
    ];
    for options in [forwarded, absolute] {
        let from_pod = proxy.run([&["get"], &options[..]].concat());
        let mut on_node = Join::nothing()
            .network(&proxy.network())
            .command(binary::pod_client());
        on_node.args(["get", "--timeout-ms", "2000"]).args(options);
        let from_node = Client::spawn(on_node).finish().pop().unwrap();
        for answer in [from_pod, from_node] {
            assert_eq!(answer["status"], 403, "{answer}");
            assert_eq!(answer["body"]["code"], "ThroughProxy", "{answer}");
            let message = answer["body"]["message"].as_str().unwrap();
            assert!(message.contains("NO_PROXY"), "{message}");
        }
    }
    let metrics = scene.agent.metrics();
    let refusals = |reason| metrics.sum("podcreds_refusals_total", &[("reason", reason)]);
    let counted = ["proxy", "other_pod", "detour"].map(refusals);
    assert_eq!(counted, [4.0, 0.0, 0.0]);
    assert_eq!(decisions(&scene.agent, "proxied"), 4.0);
    let logged = scene.agent.logs();
    let logged = logged
        .all()
        .into_iter()
        .filter(|line| line.message.contains("NO_PROXY"));
    assert_eq!(logged.count(), 2, "once for the proxy, once for the pod");
}

#[test]
fn with_ebpf_alone_a_token_from_an_unknown_process_is_not_served() {
    needs_privileges!();
    let scene = Scenario::on_network("ebpf", []);
    let pod = scene.served_pod("web");
    let answer = ask_unknown(&pod);
    assert_eq!(answer["error"], "ECONNREFUSED", "{answer}");
    assert_eq!(
        scene
            .agent
            .metrics()
            .sum("podcreds_paths", &[("path", "node")]),
        0.0
    );
}
