//! The command line. Flags have the names that kubectl and the AWS CLI give them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use podcreds_types::ServiceAccount;

const EXAMPLES: &str = "\
Examples:
  kubectl podcreds associations
  kubectl podcreds doctor
  kubectl podcreds doctor pod shop/web-6d4b
  kubectl podcreds refresh shop/reader";

/// EKS Pod Identity, seen from Kubernetes, EKS and IAM at once.
///
/// Nothing but `refresh` changes anything.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kubectl-podcreds",
    bin_name = "kubectl podcreds",
    version,
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster, and with which credentials.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Place {
    /// The kubeconfig's context
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// The kubeconfig, in place of KUBECONFIG and ~/.kube/config
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Only this namespace
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    /// The profile of the AWS CLI; otherwise the one that the kubeconfig names
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// The cluster's region; otherwise the kubeconfig's
    #[arg(long, global = true, value_name = "REGION")]
    pub(crate) region: Option<String>,

    /// The cluster's name at EKS; otherwise the kubeconfig's
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) cluster_name: Option<String>,

    /// What the agents' pods have as their label app.kubernetes.io/name
    #[arg(long, global = true, default_value = "podcreds", value_name = "NAME")]
    pub(crate) agent_label: String,

    /// How it is shown
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(crate) output: Output,
}

/// How something is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table that fits the terminal
    #[default]
    Text,
    /// JSON, for programs
    Json,
    /// The same in YAML
    Yaml,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// The associations of service accounts with roles, and the pods that use them
    Associations,
    /// What keeps pods from their roles, the first cause first, with the command that mends it
    Doctor(DoctorArgs),
    /// The agents of all nodes, and their pods
    Status(StatusArgs),
    /// Have the running pods of a service account given new credentials, on all their nodes
    Refresh {
        /// The service account
        #[arg(value_name = "NAMESPACE/SERVICEACCOUNT")]
        account: ServiceAccount,
    },
    /// Print the commands that take over from another mechanism; they are not run
    Migrate {
        /// What is in use today
        #[arg(value_enum, value_name = "FROM")]
        from: From,
    },
    /// Print what lets a shell complete this command
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print what kubectl proposes where the last of these words is being typed
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The words behind `kubectl podcreds`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// `kubectl podcreds doctor`
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// What to look at: the cluster, unless it is `pod`
    #[arg(value_enum, requires = "pod", value_name = "pod")]
    pub(crate) what: Option<What>,

    /// The pod, by its name or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    pub(crate) pod: Option<String>,
}

/// What a doctor looks at, other than the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// One of its pods
    Pod,
}

/// `kubectl podcreds status`
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct StatusArgs {
    /// Only pods of this service account
    #[arg(long, value_name = "NAME")]
    pub(crate) service_account: Option<String>,

    /// Only the agents of this node
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
}

/// Mechanisms that give roles to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// kube2iam
    #[value(name = "kube2iam")]
    Kube2iam,
    /// kiam
    Kiam,
    /// IAM roles for service accounts
    Irsa,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_or_after_a_command() {
        for line in [
            "kubectl-podcreds --context prod -n shop associations",
            "kubectl-podcreds associations --context prod -n shop",
        ] {
            let place = read(line).unwrap().place;
            assert_eq!(place.context.as_deref(), Some("prod"));
            assert_eq!(place.namespace.as_deref(), Some("shop"));
        }
    }

    #[test]
    fn a_pod_is_named_with_what_it_is() {
        let cli = read("kubectl-podcreds doctor pod shop/web").unwrap();
        assert!(matches!(
            cli.command,
            Command::Doctor(DoctorArgs { pod: Some(_), .. })
        ));
        assert!(read("kubectl-podcreds doctor").is_ok());
        for bad in [
            "doctor pod",
            "doctor web",
            "refresh reader",
            "migrate x",
            "",
        ] {
            assert!(read(&format!("kubectl-podcreds {bad}")).is_err(), "{bad}");
        }
    }
}
