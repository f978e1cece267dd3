//! `kubectl podcreds`: EKS Pod Identity, seen from Kubernetes, EKS and IAM at once.
//!
//! 1. `cli` is the command line, `kubeconfig` says which cluster is meant.
//! 2. `collect` asks `kubernetes`, `aws` and the `agents`, and makes a `snapshot` of plain values.
//! 3. `checks` and `policy` judge a snapshot, and say what they found as `finding`s with a remedy
//!    each. They ask nobody, so each of them is tried on values.
//! 4. A file for each command has what it shows.

mod agents;
mod associations;
mod aws;
mod checks;
mod cli;
mod collect;
mod commands;
mod complete;
mod doctor;
mod finding;
mod kubeconfig;
mod kubernetes;
mod migrate;
mod policy;
mod progress;
mod refresh;
mod show;
mod snapshot;
mod status;
mod variables;

use std::{process::ExitCode, time::Instant};

use clap::{CommandFactory, Parser};

use crate::{
    associations::Associations,
    cli::{Cli, Command, DoctorArgs, Place},
    collect::{Depth, World},
    finding::Status,
    kubeconfig::KubeconfigError,
    migrate::Plan,
    progress::patiently,
    show::show,
    snapshot::Missing,
};

/// The binary, as kubectl looks for it.
const NAME: &str = "kubectl-podcreds";

/// Something is wrong.
const FAILED: u8 = 1;
// From sysexits.h, which scripts know; the same as those of `podcreds`.
const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const WRITING_FAILED: u8 = 74;

/// Why a command has not done what it was told.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error("cannot look at {}: {}", .0.what, .0)]
    Missing(Missing),
    #[error("no runtime: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("writing the answer: {0}")]
    Write(#[from] show::ShowError),
}

impl From<Missing> for CommandError {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a terminal that is gone.
            let _printed = error.print();
            return if error.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => FAILED.into(),
        Err(error) => {
            let text = podcreds_output::harmless(&kubernetes::chain(&error));
            eprintln!("kubectl podcreds: {text}");
            match error {
                CommandError::Kubeconfig(KubeconfigError::Read(_)) => USAGE.into(),
                CommandError::Kubeconfig(KubeconfigError::Client(_))
                | CommandError::Missing(_)
                | CommandError::Runtime(_) => UNAVAILABLE.into(),
                CommandError::Write(_) => WRITING_FAILED.into(),
            }
        }
    }
}

/// Runs a command. Whether all is well.
fn run(cli: Cli) -> Result<bool, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CommandError::Runtime)?;
    let Cli { place, command } = cli;
    let outcome = runtime.block_on(patiently(run_command(place, command)));
    // What nobody waits for any more, such as an agent that does not answer, is left behind.
    runtime.shutdown_background();
    outcome
}

async fn run_command(place: Place, command: Command) -> Result<bool, CommandError> {
    let output = place.output;
    match command {
        Command::Associations => {
            let world = World::new(place).await?;
            let since = Instant::now();
            let snapshot = world.cluster(Depth::Details).await;
            if let Err(missing) = &snapshot.associations {
                return Err(missing.clone().into());
            }
            let associations = Associations::new(&snapshot, since.elapsed().as_secs_f64());
            show(output, &associations)?;
            Ok(true)
        }
        Command::Doctor(DoctorArgs { pod, .. }) => {
            let world = World::new(place).await?;
            let report = match pod {
                Some(pod) => doctor::pod(&world, &pod).await?,
                None => doctor::cluster(&world).await?,
            };
            show(output, &report)?;
            Ok(report.worst < Status::Fail)
        }
        Command::Status(args) => {
            let world = World::new(place).await?;
            let nodes = status::status(&world, &args).await?;
            show(output, &nodes)?;
            Ok(nodes.are_ready())
        }
        Command::Refresh { account } => {
            let world = World::new(place).await?;
            let refreshed = refresh::refresh(&world, &account).await?;
            show(output, &refreshed)?;
            Ok(refreshed.is_done())
        }
        Command::Migrate { from } => {
            let world = World::new(place).await?;
            let snapshot = world.cluster(Depth::Names).await;
            let wanted = migrate::wanted(&snapshot, from)?;
            let arns = wanted.values().flatten().cloned().collect();
            let snapshot = world.with_roles(snapshot, arns).await;
            show(output, &Plan::new(&snapshot, &wanted))?;
            Ok(true)
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
            show::print(&script)?;
            Ok(true)
        }
        Command::Complete { words } => {
            let said = complete::complete(Cli::command(), &words);
            show::print(said.as_bytes())?;
            Ok(true)
        }
    }
}
