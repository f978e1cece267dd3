//! The command line, checked and taken apart into what each stage needs.

use std::{
    env,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use http::{Uri, uri::InvalidUri};
use podcreds_credentials as credentials;
use podcreds_datapath as datapath;
use podcreds_handover as handover;
use podcreds_identity as identity;
use podcreds_server as server;
use podcreds_upstream as upstream;
use podcreds_upstream::KeyServer;

use crate::cli::{self, ServerArgs};

/// Where agents meet if nothing else is said. It goes with the node's reboot, as they do.
pub(crate) const HANDOVER_DIR: &str = "/run/podcreds";

/// Everything that the agent can be told.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// How pods reach the agent.
    pub(crate) paths: PathsConfig,
    /// Who may use which token.
    pub(crate) identity: identity::Config,
    /// The credentials endpoint.
    pub(crate) server: server::Config,
    /// The cache.
    pub(crate) credentials: credentials::Config,
    /// EKS Auth.
    pub(crate) upstream: upstream::Config,
    /// Who publishes the cluster's keys, if anyone.
    pub(crate) keys: Option<KeyServer>,
    /// Where Prometheus finds the metrics.
    pub(crate) metrics_address: IpAddr,
    /// And on which port.
    pub(crate) metrics_port: u16,
    /// Where kubelet's probes are answered, on localhost.
    pub(crate) probe_port: u16,
    /// Which of the two must be had.
    pub(crate) named: cli::NamedFlags,
    /// The socket for probes, if any.
    pub(crate) probe_socket: Option<PathBuf>,
    /// Where agents hand over to each other, if they do.
    pub(crate) handover: Option<handover::Config>,
    /// Where operators ask, if they can.
    pub(crate) admin: Option<Admin>,
    /// How long to finish what is in flight.
    pub(crate) grace_period: Duration,
}

/// Where operators ask the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admin {
    /// A folder of root's, made if need be.
    pub(crate) dir: PathBuf,
    /// Whether somebody has named it. If not, and it cannot be had, the agent does without.
    pub(crate) is_named: bool,
}

/// How pods reach the agent. With both ways, the second one is for those who cannot go the first.
#[derive(Clone, Debug)]
pub(crate) struct PathsConfig {
    /// Redirected by eBPF.
    pub(crate) ebpf: Option<datapath::Config>,
    /// At these addresses of the host.
    pub(crate) node: Option<Vec<SocketAddr>>,
}

/// A flag with a value that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("invalid value for --{flag}: {source}")]
pub(crate) struct ConfigError {
    flag: &'static str,
    source: FlagProblem,
}

/// What is wrong with a flag's value.
#[derive(Debug, thiserror::Error)]
enum FlagProblem {
    #[error(
        "without the cluster's keys no pod is known as a delegate: run in the cluster, or name \
         them with --jwks-url"
    )]
    NoKeysForDelegates,
    #[error("no file to read: set AWS_SHARED_CREDENTIALS_FILE")]
    NoCredentialsFile,
    #[error("{0:?} is not the name of an EKS cluster (letters, digits, - and _, at most 100)")]
    ClusterName(String),
    #[error("{url:?} is not a URL: {source}")]
    Url { url: String, source: InvalidUri },
    #[error("{0:?} is not an http:// or https:// URL with a host")]
    NotHttp(String),
    #[error("{0:?}: somebody on the way could make up keys: use https")]
    NotSecure(String),
}

impl FlagProblem {
    fn of(self, flag: &'static str) -> ConfigError {
        ConfigError { flag, source: self }
    }
}

#[cfg(test)]
impl ConfigError {
    /// The flag that it is about.
    pub(crate) fn flag(&self) -> &'static str {
        self.flag
    }
}

impl TryFrom<ServerArgs> for Config {
    type Error = ConfigError;

    fn try_from(args: ServerArgs) -> Result<Self, ConfigError> {
        let paths = paths(&args);
        let credentials = credentials(&args);
        let keys = keys(args.jwks_url)?;
        if keys.is_none() && !args.delegates.is_empty() {
            return Err(FlagProblem::NoKeysForDelegates.of("delegate"));
        }
        let mut upstream = upstream::Config::new(cluster_name(args.cluster_name)?);
        upstream.rotating_file = match args.rotate_credentials {
            true => Some(shared_credentials_file()?),
            false => None,
        };
        upstream.endpoint = args
            .endpoint
            .map(|url| http_url("endpoint", url))
            .transpose()?;
        Ok(Self {
            paths,
            identity: identity::Config {
                mode: args.identity,
                delegates: args.delegates,
                kubelet_root: args.kubelet_root,
            },
            server: server::Config {
                max_connections_per_pod: usize::try_from(args.max_connections_per_pod)
                    .unwrap_or(usize::MAX),
                service_account_metrics: usize::try_from(args.metrics_per_service_account)
                    .unwrap_or(usize::MAX),
                ..server::Config::default()
            },
            credentials,
            upstream,
            keys,
            metrics_address: args.metrics_address,
            metrics_port: args.metrics_port,
            probe_port: args.probe_port,
            named: args.named,
            probe_socket: args.probe_socket,
            admin: admin(args.admin_dir, args.handover_dir.as_deref()),
            handover: handover(args.handover_dir),
            grace_period: args.shutdown_grace_period,
        })
    }
}

fn paths(args: &ServerArgs) -> PathsConfig {
    let ebpf = datapath::Config {
        cgroup_root: args.cgroup_root.clone(),
    };
    let hosts = args.bind_hosts.iter();
    let node = hosts
        .map(|host| SocketAddr::new(*host, args.port))
        .collect();
    PathsConfig {
        ebpf: (args.datapath != cli::DatapathMode::Node).then_some(ebpf),
        node: (args.datapath != cli::DatapathMode::Ebpf).then_some(node),
    }
}

/// The default folder, the one that was named, or none.
fn handover(dir: Option<PathBuf>) -> Option<handover::Config> {
    let is_named = dir.is_some();
    let dir = dir.unwrap_or_else(|| HANDOVER_DIR.into());
    (dir.as_os_str() != "none").then_some(handover::Config { dir, is_named })
}

/// The folder that was named, or the one where agents meet; none where they do not.
fn admin(dir: Option<PathBuf>, handover: Option<&Path>) -> Option<Admin> {
    let is_named = dir.is_some();
    let beside = || handover.unwrap_or(Path::new(HANDOVER_DIR)).to_owned();
    let dir = dir.unwrap_or_else(beside);
    (dir.as_os_str() != "none").then_some(Admin { dir, is_named })
}

/// Where the AWS SDKs look for shared credentials.
fn shared_credentials_file() -> Result<PathBuf, ConfigError> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    let home = || Some(PathBuf::from(variable("HOME")?).join(".aws/credentials"));
    let file = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    file.or_else(home)
        .ok_or_else(|| FlagProblem::NoCredentialsFile.of("rotate-credentials"))
}

/// EKS's own rule for the names of clusters.
fn cluster_name(name: String) -> Result<String, ConfigError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && name.len() <= 100 && name.chars().all(valid) {
        return Ok(name);
    }
    Err(FlagProblem::ClusterName(name).of("cluster-name"))
}

fn credentials(args: &ServerArgs) -> credentials::Config {
    let mut config = credentials::Config::default();
    config.cache.capacity = usize::try_from(args.max_cache_size).unwrap_or(usize::MAX);
    config.cache.retention = args.max_credential_retention_before_renewal;
    config.exchange.client_wait = args.max_request_wait;
    config.exchange.max_renewals_per_second = args.max_service_qps.into();
    config
}

/// The key set at `url`, or the API server's when the agent runs in a pod.
fn keys(url: Option<String>) -> Result<Option<KeyServer>, ConfigError> {
    if let Some(url) = url {
        return Ok(Some(KeyServer {
            url: secure_url("jwks-url", url)?,
            ca_file: None,
            token_file: None,
        }));
    }
    let variable = |name| env::var(name).ok();
    let host = variable("KUBERNETES_SERVICE_HOST");
    let port = variable("KUBERNETES_SERVICE_PORT");
    let in_cluster = host.zip(port);
    Ok(in_cluster.map(|(host, port)| KeyServer::in_cluster(&host, &port)))
}

/// A URL with an answer that can be trusted.
fn secure_url(flag: &'static str, url: String) -> Result<String, ConfigError> {
    let url = http_url(flag, url)?;
    let is_secure = url.parse::<Uri>().is_ok_and(|uri| {
        let host = uri.host().unwrap_or_default();
        let address = host.trim_matches(['[', ']']);
        let is_loopback = address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
        uri.scheme_str() == Some("https") || is_loopback || host == "localhost"
    });
    match is_secure {
        true => Ok(url),
        false => Err(FlagProblem::NotSecure(url).of(flag)),
    }
}

fn http_url(flag: &'static str, url: String) -> Result<String, ConfigError> {
    match url.parse::<Uri>() {
        Ok(uri) if is_http(&uri) => Ok(url),
        Ok(_) => Err(FlagProblem::NotHttp(url).of(flag)),
        Err(source) => Err(FlagProblem::Url { url, source }.of(flag)),
    }
}

fn is_http(uri: &Uri) -> bool {
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    matches!(uri.scheme_str(), Some("http" | "https")) && has_host
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        Cli, Command,
        tests::{Refused, refused_by_clap},
    };

    fn config(arguments: &[&str]) -> Result<Config, Refused> {
        let all = ["podcreds", "server"].iter().chain(arguments);
        let cli = Cli::read(all).map_err(|error| refused_by_clap(&error))?;
        let Command::Server(args) = cli.command else {
            panic!("not the server");
        };
        Config::try_from(*args).map_err(|error| Refused::from(&error))
    }

    #[test]
    fn a_cluster_is_all_that_must_be_named() {
        let config = config(&["-c", "test"]).unwrap();
        assert!(config.paths.ebpf.is_some());
        let addresses = config.paths.node.unwrap();
        let official = ["169.254.170.23:80", "[fd00:ec2::23]:80"];
        assert_eq!(addresses, official.map(|address| address.parse().unwrap()));
        assert_eq!(config.identity.mode, identity::Mode::Enforce);
        assert_eq!((config.metrics_port, config.probe_port), (2705, 2703));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_by_its_flag() {
        for (flag, value) in [
            ("--cluster-name", ""),
            ("--cluster-name", "-x"),
            ("--cluster-name", "a/b"),
            ("--endpoint", "localhost:80"),
            ("--endpoint", "ftp://host"),
            ("--endpoint", "http://"),
            ("--jwks-url", "/openid/v1/jwks"),
            ("--jwks-url", "http://issuer.example.com/keys"),
            ("--delegate", "no-namespace"),
            ("--delegate", "without/keys"),
            ("--max-service-qps", "0"),
            ("--max-request-wait", "soon"),
            ("--max-credential-retention-before-renewal", "-1h"),
            ("--identity", "maybe"),
            ("--bind-hosts", "localhost"),
            ("--metrics-port", "65536"),
            ("--max-connections-per-pod", "0"),
            ("--verbosity", "loud"),
        ] {
            let argument = format!("{flag}={value}");
            let arguments = match flag {
                "--cluster-name" => vec![&*argument],
                _ => vec!["--cluster-name=test", &argument],
            };
            let refused = config(&arguments).expect_err(&argument);
            assert_eq!(refused.flag, flag, "{argument}");
            assert!(
                refused.words.contains(flag),
                "{argument}: {}",
                refused.words
            );
        }
        assert_eq!(config(&[]).unwrap_err().flag, "--cluster-name");
    }

    /// Also where the value is the default one.
    #[test]
    fn a_port_on_the_command_line_is_named_also_with_its_default() {
        let named = |arguments: &[&str]| config(arguments).unwrap().named;
        let only = |metrics, probes| cli::NamedFlags { metrics, probes };
        assert_eq!(named(&["-c", "x"]), only(false, false));
        let port = named(&["-c", "x", "--metrics-port", "2705"]);
        assert_eq!(port, only(true, false));
        let address = named(&["-c", "x", "--metrics-address=0.0.0.0"]);
        assert_eq!(address, only(true, false));
        assert_eq!(named(&["-c", "x", "--probe-port=2703"]), only(false, true));
    }

    #[test]
    fn the_handover_folder_is_run_podcreds_unless_named() {
        let handover = |arguments: &[&str]| config(arguments).unwrap().handover;
        let folder = |dir: &str, is_named| {
            let dir = dir.into();
            Some(handover::Config { dir, is_named })
        };
        assert_eq!(handover(&["-c", "x"]), folder("/run/podcreds", false));
        let named = handover(&["-c", "x", "--handover-dir", "/run/other"]);
        assert_eq!(named, folder("/run/other", true));
        assert_eq!(handover(&["-c", "x", "--handover-dir", "none"]), None);
    }

    #[test]
    fn operators_ask_where_agents_meet_unless_told_otherwise() {
        let admin = |arguments: &[&str]| config(arguments).unwrap().admin;
        let folder = |dir: &str, is_named| {
            let dir = dir.into();
            Some(Admin { dir, is_named })
        };
        assert_eq!(admin(&["-c", "x"]), folder("/run/podcreds", false));
        let beside = admin(&["-c", "x", "--handover-dir", "/run/other"]);
        assert_eq!(beside, folder("/run/other", false));
        assert_eq!(admin(&["-c", "x", "--handover-dir", "none"]), None);
        let own = ["-c", "x", "--handover-dir", "none", "--admin-dir", "/run/a"];
        assert_eq!(admin(&own), folder("/run/a", true));
        assert_eq!(admin(&["-c", "x", "--admin-dir", "none"]), None);
    }

    #[test]
    fn the_node_path_takes_the_official_addresses() {
        let config = config(&[
            "-c",
            "x",
            "--datapath",
            "node",
            "-b",
            "127.0.0.1,[::1]",
            "-p",
            "81",
        ]);
        assert_eq!(
            config.unwrap().paths.node.unwrap(),
            ["127.0.0.1:81".parse().unwrap(), "[::1]:81".parse().unwrap()]
        );
    }
}
