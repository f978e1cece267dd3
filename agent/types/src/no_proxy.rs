//! Whether a pod's `NO_PROXY` keeps its token from a proxy.

/// What covers the agent's address, in one SDK or another.
const COVERS: [&str; 6] = [
    "*",
    "169.254.170.23",
    "169.254.170.23/32",
    "169.254.170.0/24",
    "169.254.0.0/16",
    "fd00:ec2::23",
];

/// Whether this value of `NO_PROXY` excepts the address at which pods ask for credentials.
#[must_use]
pub fn excepts_agent(no_proxy: &str) -> bool {
    let mut exceptions = no_proxy
        .split(',')
        .map(|it| it.trim().trim_matches(['[', ']']));
    exceptions.any(|it| COVERS.contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_excepted_by_its_addresses_their_networks_and_by_all() {
        for bad in ["", "localhost,.svc", "169.254.169.254", "169.254.170.2"] {
            assert!(!excepts_agent(bad), "{bad}");
        }
        for good in [
            "*",
            "localhost, 169.254.170.23",
            "[fd00:ec2::23]",
            "169.254.0.0/16",
        ] {
            assert!(excepts_agent(good), "{good}");
        }
    }
}
