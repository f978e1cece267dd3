//! What an AWS SDK in a pod goes by when it looks for credentials: environment variables, the
//! agent's addresses and the token's audience.

/// The variable with the address at which the agent is asked.
pub const URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
/// The variable with the file that the pod's token is in.
pub const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
/// The audience of EKS Pod Identity's tokens.
pub const AUDIENCE: &str = "pods.eks.amazonaws.com";
/// The hosts of [`URIS`].
pub const HOSTS: [&str; 2] = ["169.254.170.23", "[fd00:ec2::23]"];
/// What EKS sets [`URI`] to, by the cluster's address family.
pub const URIS: [&str; 2] = [
    "http://169.254.170.23/v1/credentials",
    "http://[fd00:ec2::23]/v1/credentials",
];

/// The variable with the token of a web identity.
pub const WEB_IDENTITY: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
/// What an SDK uses before it asks an agent, and how that is called.
pub const WINNERS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "static keys"),
    (WEB_IDENTITY, "IAM roles for service accounts"),
    ("AWS_PROFILE", "a profile"),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "an ECS task's credentials",
    ),
];

/// What sends requests to the agent elsewhere.
pub const PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
/// What excepts addresses from [`PROXIES`].
pub const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// What to add to [`NO_PROXY`] so that each SDK asks the agent itself. Go and Python want the IPv6
/// address as it is, others in brackets.
pub const EXCEPTIONS: &str = "169.254.170.23,fd00:ec2::23,[fd00:ec2::23]";
/// What covers the agent's IPv4 address, in one SDK or another.
const COVERS_IPV4: [&str; 4] = [
    "169.254.170.23",
    "169.254.170.23/32",
    "169.254.170.0/24",
    "169.254.0.0/16",
];

/// Whether this value of [`NO_PROXY`] excepts the address of a [`URI`], for every SDK.
#[must_use]
pub fn excepts_agent(no_proxy: &str, uri: &str) -> bool {
    let exceptions: Vec<&str> = no_proxy.split(',').map(str::trim).collect();
    let has = |exception: &str| exceptions.contains(&exception);
    let [_, ipv6] = HOSTS;
    has("*")
        || match uri.contains(ipv6) {
            true => has(ipv6) && has(ipv6.trim_matches(['[', ']'])),
            false => COVERS_IPV4.into_iter().any(has),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Refusal;

    #[test]
    fn the_agent_is_excepted_by_its_addresses_their_networks_and_by_all() {
        let [ipv4, ipv6] = URIS;
        for bad in ["", "localhost,.svc", "169.254.169.254", "169.254.170.2"] {
            assert!(!excepts_agent(bad, ipv4), "{bad}");
        }
        for good in ["*", "localhost, 169.254.170.23", "169.254.0.0/16"] {
            assert!(excepts_agent(good, ipv4), "{good}");
        }
        // Some SDKs know the one form, some the other.
        for bad in ["169.254.170.23", "[fd00:ec2::23]", "x,fd00:ec2::23"] {
            assert!(!excepts_agent(bad, ipv6), "{bad}");
        }
        for good in ["*", "fd00:ec2::23, [fd00:ec2::23]"] {
            assert!(excepts_agent(good, ipv6), "{good}");
        }
    }

    #[test]
    fn what_is_advised_excepts_each_address_in_each_form() {
        let advised: Vec<_> = EXCEPTIONS.split(',').collect();
        assert!(URIS.iter().all(|uri| excepts_agent(EXCEPTIONS, uri)));
        for (host, uri) in HOSTS.into_iter().zip(URIS) {
            assert!(uri.starts_with(&format!("http://{host}/")), "{uri}");
            for form in [host, host.trim_matches(['[', ']'])] {
                assert!(advised.contains(&form), "{form}");
            }
        }
        let told = Refusal::ThroughProxy.words().unwrap().text;
        assert!(told.contains(EXCEPTIONS), "{told}");
    }
}
