//! Faults of a pod.

use std::fs;

use podcreds_tests::{
    eks_auth::Fault,
    needs_privileges,
    scenario::{ACCOUNT, wait_served},
    token::new_uid,
};

use crate::scene::Scene;

#[test]
fn a_healthy_pod_is_all_green_by_name_and_by_uid() {
    needs_privileges!();
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let (pod, _app) = scene.pod(&[]);
    wait_served(&pod, []);
    for name in [format!("{}/web", ACCOUNT.0), pod.uid().to_owned()] {
        let found = scene.examine_pod(&name);
        found.assert_green();
        found.assert("listener", "pass", "127.0.0.1:", "");
        found.assert("request", "pass", "credentials in", "");
    }
}

#[test]
fn what_is_no_pod_of_this_node_is_not_found() {
    needs_privileges!();
    let scene = Scene::new();
    let found = scene.examine_pod(&new_uid());
    found.assert("known", "fail", "none of the 0 pods", "on this node");
}

#[test]
fn what_is_wrong_with_a_token_is_found() {
    needs_privileges!();
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let (pod, _app) = scene.pod(&[]);
    let issuer = scene.eks_auth.issuer();
    pod.write_token(&issuer.sign(&pod.claims().clone().expired()));
    let found = scene.examine_pod(pod.uid());
    found.assert("token", "fail", "expired", "kubelet's log");
    found.assert("eks-auth", "fail", "ExpiredToken", "check token");
    pod.write_token(&issuer.sign(&pod.claims().clone().audience("sts.amazonaws.com")));
    let found = scene.examine_pod(pod.uid());
    found.assert("token", "fail", "is for sts.amazonaws.com", "audience");
    fs::remove_file(pod.token_file()).unwrap();
    let found = scene.examine_pod(pod.uid());
    found.assert(
        "token",
        "fail",
        "eks-pod-identity-token",
        "make the pod anew",
    );
    // What would hold up the one that opens it.
    nix::unistd::mkfifo(&pod.token_file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let found = scene.examine_pod(pod.uid());
    found.assert("token", "fail", "no regular file", "make the pod anew");
}

#[test]
fn what_is_no_token_of_the_pods_for_eks_is_sent_nowhere() {
    needs_privileges!();
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let (pod, _app) = scene.pod(&[]);
    let issuer = scene.eks_auth.issuer();
    let other = scene.node.pod("other").account(ACCOUNT.0, ACCOUNT.1);
    let other = other.start();
    for file in [
        // As of a file that only root may read, at a path that the pod has chosen.
        "root:$6$salt$hash:19000:0:99999:7:::".to_owned(),
        issuer.sign(
            &pod.claims()
                .clone()
                .audience("https://kubernetes.default.svc"),
        ),
        other.token(),
    ] {
        pod.write_token(&file);
        scene.eks_auth.forget_calls();
        let found = scene.examine_pod(pod.uid());
        found.assert("token", "fail", "", "");
        found.assert("request", "warn", "asked without a token", "check token");
        assert_eq!(scene.eks_auth.call_count(), 0);
        found.assert_says_nothing_of("$6$salt");
    }
}

#[test]
fn a_process_in_a_network_of_its_own_is_sent_nothing() {
    needs_privileges!();
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let (pod, _app) = scene.pod_with_app(&["unshare", "-n", "sleep"], &[]);
    let found = scene.examine_pod(pod.uid());
    found.assert("token", "pass", "", "");
    found.assert(
        "request",
        "warn",
        "a network namespace of its own",
        "pod's network",
    );
}

#[test]
fn what_is_wrong_with_an_environment_is_found() {
    needs_privileges!();
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let uri = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    for (variables, check, status, seen, remedy) in [
        (
            (uri, ""),
            "environment",
            "fail",
            uri,
            "create-pod-identity-association",
        ),
        (
            (uri, "http://localhost/x"),
            "environment",
            "fail",
            "localhost",
            "manifest",
        ),
        (
            ("AWS_ACCESS_KEY_ID", "AKIASECRET"),
            "environment",
            "warn",
            "AWS_ACCESS_KEY_ID (static keys)",
            "take that out",
        ),
        (
            ("HTTP_PROXY", "http://user:pass@proxy"),
            "proxy",
            "warn",
            "HTTP_PROXY",
            "NO_PROXY",
        ),
    ] {
        let (pod, _app) = scene.pod(&[variables]);
        let found = scene.examine_pod(pod.uid());
        found.assert(check, status, seen, remedy);
    }
}

#[test]
fn a_pod_without_an_association_is_found() {
    needs_privileges!();
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let (pod, _app) = scene.pod(&[]);
    scene.eks_auth.dissociate(ACCOUNT.0, ACCOUNT.1);
    let found = scene.examine_pod(pod.uid());
    let command = "create-pod-identity-association";
    found.assert("eks-auth", "fail", "ResourceNotFound", command);
    found.assert("request", "fail", "404", "checks token and eks-auth");
    scene.eks_auth.fail(Fault::unavailable());
    scene.eks_auth.associate(ACCOUNT.0, ACCOUNT.1, "role");
    let found = scene.examine_pod(pod.uid());
    found.assert("eks-auth", "fail", "ServiceUnavailable", "podcreds doctor");
}

#[test]
fn a_pod_that_cannot_reach_the_agent_is_found() {
    needs_privileges!();
    let mut scene = Scene::new();
    let agent = scene.agent();
    let down = scene.node.pod("down").account(ACCOUNT.0, ACCOUNT.1);
    let down = down.loopback_down().start();
    let found = scene.examine_pod(down.uid());
    found.assert("listener", "fail", "lo) is down", "bring lo up");
    drop((agent, down));
    let (pod, _app) = scene.pod(&[]);
    let found = scene.examine_pod(pod.uid());
    found.assert(
        "listener",
        "fail",
        "podcreds does not run",
        "start the agent",
    );
}
