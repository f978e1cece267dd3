//! The environment variables that decide where an AWS SDK gets credentials.

/// Where the agent is asked.
pub(crate) const URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
/// The file with the pod's token.
pub(crate) const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
/// What the token is for.
pub(crate) const AUDIENCE: &str = "pods.eks.amazonaws.com";
/// What EKS sets [`URI`] to, by the cluster's address family.
pub(crate) const URIS: [&str; 2] = [
    "http://169.254.170.23/v1/credentials",
    "http://[fd00:ec2::23]/v1/credentials",
];
/// What an SDK uses before it asks an agent, and how that is called.
pub(crate) const WINNERS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "static keys"),
    (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "IAM roles for service accounts",
    ),
    ("AWS_PROFILE", "a profile"),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "an ECS task's credentials",
    ),
];
/// The role of [`WINNERS`]' web identity. Alone it has no effect.
pub(crate) const ROLE_ARN: &str = "AWS_ROLE_ARN";
/// What sends requests elsewhere.
pub(crate) const PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
/// What excepts addresses from [`PROXIES`].
pub(crate) const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The variables whose values are looked at. They are addresses and paths.
const WITH_VALUE: [&str; 4] = [URI, TOKEN_FILE, NO_PROXY[0], NO_PROXY[1]];

/// Whether a variable matters, and whether its value may be kept: keys and a proxy's password are
/// not.
pub(crate) fn matters(name: &str) -> Option<bool> {
    let wins = WINNERS.iter().any(|(winner, _)| *winner == name);
    let is_other = wins || name == ROLE_ARN || PROXIES.contains(&name);
    match WITH_VALUE.contains(&name) {
        true => Some(true),
        false => is_other.then_some(false),
    }
}
