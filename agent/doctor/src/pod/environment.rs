//! What EKS's webhook has put into a pod's environment, and what goes before it.

use std::net::SocketAddr;

use http::Uri;
use podcreds_types::sdk::{HOSTS, NO_PROXY, PROXIES, TOKEN_FILE, URI, WINNERS};

use super::process::PodProcess;
use crate::report::Finding;

pub(super) const NAME: &str = "environment";
/// The longest value that is shown or used.
const MAX_VALUE: usize = 1024;

/// What one process has in its environment, as far as it matters. Values of variables that may hold
/// secrets are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) pid: u32,
    command: String,
    uri: Option<String>,
    token_file: Option<String>,
    winners: Vec<usize>,
    proxy: Option<&'static str>,
    no_proxy: String,
}

impl Environment {
    /// Reads it; `None` when the process has ended or may not be looked at.
    pub(super) fn of(process: &PodProcess) -> Option<Self> {
        let environment = process.environment().ok()?;
        Some(Self {
            pid: process.pid,
            command: process.command(),
            ..Self::read(&environment)
        })
    }

    fn read(environment: &[u8]) -> Self {
        let lookup = |wanted: &str| {
            environment.split(|byte| *byte == 0).find_map(|variable| {
                let variable = str::from_utf8(variable).ok()?;
                let (name, value) = variable.split_once('=')?;
                let is_it = name == wanted && !value.is_empty();
                is_it.then(|| value.chars().take(MAX_VALUE).collect::<String>())
            })
        };
        let is_set = |name: &&str| lookup(name).is_some();
        let winners = WINNERS
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| is_set(name));
        Self {
            uri: lookup(URI),
            token_file: lookup(TOKEN_FILE),
            winners: winners.map(|(at, _)| at).collect(),
            proxy: PROXIES.into_iter().find(is_set),
            no_proxy: NO_PROXY.into_iter().find_map(lookup).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Whether the process has been told where to ask.
    pub(super) fn is_told(&self) -> bool {
        self.uri.is_some()
    }

    pub(super) fn token_file(&self) -> Option<&str> {
        self.token_file.as_deref()
    }

    pub(super) fn uri(&self) -> &str {
        self.uri.as_deref().unwrap_or_default()
    }

    pub(super) fn proxy(&self) -> Option<&'static str> {
        self.proxy
    }

    pub(super) fn no_proxy(&self) -> &str {
        &self.no_proxy
    }

    /// Where the process would ask, if that is an agent's address.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let uri: Uri = self.uri.as_ref()?.parse().ok()?;
        let host = uri.host().filter(|host| HOSTS.contains(host))?;
        let ip = host.trim_matches(['[', ']']).parse().ok()?;
        Some(SocketAddr::new(ip, uri.port_u16().unwrap_or(80)))
    }

    /// Where it would ask, without a user's name, a password or a query: those may be secrets.
    fn place(&self) -> String {
        let uri = self.uri.as_ref().and_then(|uri| uri.parse::<Uri>().ok());
        let Some((uri, host)) = uri.as_ref().and_then(|uri| Some((uri, uri.host()?))) else {
            return "what is no URI of a server".to_owned();
        };
        let scheme = uri.scheme_str().unwrap_or("http");
        let port = uri.port_u16().map(|port| format!(":{port}"));
        format!(
            "{scheme}://{host}{}{}",
            port.unwrap_or_default(),
            uri.path()
        )
    }

    fn named(&self) -> String {
        format!("{} (process {})", self.command, self.pid)
    }
}

pub(super) fn judge(seen: &[Environment]) -> Finding {
    if seen.is_empty() {
        return Finding::warn(
            NAME,
            "the pod has no process that can be looked at",
            "see whether its containers run, and run this with CAP_SYS_PTRACE in the host's PID \
             namespace",
        );
    }
    let Some(told) = seen.iter().find(|it| it.is_told()) else {
        return Finding::fail(
            NAME,
            format!(
                "none of its {} processes that were looked at has {URI}",
                seen.len()
            ),
            "make an association for its service account (aws eks \
             create-pod-identity-association), then make the pod anew: EKS puts the variables into \
             new pods alone, some seconds after the association was made",
        );
    };
    if told.address().is_none() {
        return Finding::fail(
            NAME,
            format!("{} is told to ask {}", told.named(), told.place()),
            format!("take {URI} out of the pod's own manifest, so that EKS sets it"),
        );
    }
    if told.token_file.is_none() {
        return Finding::fail(
            NAME,
            format!("{} has {URI}, and not {TOKEN_FILE}", told.named()),
            "take both variables out of the pod's own manifest, so that EKS sets them",
        );
    }
    let winners = seen
        .iter()
        .filter(|it| it.is_told() && !it.winners.is_empty());
    if let Some(other) = winners.into_iter().next() {
        let them = other.winners.iter().filter_map(|at| WINNERS.get(*at));
        let them: Vec<_> = them
            .map(|(name, what)| format!("{name} ({what})"))
            .collect();
        return Finding::warn(
            NAME,
            format!(
                "{} also has {}, which SDKs use first",
                other.named(),
                them.join(", ")
            ),
            "take that out of the pod, unless it is meant to win",
        );
    }
    Finding::pass(NAME, format!("{} is told to ask the agent", told.named()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    fn environment(variables: &[&str]) -> Environment {
        Environment::read(variables.join("\0").as_bytes())
    }

    const TOLD: [&str; 2] = [
        "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/token",
    ];

    #[test]
    fn a_pod_that_eks_has_prepared_passes() {
        let told = environment(&TOLD);
        assert_eq!(told.address(), Some("169.254.170.23:80".parse().unwrap()));
        assert_eq!(judge(&[environment(&[]), told]).status, Status::Pass);
        let v6 = environment(&["AWS_CONTAINER_CREDENTIALS_FULL_URI=http://[fd00:ec2::23]/v1/x"]);
        assert_eq!(v6.address(), Some("[fd00:ec2::23]:80".parse().unwrap()));
    }

    #[test]
    fn of_another_uri_neither_password_nor_query_is_shown() {
        let elsewhere =
            "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://me:s3cret@host:8080/x?key=s3cret";
        let found = judge(&[environment(&[elsewhere])]);
        assert!(
            found.seen.ends_with("ask http://host:8080/x"),
            "{}",
            found.seen
        );
        let nonsense = environment(&["AWS_CONTAINER_CREDENTIALS_FULL_URI=s3cret s3cret"]);
        assert!(!judge(&[nonsense]).seen.contains("s3cret"));
    }

    #[test]
    fn what_is_missing_or_elsewhere_fails_and_what_wins_is_a_warning() {
        assert_eq!(judge(&[]).status, Status::Warn);
        assert_eq!(judge(&[environment(&["PATH=/bin"])]).status, Status::Fail);
        assert_eq!(judge(&[environment(&TOLD[..1])]).status, Status::Fail);
        let elsewhere = "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://localhost:8080/x";
        assert_eq!(
            judge(&[environment(&[elsewhere, TOLD[1]])]).status,
            Status::Fail
        );
        for winner in ["AWS_ACCESS_KEY_ID=AKIASECRET", "AWS_PROFILE=dev"] {
            let found = judge(&[environment(&[TOLD[0], TOLD[1], winner])]);
            assert_eq!(found.status, Status::Warn);
            let name = winner.split('=').next().unwrap();
            assert!(found.seen.contains(name), "{}", found.seen);
            assert!(!format!("{found:?}").contains("AKIASECRET"));
        }
    }
}
