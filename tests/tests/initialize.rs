//! `podcreds initialize`, in network namespaces of its own.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::process::Output;

use podcreds_tests::{binary, needs_privileges, network::HostNetwork, privileged::can_run};
use serde_json::Value;

const LINK: &str = "pod-id-link0";
const ADDRESSES: [(&str, u64); 2] = [("169.254.170.23", 32), ("fd00:ec2::23", 128)];

fn initialize(network: &HostNetwork) -> Output {
    let mut command = network.join().command(binary::podcreds());
    command.args(["initialize", "--log-format", "json"]);
    command.output().unwrap()
}

/// Runs it where it must succeed, and returns what it logged.
#[track_caller]
fn succeed(network: &HostNetwork) -> String {
    let output = initialize(network);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn json(network: &HostNetwork, arguments: &str) -> Vec<Value> {
    let text = network.ip(&format!("-json {arguments}"));
    serde_json::from_str(&text).unwrap()
}

/// Checks that everything is there, once.
#[track_caller]
fn assert_ready(network: &HostNetwork) {
    let link = json(network, &format!("address show dev {LINK}")).remove(0);
    let flags = link["flags"].as_array().unwrap();
    assert!(flags.contains(&"UP".into()), "{link}");
    for (address, bits) in ADDRESSES {
        let held = link["addr_info"].as_array().unwrap();
        let matching = held.iter().filter(|info| info["local"] == address);
        let lengths: Vec<_> = matching.map(|info| info["prefixlen"].clone()).collect();
        assert_eq!(lengths, [bits], "{link}");
        let family = if bits == 32 { "-4" } else { "-6" };
        let routes = json(network, &format!("{family} route show table main"));
        let matching = routes.iter().filter(|route| route["dst"] == address);
        let devices: Vec<_> = matching.map(|route| route["dev"].clone()).collect();
        assert_eq!(devices, [LINK], "{routes:?}");
    }
}

#[test]
fn it_makes_what_is_missing_and_may_be_run_again() {
    needs_privileges!();
    let network = HostNetwork::with_link();
    let said = succeed(&network);
    assert!(
        said.contains("ready for 169.254.170.23 and fd00:ec2::23"),
        "{said}"
    );
    assert_ready(&network);
    let said = succeed(&network);
    assert_eq!(said.lines().count(), 1, "something was made twice: {said}");
    assert_ready(&network);
}

#[test]
fn it_finishes_what_is_half_made() {
    needs_privileges!();
    let network = HostNetwork::with_link();
    succeed(&network);
    for damage in [
        format!("link set {LINK} down"),
        format!("address del 169.254.170.23/32 dev {LINK}"),
        format!("address del fd00:ec2::23/128 dev {LINK}"),
        format!("route del 169.254.170.23/32 dev {LINK}"),
        format!("-6 route del fd00:ec2::23/128 dev {LINK}"),
        format!("address flush dev {LINK}"),
    ] {
        network.ip(&damage);
        succeed(&network);
        assert_ready(&network);
    }
}

/// As AWS's agent leaves it behind.
#[test]
fn it_takes_routes_of_other_programs_as_they_are() {
    needs_privileges!();
    let network = HostNetwork::with_link();
    network.ip(&format!("link set {LINK} up"));
    network.ip(&format!(
        "route add 169.254.170.23/32 dev {LINK} scope global proto boot"
    ));
    let said = succeed(&network);
    assert!(
        !said.contains("added the route\",\"address\":\"169"),
        "{said}"
    );
    assert_ready(&network);
}

#[test]
fn it_goes_on_without_ipv6() {
    needs_privileges!();
    let network = HostNetwork::with_link();
    let mut disable = network.join().command("sh");
    let all = "for one in all default pod-id-link0; do \
               echo 1 > /proc/sys/net/ipv6/conf/$one/disable_ipv6 || exit 1; done";
    assert!(disable.args(["-c", all]).status().unwrap().success());
    let said = succeed(&network);
    assert!(
        said.contains("\"WARN\"") && said.contains("without fd00:ec2::23"),
        "{said}"
    );
    let routes = network.ip("route get 169.254.170.23");
    assert!(routes.contains("local 169.254.170.23"), "{routes}");
}

#[test]
fn a_route_that_leads_elsewhere_is_reported() {
    needs_privileges!();
    let network = HostNetwork::with_link();
    network.ip("route add 169.254.170.23/32 dev other");
    let output = initialize(&network);
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("169.254.170.23 is routed to another link"),
        "{said}"
    );
}

#[test]
fn a_missing_capability_is_reported() {
    needs_privileges!();
    let network = HostNetwork::with_link();
    let mut command = network.join().command("setpriv");
    command.args(["--bounding-set", "-net_admin"]);
    let output = command
        .arg(binary::podcreds())
        .arg("initialize")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(77));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
}

/// The whole of it, which takes a kernel that has dummy links.
#[test]
fn without_a_link_it_makes_a_dummy() {
    needs_privileges!();
    let network = HostNetwork::new();
    if !can_run(network.has_dummies().then_some(()).ok_or_else(|| {
        "needs dummy links (modprobe dummy); `cargo xtask kernels` has them".to_owned()
    })) {
        return;
    }
    let said = succeed(&network);
    assert_ready(&network);
    let link = json(&network, &format!("-details link show {LINK}")).remove(0);
    assert_eq!(link["linkinfo"]["info_kind"], "dummy", "{said}");
    succeed(&network);
}

#[test]
fn a_kernel_without_dummy_links_is_reported() {
    needs_privileges!();
    let network = HostNetwork::new();
    if network.has_dummies() {
        eprintln!("skipped: this kernel has dummy links");
        return;
    }
    let output = initialize(&network);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("modprobe dummy"), "{said}");
}
