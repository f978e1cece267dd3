//! What only old kernels can show. `cargo xtask kernels` runs this on one.

use podcreds_tests::{
    agent::Agent,
    eks_auth::EksAuth,
    needs_privileges,
    node::Node,
    scenario::{ACCOUNT, ROLE, assert_owned},
};

/// From sysexits.h.
const UNAVAILABLE: Option<i32> = Some(69);

/// What must be said: what is wrong, and what can be done about it.
const TOO_OLD: [&str; 2] = ["this kernel is older than 5.15", "--datapath node"];

#[test]
#[ignore = "for kernels before 5.15: cargo xtask kernels 5.10"]
fn a_kernel_that_is_too_old_is_reported() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    let mut agent = Agent::on(&node, &eks_auth).spawn();
    assert_eq!(agent.wait_exit().code(), UNAVAILABLE);
    let last = agent.logs().to_the_end().pop().unwrap();
    for part in TOO_OLD {
        assert!(last.message.contains(part), "{last:?}");
    }
}

#[test]
#[ignore = "for kernels before 5.15: cargo xtask kernels 5.10"]
fn an_old_kernel_has_the_node_path() {
    needs_privileges!();
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
    let agent = Agent::on(&node, &eks_auth)
        .set("--datapath", "auto")
        .args(["--bind-hosts", "127.0.0.1", "--port", "0"])
        .start();
    let warnings = agent.logs().all().into_iter();
    let warnings: Vec<_> = warnings.filter(|line| line.level == "WARN").collect();
    assert!(
        warnings.len() == 1 && warnings[0].raw.contains(TOO_OLD[0]),
        "{warnings:?}"
    );

    let pod = node.pod("web").account(ACCOUNT.0, ACCOUNT.1);
    let pod = pod.host_network().start();
    let at = agent.node_path_address().to_string();
    assert_owned(&pod.run(["get", "--dst", &at]), &pod);
}
