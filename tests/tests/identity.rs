//! Nobody gets another pod's credentials, and nobody is mistaken for another pod.

use std::fs;

use podcreds_tests::{
    agent::LISTENERS,
    jwks::Jwks,
    needs_privileges,
    pod::{Client, Driver, Join, Pod},
    scenario::{ROLE, Scenario, assert_owned, wait_served},
    token::{BoundObject, Claims, Issuer, new_uid},
    wait::until,
};
use serde_json::Value;

const IPV6: &str = "[fd00:ec2::23]:80";

/// Runs `pod-client get` in a mixture of pods, with the environment of one of them.
fn get<'a>(join: &Join, environment: &Pod, arguments: impl IntoIterator<Item = &'a str>) -> Value {
    let mut command = environment.with_env(join.command(podcreds_tests::binary::pod_client()));
    command
        .args(["get", "--timeout-ms", "2000"])
        .args(arguments);
    Client::spawn(command).finish().pop().unwrap_or_default()
}

/// A pod whose listeners of both families are there.
fn pod_with_both_listeners(scene: &Scenario, name: &str) -> Pod {
    let pod = scene.served_pod(name);
    wait_served(&pod, ["--v6only", "--dst", IPV6]);
    pod
}

#[test]
fn a_stolen_token_is_refused_and_logged_once() {
    needs_privileges!();
    let scene = Scenario::start();
    let (thief, victim) = (scene.served_pod("thief"), scene.served_pod("victim"));
    let calls = scene.eks_auth.call_count();
    for _ in 0..3 {
        let answer = thief.run(["get", "--token", &victim.token()]);
        assert_eq!(answer["status"], 403, "{answer}");
        assert_eq!(answer["body"]["code"], "TokenOfAnotherPod", "{answer}");
    }
    assert_eq!(scene.eks_auth.call_count(), calls);
    let refused = scene
        .agent
        .metrics()
        .sum("podcreds_refusals_total", &[("reason", "other_pod")]);
    assert_eq!(refused, 3.0);
    let told = |line: &&podcreds_tests::agent::LogLine| {
        line.field("pod_uid").as_deref() == Some(thief.uid())
            && line.field("token_pod_uid").as_deref() == Some(victim.uid())
    };
    assert_eq!(scene.agent.logs().all().iter().filter(told).count(), 1);
    assert_owned(&thief.run(["get"]), &thief);
}

#[test]
fn a_token_that_has_brought_credentials_is_not_judged_again() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    for _ in 0..3 {
        assert_owned(&pod.run(["get"]), &pod);
    }
    let matched = [("decision", "matched")];
    let metrics = scene.agent.metrics();
    assert_eq!(
        metrics.sum("podcreds_identity_decisions_total", &matched),
        1.0
    );
}

#[test]
fn a_forged_token_brings_nothing() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let forged = Issuer::new().sign(pod.claims());
    let answer = pod.run(["get", "--token", &forged]);
    assert_eq!(answer["status"], 400, "{answer}");
    assert_eq!(answer["body"]["SecretAccessKey"], Value::Null);
    // Nor does it take away what the real one has brought.
    let calls = scene.eks_auth.call_count();
    assert_owned(&pod.run(["get"]), &pod);
    assert_eq!(scene.eks_auth.call_count(), calls);
}

#[test]
fn audit_mode_logs_and_off_mode_does_not_check() {
    needs_privileges!();
    for (mode, decision) in [("audit", "audited"), ("off", "unchecked")] {
        let scene = Scenario::with_args(["--identity", mode]);
        let (thief, victim) = (scene.served_pod("thief"), scene.served_pod("victim"));
        let answer = thief.run(["get", "--token", &victim.token()]);
        assert_owned(&answer, &victim);
        let labels = [("decision", decision)];
        let decisions = scene
            .agent
            .metrics()
            .sum("podcreds_identity_decisions_total", &labels);
        assert_eq!(decisions, 1.0, "{mode}");
    }
}

#[test]
fn a_delegate_may_use_the_tokens_of_others() {
    needs_privileges!();
    let kubelet = tempfile::tempdir().unwrap();
    let root = kubelet.path().display().to_string();
    let jwks = Jwks::start(&Issuer::cluster());
    let scene = Scenario::with_args([
        "--delegate",
        "kube-system/driver",
        "--kubelet-root",
        &root,
        "--jwks-url",
        &jwks.url(),
    ]);
    let victim = scene.served_pod("victim");
    // Kubelet has mounted a token before the pod starts, and whatever else the pod wants.
    let start = |name: &str, issuer: &Issuer| {
        let uid = new_uid();
        let pod = BoundObject {
            name: name.to_owned(),
            uid: uid.clone(),
        };
        let claims = Claims::new("kube-system", "driver", pod).audience("kubernetes");
        let volume = format!("pods/{uid}/volumes/kubernetes.io~projected/api");
        let data = kubelet.path().join(volume).join("..data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("token"), issuer.sign(&claims)).unwrap();
        scene.pod(name).uid(&uid).start()
    };
    let driver = start("driver", &Issuer::cluster());
    let stolen = ["get", "--token", &victim.token(), "--timeout-ms", "2000"];
    let mut answer = Value::Null;
    until("the driver is known as a delegate", || {
        answer = driver.run(stolen);
        answer["status"] == 200
    });
    assert_owned(&answer, &victim);

    let forger = start("forger", &Issuer::new());
    wait_served(&forger, []);
    let plain = scene.served_pod("plain");
    fs::create_dir_all(kubelet.path().join("pods").join(plain.uid())).unwrap();
    for pod in [&forger, &plain] {
        // Until its volumes have been looked at, it is told to ask again.
        until("the pod is known to be no delegate", || {
            let answer = pod.run(stolen);
            assert_ne!(answer["status"], 200, "{answer}");
            answer["status"] == 403
        });
    }
}

#[test]
fn a_cgroup_that_is_named_after_another_pod_is_still_the_outer_pods() {
    needs_privileges!();
    let scene = Scenario::start();
    let victim = scene.pod("victim").driver(Driver::Cgroupfs).start();
    wait_served(&victim, []);
    let thief = scene.served_pod("thief");
    let nested = thief
        .add_container()
        .join("kubepods/burstable")
        .join(victim.cgroup().file_name().unwrap());
    fs::create_dir_all(&nested).unwrap();
    let join = thief.join().cgroup(&nested);

    let answer = get(&join, &thief, []);
    assert_owned(&answer, &thief);
    let answer = get(&join, &thief, ["--token", &victim.token()]);
    assert_eq!(answer["status"], 403, "{answer}");
}

#[test]
fn a_process_that_enters_another_pods_namespace_keeps_its_identity() {
    needs_privileges!();
    let scene = Scenario::start();
    let thief = scene.served_pod("thief");
    let victim = pod_with_both_listeners(&scene, "victim");
    let join = thief.join().network(&victim.network());
    // The redirect is for the pod's own sockets: here nothing listens on that address.
    let answer = get(&join, &thief, []);
    assert_eq!(answer["error"], "ENETUNREACH", "{answer}");
    // Straight to the listener it is recorded as what it is.
    for token in [thief.token(), victim.token()] {
        for address in LISTENERS {
            let answer = get(&join, &thief, ["--dst", address, "--token", &token]);
            assert_eq!(answer["status"], 403, "{answer}");
            assert_eq!(answer["body"]["code"], "UnknownCaller", "{answer}");
        }
    }
    assert_owned(&victim.run(["get"]), &victim);
}

#[test]
fn a_process_in_no_pod_is_refused() {
    needs_privileges!();
    let scene = Scenario::start();
    let victim = pod_with_both_listeners(&scene, "victim");
    let outside = Join::nothing()
        .cgroup(scene.node.cgroup())
        .network(&victim.network());
    let answer = get(&outside, &victim, []);
    assert_eq!(answer["error"], "ENETUNREACH", "{answer}");
    for address in LISTENERS {
        let answer = get(&outside, &victim, ["--dst", address]);
        assert_eq!(answer["status"], 403, "{answer}");
        assert_eq!(answer["body"]["code"], "UnknownCaller", "{answer}");
    }
}

#[test]
fn a_direct_connection_to_the_listener_is_identified_like_a_redirected_one() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = pod_with_both_listeners(&scene, "web");
    let other = scene.served_pod("other");
    let [v4, v6] = LISTENERS;
    for address in [v4, v6, "[::ffff:127.0.0.1]:62723", "[::]:62723"] {
        assert_owned(&pod.run(["get", "--dst", address]), &pod);
        let answer = pod.run(["get", "--dst", address, "--token", &other.token()]);
        assert_eq!(answer["status"], 403, "{address}: {answer}");
    }
    let direct = scene
        .agent
        .metrics()
        .sum("podcreds_kernel_connects_total", &[("outcome", "direct")]);
    // The programs see every connect on the machine, those of other tests too.
    assert!(direct >= 8.0, "{direct}");
}

#[test]
fn a_connection_through_the_unspecified_address_is_identified() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = pod_with_both_listeners(&scene, "web");
    let other = scene.served_pod("other");
    // It leads to 127.0.0.1, or to the address that the socket is bound to.
    for destination in ["0.0.0.0:62723", "[::ffff:0.0.0.0]:62723"] {
        for bound in [&[][..], &["--bind", "127.0.0.1"]] {
            let ask = [&["get", "--dst", destination], bound].concat();
            assert_owned(&pod.run(ask.iter().copied()), &pod);
            let stolen = other.token();
            let answer = pod.run(ask.into_iter().chain(["--token", &stolen]));
            assert_eq!(answer["status"], 403, "{destination}: {answer}");
        }
    }
}

#[test]
fn a_socket_is_attributed_to_the_process_that_connects_it() {
    needs_privileges!();
    let scene = Scenario::start();
    let (giver, taker) = (scene.served_pod("giver"), scene.served_pod("taker"));
    let to = taker.app_cgroup().to_str().unwrap();
    let pass = |options: &[&str], token: &Pod| {
        let mut command = vec!["pass-socket", "--to-cgroup", to];
        command.extend(options);
        let token = token.token();
        command.extend(["--", "--token", &token, "--timeout-ms", "2000"]);
        giver.run(command)
    };
    // Connected by the giver, used by the taker: the giver's.
    assert_owned(&pass(&["--connect"], &giver), &giver);
    assert_eq!(pass(&["--connect"], &taker)["status"], 403);
    // Made by the giver, connected by the taker in the giver's namespace: nobody's to redirect.
    for token in [&giver, &taker] {
        let answer = pass(&[], token);
        assert_eq!(answer["error"], "ENETUNREACH", "{answer}");
    }
}

#[test]
fn a_process_is_judged_by_where_it_was_when_it_connected() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let elsewhere = scene.node.cgroup().to_str().unwrap();
    let left = pod.run([
        "get",
        "--move-to",
        elsewhere,
        "--move-when",
        "after-connect",
    ]);
    assert_owned(&left, &pod);
    let left = pod.run([
        "get",
        "--move-to",
        elsewhere,
        "--move-when",
        "before-connect",
    ]);
    assert_eq!(left["error"], "ENETUNREACH", "{left}");
}

#[test]
fn pods_in_the_hosts_network_are_told_apart() {
    needs_privileges!();
    let scene = Scenario::start();
    scene.eks_auth.associate("shop", "writer", "shop-writer");
    let one = scene.pod("one").host_network().start();
    let two = scene.node.pod("two").account("shop", "writer");
    let two = two.driver(Driver::Cgroupfs).host_network().start();
    for (pod, other, role) in [(&one, &two, ROLE), (&two, &one, "shop-writer")] {
        for destination in ["169.254.170.23:80", IPV6] {
            let answer = wait_served(pod, ["--dst", destination]);
            let token = answer["body"]["Token"].as_str().unwrap();
            assert!(token.contains(role), "{token}");
            let stolen = ["get", "--dst", destination, "--token", &other.token()];
            assert_eq!(pod.run(stolen)["status"], 403);
        }
    }
}

#[test]
fn two_pods_that_share_a_namespace_are_told_apart() {
    needs_privileges!();
    let scene = Scenario::start();
    let one = scene.served_pod("one");
    let two = scene.pod("two").network_of(&one).start();
    wait_served(&two, []);
    for (pod, other) in [(&one, &two), (&two, &one)] {
        assert_owned(&pod.run(["get"]), pod);
        let answer = pod.run(["get", "--token", &other.token()]);
        assert_eq!(answer["status"], 403, "{answer}");
    }
}

#[test]
fn a_token_for_another_audience_is_refused() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let claims = pod.claims().clone().audience("sts.amazonaws.com");
    let answer = pod.run(["get", "--token", &Issuer::cluster().sign(&claims)]);
    assert_eq!(answer["status"], 400, "{answer}");
}
