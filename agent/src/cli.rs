//! The command line, as it is typed. `config` checks what clap cannot.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use podcreds_ops::telemetry::{LogFormat, Verbosity};

mod examples;
mod operator;
mod server;

use crate::commands::doctor;

pub(crate) use operator::{LogLevelArgs, OutputFormat, RefreshArgs, StatusArgs};
pub(crate) use server::{DatapathMode, NamedFlags, ServerArgs};

/// Gives the pods of this node the IAM roles of their service accounts.
///
/// podcreds is a node agent for Amazon EKS Pod Identity. eBPF programs send the pods' requests for
/// credentials to it, and say which pod is asking; it exchanges the pod's token at EKS Auth, and
/// keeps the credentials fresh.
#[derive(Debug, Parser)]
#[command(name = "podcreds", version = VERSION, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// How much to log
    #[arg(
        short,
        long,
        value_enum,
        global = true,
        display_order = 1000,
        default_value_t,
        value_name = "LEVEL"
    )]
    pub(crate) verbosity: Verbosity,

    /// How log lines look; auto is text on a terminal and JSON elsewhere
    #[arg(
        long,
        value_enum,
        global = true,
        display_order = 1001,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(crate) log_format: LogFormat,
}

impl Cli {
    /// Reads the arguments of a command line, the program's name first.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or the help that it asks for.
    pub(crate) fn read<W>(words: impl IntoIterator<Item = W>) -> Result<Self, clap::Error>
    where
        W: Into<OsString> + Clone,
    {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(words)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|it| it.format(&mut command))?;
        let args = match &mut cli.command {
            Command::Server(args) => Some(&mut **args),
            Command::Doctor(args) => Some(&mut args.server),
            _ => None,
        };
        if let (Some(args), Some((_, given))) = (args, matches.subcommand()) {
            args.named = NamedFlags::of(given);
        }
        Ok(cli)
    }
}

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("PODCREDS_REVISION"),
    ")"
);

/// What podcreds can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the pods of this node.
    ///
    /// The agent's own AWS credentials and region are found as every AWS SDK finds them: in the
    /// environment, in the shared configuration files, or from the instance's metadata.
    ///
    /// Exit codes: 0 after SIGTERM or SIGINT, 1 when connections had to be cut off in the end (a
    /// second signal, or the end of the grace period), 64 for a wrong command line, 69 when the
    /// kernel or the machine lacks something, 70 when a part of the agent has stopped working, 77
    /// for missing privileges.
    #[command(after_long_help = examples::SERVER)]
    Server(Box<ServerArgs>),

    /// Make the link pod-id-link0 with the addresses that pods without eBPF ask.
    ///
    /// Run it once on each node before the server, in the host's network namespace, with
    /// CAP_NET_ADMIN. It makes what is missing of the link, of 169.254.170.23/32 and
    /// fd00:ec2::23/128 on it, and of the routes to them, and leaves the rest as it is. Without
    /// IPv6 it warns and goes on.
    ///
    /// Exit codes: 0 when the IPv4 address is ready, 69 when the kernel has no dummy links or
    /// refuses something else, 77 without CAP_NET_ADMIN.
    #[command(after_long_help = examples::INITIALIZE)]
    Initialize,

    /// Ask a running agent how it is.
    ///
    /// For kubelet's exec probes: where two agents share the node's ports, these do not tell which
    /// of them answers. Prints the answer.
    ///
    /// Exit codes: 0 for yes, 1 for no, 64 for a wrong command line.
    Probe(ProbeArgs),

    /// Look for what keeps this node, or one of its pods, from credentials.
    ///
    /// Prints what was seen, a line for each check, and what to do about it. It needs no agent, and
    /// works beside one. Give it the agent's flags, since what is checked depends on them; in the
    /// agent's own container it finds them itself where --cluster-name is not given.
    ///
    /// It runs on the node, as root. EKS Auth is asked once, and for a pod with that pod's token;
    /// the running agent is asked without a token, by a pod that the doctor makes for a moment.
    ///
    /// Exit codes: 0 if all is well or there are only warnings, 1 if something has failed, 64 for a
    /// wrong command line, 69 when nothing could be looked at.
    #[command(
        after_long_help = doctor::EXAMPLES,
        args_override_self = true,
        // The agent needs --cluster-name, whose flags these are; a doctor may find it.
        override_usage = "podcreds doctor [OPTIONS] [pod <NAMESPACE/NAME|UID>]"
    )]
    Doctor(Box<doctor::DoctorArgs>),

    /// What a doctor runs in a pod.
    #[command(name = podcreds_doctor::visit::SUBCOMMAND, hide = true)]
    DoctorVisit,

    /// Show the pods of this node, what they have, and how the agent is.
    ///
    /// Asks every agent that runs on this node: in an update there are two. Never shows a token or
    /// a credential.
    ///
    /// Exit codes: 0, 64 for a wrong command line, 69 when no agent answers, 77 without root.
    #[command(after_long_help = operator::STATUS_EXAMPLES)]
    Status(StatusArgs),

    /// Fetch credentials of running pods again, because an association has changed.
    ///
    /// Waits for EKS Auth, for 20 seconds at most. A pod gets the new ones when it next asks. Where
    /// EKS Auth refuses, such as without an association, the pod loses the old ones.
    ///
    /// Exit codes: 0 when each pod has new credentials, 1 when one has none, 64 for a wrong command
    /// line, 69 when no agent answers, 77 without root.
    #[command(after_long_help = operator::REFRESH_EXAMPLES)]
    Refresh(RefreshArgs),

    /// Show or set how much a running agent logs.
    ///
    /// A filter is a level, and levels for crates of podcreds. SIGUSR1 switches between debug and
    /// what the agent was started with.
    ///
    /// Exit codes: 0, 64 for wrong arguments, 69 when no agent answers, 77 without root.
    #[command(after_long_help = operator::LOG_LEVEL_EXAMPLES)]
    LogLevel(LogLevelArgs),
}

/// `podcreds probe`
#[derive(Args, Clone, Debug)]
pub(crate) struct ProbeArgs {
    /// What to ask: whether it serves pods (/readyz), or whether it is alive (/healthz)
    #[arg(default_value = "/readyz", value_name = "PATH")]
    pub(crate) path: String,

    /// The socket that was given to the agent as --probe-socket
    #[arg(long, value_name = "FILE")]
    pub(crate) socket: PathBuf,
}

/// A duration such as `3h`, `1h30m` or `900ms`; a bare number is seconds.
fn parse_duration(text: &str) -> Result<Duration, humantime::DurationError> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text),
    }
}

#[cfg(test)]
pub(crate) mod tests;
