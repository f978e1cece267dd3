//! The road of a request from one end to the other, as a check of everything that the other tests
//! stand on.

use podcreds_tests::{
    agent::Agent,
    aws::{NodeCredentials, Owner},
    eks_auth::EksAuth,
    imds::Imds,
    needs_privileges,
    node::Node,
    pod::{Client, URI_IPV6},
    wait::until,
};

#[test]
fn a_pod_gets_its_own_roles_credentials() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate("shop", "reader", "shop-reader");
    let mut agent = Agent::on(&node, &eks_auth).start();
    let pod = node.pod("web").account("shop", "reader").start();

    let mut answer = serde_json::Value::Null;
    until("the agent finds the pod", || {
        answer = pod.run(["get"]);
        answer["status"] == 200
    });
    let owner: Owner = answer["body"]["Token"].as_str().unwrap().parse().unwrap();
    assert_eq!(owner.uid, pod.uid());
    assert_eq!(answer["peer"], "169.254.170.23:80");

    let sdk = pod.run(["sdk"]);
    assert_eq!(sdk["access_key_id"], owner.access_key_id(), "{sdk}");
    let mut ipv6 = pod.client(["sdk"]);
    ipv6.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", URI_IPV6);
    let ipv6 = Client::spawn(ipv6).finish();
    assert_eq!(ipv6[0]["access_key_id"], owner.access_key_id(), "{ipv6:?}");
    assert_eq!(eks_auth.call_count(), 1);

    assert_eq!(agent.probe("/readyz"), 200);
    assert!(agent.metrics().has("process_open_fds"));
    assert!(agent.usage().descriptors > 0);
    assert!(agent.terminate().success());
}

#[test]
fn the_node_can_be_known_from_imds_alone() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let signer = NodeCredentials::named("two");
    let imds = Imds::start(signer.clone());
    eks_auth.accept_signer(&signer);
    eks_auth.associate("default", "default", "any");
    let _agent = Agent::on(&node, &eks_auth).node_from(&imds).start();
    let pod = node.pod("web").start();
    until("the pod has credentials", || {
        pod.run(["get"])["status"] == 200
    });
    assert_eq!(eks_auth.calls()[0].signer, signer.access_key_id);
}

#[test]
fn a_pod_gets_nothing_with_another_pods_token() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate("shop", "reader", "shop-reader");
    let _agent = Agent::on(&node, &eks_auth).start();
    let victim = node.pod("victim").account("shop", "reader").start();
    let thief = node.pod("thief").account("shop", "other").start();
    until("the agent finds the victim", || {
        victim.run(["get"])["status"] == 200
    });
    until("the agent finds the thief", || {
        thief.run(["get"])["status"] == 404
    });
    let stolen = thief.run(["get", "--token", &victim.token()]);
    assert_eq!(stolen["status"], 403, "{stolen}");
}
