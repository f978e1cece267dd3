//! Who is on the demo's node, and what each of them should get.

use podcreds_tests::{
    eks_auth::EksAuth,
    node::Node,
    pod::{Driver, Pod, Qos, URI, URI_IPV6},
};

/// The Kubernetes namespace of all pods.
pub(crate) const NAMESPACE: &str = "shop";
/// Service accounts that have a role, and the role.
const ASSOCIATIONS: [(&str, &str); 2] =
    [("orders", "orders-writer"), ("reports", "reports-reader")];
/// A service account without one.
const NO_ROLE: &str = "website";

/// A pod, and what its clients are told and should get.
pub(crate) struct Member {
    pub(crate) pod: Pod,
    /// What is special about it, for a reader.
    pub(crate) kind: String,
    pub(crate) family: Family,
    /// The role that its service account has.
    pub(crate) role: Option<&'static str>,
}

/// Which of the two addresses a pod is told to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn uri(self) -> &'static str {
        match self {
            Self::V4 => URI,
            Self::V6 => URI_IPV6,
        }
    }

    /// What the agent's metrics call a redirect of this family.
    pub(crate) fn outcome(self) -> &'static str {
        match self {
            Self::V4 => "redirected_ipv4",
            Self::V6 => "redirected_ipv6",
        }
    }
}

/// Tells EKS Auth which service account has which role.
pub(crate) fn associate(eks_auth: &EksAuth) {
    for (account, role) in ASSOCIATIONS {
        eks_auth.associate(NAMESPACE, account, role);
    }
}

/// The service accounts, and the role that each has.
pub(crate) fn accounts() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    let with_role = ASSOCIATIONS
        .into_iter()
        .map(|(name, role)| (name, Some(role)));
    with_role.chain([(NO_ROLE, None)])
}

/// Starts the pods: both cgroup drivers, all classes of service, both families, the host's network.
pub(crate) fn start(node: &Node) -> Vec<Member> {
    use {Driver::*, Family::*, Qos::*};
    let pod = |name, account| node.pod(name).account(NAMESPACE, account);
    let role = |account| {
        ASSOCIATIONS
            .iter()
            .find_map(|(known, role)| (*known == account).then_some(*role))
    };
    let plans = [
        ("orders-0", "orders", Systemd, Guaranteed, V4, false),
        ("orders-1", "orders", Cgroupfs, Burstable, V6, false),
        ("reports-0", "reports", Systemd, BestEffort, V6, false),
        ("reports-1", "reports", Cgroupfs, Guaranteed, V4, true),
        ("website-0", NO_ROLE, Systemd, Burstable, V4, false),
    ];
    plans
        .into_iter()
        .map(|(name, account, driver, qos, family, host)| {
            let builder = pod(name, account).driver(driver).qos(qos);
            let builder = if host {
                builder.host_network()
            } else {
                builder
            };
            Member {
                pod: builder.start(),
                kind: kind(driver, qos, host),
                family,
                role: role(account),
            }
        })
        .collect()
}

fn kind(driver: Driver, qos: Qos, host: bool) -> String {
    let driver = match driver {
        Driver::Systemd => "systemd",
        Driver::Cgroupfs => "cgroupfs",
    };
    let network = if host { " hostNetwork" } else { "" };
    format!("{driver} {qos:?}{network}")
}
