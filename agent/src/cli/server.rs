//! `podcreds server`, as it is typed.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgMatches, Args, ValueEnum, parser::ValueSource};
use podcreds_identity as identity;
use podcreds_types::ServiceAccount;

use super::parse_duration;

/// `podcreds server`
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Name of the EKS cluster that this node belongs to
    #[arg(short, long, value_name = "NAME")]
    pub(crate) cluster_name: String,

    /// EKS Auth endpoint to use instead of the region's
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,

    /// Sign with the credentials in the shared credentials file, and read them again whenever it
    /// changes
    ///
    /// For EKS hybrid nodes, where a service of the host replaces them. The file is the one that
    /// AWS_SHARED_CREDENTIALS_FILE names, or ~/.aws/credentials, and the profile is AWS_PROFILE's
    /// or default. While the file cannot be read, the last credentials are used.
    #[arg(long)]
    pub(crate) rotate_credentials: bool,

    /// What to do when the kernel, the listener and the token do not name the same pod
    #[arg(long, value_enum, default_value_t = identity::Mode::Enforce, value_name = "MODE")]
    pub(crate) identity: identity::Mode,

    /// Service account whose pods may use other pods' tokens; may be given more than once
    #[arg(long = "delegate", value_name = "NAMESPACE/SERVICEACCOUNT")]
    pub(crate) delegates: Vec<ServiceAccount>,

    /// Where the cluster publishes the keys that sign its tokens: /openid/v1/jwks of the API
    /// server, which is the default in a cluster, or the issuer's
    ///
    /// It must be public, and https unless it is on the loopback: no token is shown, and the
    /// system's certificate authorities are trusted.
    ///
    /// With the keys, a token that kubelet has rotated is known without asking EKS Auth, and
    /// --delegate can tell a pod's service account.
    #[arg(long, value_name = "URL")]
    pub(crate) jwks_url: Option<String>,

    /// Where kubelet keeps its pods' volumes, in which --delegate finds their tokens
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "DIR")]
    pub(crate) kubelet_root: PathBuf,

    /// How pods reach the agent
    #[arg(long, value_enum, default_value_t, value_name = "PATH")]
    pub(crate) datapath: DatapathMode,

    /// Where to look for pods: a cgroup2 directory; by default the whole hierarchy
    #[arg(long, value_name = "DIR")]
    pub(crate) cgroup_root: Option<PathBuf>,

    /// Addresses of the host to serve, unless it is --datapath ebpf
    #[arg(
        short,
        long,
        value_delimiter = ',',
        default_value = "169.254.170.23,fd00:ec2::23",
        value_parser = parse_host,
        value_name = "IP,..."
    )]
    pub(crate) bind_hosts: Vec<IpAddr>,

    /// Port to serve at these addresses
    #[arg(short, long, default_value_t = 80)]
    pub(crate) port: u16,

    /// Open connections that one pod may have
    ///
    /// All pods together have 768. When all of these are taken, the pod that has most loses the one
    /// that has been idle for the longest time to a pod that has fewer.
    #[arg(
        long,
        default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(1..),
        value_name = "N"
    )]
    pub(crate) max_connections_per_pod: u32,

    /// How old credentials get before they are renewed (0: no cache)
    ///
    /// For pods that have asked for them since they were last renewed. Others get them as they are
    /// until 15 minutes before they expire, and have them renewed then. While EKS Auth throttles
    /// this node or is out, those that are good for an hour more may get an hour older.
    #[arg(long, default_value = "3h", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) max_credential_retention_before_renewal: Duration,

    /// How many pods' credentials are kept (0: no cache)
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub(crate) max_cache_size: u32,

    /// Renewals of credentials in a second
    ///
    /// Credentials that a pod waits for are not held to it: they are fetched at once, up to 100
    /// calls at a time. Their pace starts at 100 calls in a second and adapts: it falls when EKS
    /// Auth throttles, and comes back with the calls that are answered.
    #[arg(
        long,
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..),
        value_name = "N"
    )]
    pub(crate) max_service_qps: u32,

    /// How long a request waits for EKS Auth before it is told to come back in a second
    ///
    /// The AWS SDKs hang up after 1 to 2 seconds.
    #[arg(long, default_value = "900ms", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) max_request_wait: Duration,

    /// Address to serve metrics on
    ///
    /// 0.0.0.0 are all addresses, those of IPv6 as well.
    #[arg(long, default_value = "0.0.0.0", value_parser = parse_host, value_name = "IP")]
    pub(crate) metrics_address: IpAddr,

    /// Port to serve /metrics on
    ///
    /// A port that is named must be free, unless another agent has it. Without the default one the
    /// agent goes on, and tries again.
    #[arg(long, default_value_t = 2705, value_name = "PORT")]
    pub(crate) metrics_port: u16,

    /// Service accounts whose requests are counted one by one in
    /// podcreds_service_account_requests_total (0: none)
    ///
    /// Each is four series. Those that come first are counted; others count as _other until the
    /// agent restarts.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) metrics_per_service_account: u32,

    /// Port on localhost to serve /healthz and /readyz on
    ///
    /// As with --metrics-port, only one that is named must be free.
    #[arg(long, default_value_t = 2703, value_name = "PORT")]
    pub(crate) probe_port: u16,

    /// Socket to serve /healthz and /readyz on as well, for `podcreds probe`
    ///
    /// While two agents overlap in an update, the port still is the older one's. This socket always
    /// is this agent's own. One that a process has left behind is replaced.
    #[arg(long, value_name = "FILE")]
    pub(crate) probe_socket: Option<PathBuf>,

    /// Folder in which an agent hands its credentials over to the one that replaces it, through a
    /// socket that only root can reach; none: every agent starts without any [default:
    /// /run/podcreds]
    ///
    /// It is made if need be, and must be the same for both: in a container, a hostPath volume. It
    /// must belong to root, and nobody else may write to it. If the default one cannot be used, the
    /// agent goes on without; if one that is named cannot, it ends.
    #[arg(long, value_name = "DIR")]
    pub(crate) handover_dir: Option<PathBuf>,

    /// Folder for the socket that `podcreds status`, `refresh` and `log-level` ask, to which only
    /// root can connect; none: they cannot ask this agent [default: that of --handover-dir]
    ///
    /// It is made if need be. It must belong to root, and nobody else may write to it. Two agents
    /// may share it. If the default one cannot be used, the agent goes on without; if one that is
    /// named cannot, it ends.
    #[arg(long, value_name = "DIR")]
    pub(crate) admin_dir: Option<PathBuf>,

    /// How long to finish what is in flight after SIGTERM
    #[arg(long, default_value = "20s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) shutdown_grace_period: Duration,

    /// Which of these were named on the command line; [`Cli::read`] fills it in.
    #[arg(skip)]
    pub(crate) named: NamedFlags,
}

/// Which of the optional things are named on the command line. The agent ends when it cannot have
/// one of those; without what is only there by default it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedFlags {
    /// Where metrics are served.
    pub(crate) metrics: bool,
    /// Where probes are answered.
    pub(crate) probes: bool,
}

impl NamedFlags {
    pub(super) fn of(given: &ArgMatches) -> Self {
        let is_default = |id| given.value_source(id) == Some(ValueSource::DefaultValue);
        Self {
            metrics: !is_default("metrics_port") || !is_default("metrics_address"),
            probes: !is_default("probe_port"),
        }
    }
}

/// How pods reach the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DatapathMode {
    /// Redirected by eBPF; pods that cannot be redirected, and all pods where eBPF cannot be had,
    /// at the addresses of --bind-hosts
    #[default]
    Auto,
    /// Redirected by eBPF, and identified by the kernel; no other pod is served
    Ebpf,
    /// At the addresses of --bind-hosts, identified by their tokens alone
    Node,
}

/// An IP address. Brackets around IPv6 are understood, as other agents want them.
fn parse_host(text: &str) -> Result<IpAddr, std::net::AddrParseError> {
    text.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text)
        .parse()
}
