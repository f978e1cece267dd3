//! The command line, as it is typed. `config` checks what clap cannot.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    identity,
    ops::telemetry::{LogFormat, Verbosity},
    types::ServiceAccount,
};

/// Gives the pods of this node the IAM roles of their service accounts.
///
/// podcreds is a node agent for Amazon EKS Pod Identity. eBPF programs send the pods' requests for
/// credentials to it, and say which pod is asking; it exchanges the pod's token at EKS Auth, and keeps
/// the credentials fresh.
#[derive(Debug, Parser)]
#[command(name = "podcreds", version = VERSION, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("PODCREDS_REVISION"),
    ")"
);

/// What podcreds can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the pods of this node.
    ///
    /// The agent's own AWS credentials and region are found as every AWS SDK finds them: in the
    /// environment, in the shared configuration files, or from the instance's metadata.
    ///
    /// Exit codes: 0 after SIGTERM or SIGINT, 1 when connections had to be cut off in the end (a second
    /// signal, or the end of the grace period), 64 for a wrong command line, 69 when the kernel or the
    /// machine lacks something, 77 for missing privileges.
    Server(ServerArgs),
}

/// `podcreds server`
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// Name of the EKS cluster that this node belongs to
    #[arg(short, long, value_name = "NAME")]
    pub cluster_name: String,

    /// EKS Auth endpoint to use instead of the region's
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,

    /// What to do when the kernel, the listener and the token do not name the same pod
    #[arg(long, value_enum, default_value_t = identity::Mode::Enforce, value_name = "MODE")]
    pub identity: identity::Mode,

    /// Service account whose pods may use other pods' tokens; may be given more than once
    #[arg(long = "delegate", value_name = "NAMESPACE/SERVICEACCOUNT")]
    pub delegates: Vec<ServiceAccount>,

    /// Where kubelet keeps its pods' volumes; --delegate reads which pod has which service account there
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "DIR")]
    pub kubelet_root: PathBuf,

    /// How pods reach the agent
    #[arg(long, value_enum, default_value_t = Datapath::Ebpf, value_name = "PATH")]
    pub datapath: Datapath,

    /// Where to look for pods: a cgroup2 directory; by default the whole hierarchy
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,

    /// Addresses of the host to serve with --datapath node
    #[arg(
        short,
        long,
        value_delimiter = ',',
        default_value = "169.254.170.23,fd00:ec2::23",
        value_parser = parse_host,
        value_name = "IP,..."
    )]
    pub bind_hosts: Vec<IpAddr>,

    /// Port of the host to serve with --datapath node
    #[arg(short, long, default_value_t = 80)]
    pub port: u16,

    /// Open connections that one pod may have
    #[arg(
        long,
        default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(1..),
        value_name = "N"
    )]
    pub max_connections_per_pod: u32,

    /// Address to serve metrics on
    #[arg(long, default_value = "0.0.0.0", value_parser = parse_host, value_name = "IP")]
    pub metrics_address: IpAddr,

    /// Port to serve /metrics on
    #[arg(long, default_value_t = 2705, value_name = "PORT")]
    pub metrics_port: u16,

    /// Port on localhost to serve /healthz and /readyz on
    #[arg(long, default_value_t = 2703, value_name = "PORT")]
    pub probe_port: u16,

    /// How long to finish what is in flight after SIGTERM
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    pub shutdown_grace_period: u64,

    /// How much to log
    #[arg(short, long, value_enum, default_value_t, value_name = "LEVEL")]
    pub verbosity: Verbosity,

    /// How log lines look; auto is text on a terminal and JSON elsewhere
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How pods reach the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Datapath {
    /// Redirected by eBPF, and identified by the kernel
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
