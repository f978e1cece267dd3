//! Developer commands. Each first sets up what it needs, so any of them works on a fresh machine.

mod architecture;
mod chart;
mod cluster;
mod executables;
mod fast;
mod image;
mod kernels;
mod run;
mod setup;
mod tasks;
#[cfg(test)]
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use architecture::Architecture;

/// Builds, tests and shows podcreds.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install everything that the other commands need. Does nothing when all is there.
    Setup,
    /// Build the agent, with the eBPF object inside, or the plugin for kubectl.
    Build {
        /// The plugin, kubectl-podcreds.
        #[arg(long)]
        kubectl: bool,
        /// Optimise, as for a node.
        #[arg(long)]
        release: bool,
        /// Link it statically, for this architecture; may be given more than once.
        #[arg(long = "arch", value_enum, value_name = "ARCH")]
        architectures: Vec<Architecture>,
    },
    /// Write a container image with the agent as an OCI archive, without a daemon or a registry.
    Image(image::Options),
    /// Render the dashboards, and the chart with them into the manifests for those without Helm.
    Chart,
    /// Run the tests. As root those on the real kernel run too.
    Test {
        /// What is passed on to `cargo test`, such as `-p podcreds` or the name of a test.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Check formatting, clippy's lints, and licences and sources of all dependencies.
    Lint,
    /// Simulated pods fetch credentials with unmodified AWS clients, and a table says what they
    /// got.
    Demo(Demo),
    /// Measure what the agent costs, and what pods get, under several kinds of load.
    Load {
        /// What is passed on to the load generator: `cargo xtask load -- --help`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Change everything at once for an hour, and check each answer meanwhile.
    Soak {
        /// What is passed on: `cargo xtask soak -- --help`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Simulate a node's day or a fleet, over the agent's own credentials stage.
    Simulate {
        /// What is passed on: `day` or `fleet`, and their flags.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Feed each parser with damaged and invented input.
    Fuzz(fast::Fuzz),
    /// A Kubernetes node on this machine, with podcreds on it and nothing simulated but AWS.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Boot the kernels that nodes run in virtual machines, and test on each of them.
    Kernels {
        /// Only fetch them.
        #[arg(long)]
        fetch: bool,
        /// Which ones. Without any: all.
        #[arg(value_name = "VERSION", value_parser = kernels::versions())]
        versions: Vec<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Build what it is made of, and start nothing. The others do it too where it is needed.
    Prepare,
    /// Start it, and wait until podcreds serves its pods.
    Up,
    /// Start it, run the tests on it, and take it down.
    Test {
        /// What is passed on to the tests, such as the name of one.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Open a shell in it, with kubectl.
    Shell,
    /// End it. Nothing is left on the machine.
    Down,
}

#[derive(Args)]
struct Demo {
    /// Leave the pods and the agent running for a look, until Enter is pressed.
    #[arg(long)]
    keep: bool,
    /// Take an optimised agent.
    #[arg(long)]
    release: bool,
    /// Show an application that lists a bucket in S3, and whose role is given, denied, changed
    /// and taken away.
    #[arg(long, conflicts_with = "keep")]
    s3: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::everything(),
        Command::Build {
            kubectl,
            release,
            architectures,
        } => {
            let program = if kubectl { tasks::PLUGIN } else { tasks::AGENT };
            tasks::build(program, release, &architectures)
        }
        Command::Chart => chart::chart(),
        Command::Image(options) => image::image(options),
        Command::Test { args } => tasks::test(&args),
        Command::Lint => tasks::lint(),
        Command::Demo(Demo { keep, release, s3 }) => tasks::demo(keep, release, s3),
        Command::Load { args } => tasks::load(&args),
        Command::Soak { args } => tasks::soak(&args),
        Command::Simulate { args } => fast::simulate(&args),
        Command::Fuzz(options) => fast::fuzz(&options),
        Command::Cluster(command) => cluster::run_command(&command),
        Command::Kernels { fetch, versions } => kernels::run(&versions, fetch),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
