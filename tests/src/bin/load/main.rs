//! `cargo xtask load`: what the agent costs, and what pods get, under several kinds of load.
//!
//! Requests take the whole road through the kernel, and come when they are due, however slow the
//! answers are. What is compared is measured in turns in one run: numbers of shared machines vary;
//! those of one run can be compared.
//!
//! [`scenario`] lists the kinds of load, and [`report`] shows what came of them.

mod at_once;
mod churn;
mod memory;
mod nginx;
mod other;
mod outcome;
mod pods;
mod report;
mod rest;
mod scenario;
mod speed;
mod steady;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use podcreds_tests::{eks_auth::EksAuth, privileged};
use serde_json::Value;

use other::Other;
use report::Report;
use scenario::Scenario;

#[derive(Parser)]
#[command(name = "load", bin_name = "cargo xtask load --")]
struct Arguments {
    /// What is measured, in this order.
    #[arg(value_enum, default_values_t = [Scenario::Cached, Scenario::Memory])]
    scenarios: Vec<Scenario>,
    /// The agent to measure.
    #[arg(long)]
    agent: PathBuf,
    /// Another build of it to measure in turns with the first one.
    #[arg(long)]
    against: Option<PathBuf>,
    /// A shell command that starts another agent, to be asked in turns too, in the host's network
    /// (cached). In its environment are `$CLUSTER`, and EKS Auth's address as `$EKS_AUTH`.
    #[arg(long, value_name = "COMMAND", requires = "other_address")]
    other: Option<String>,
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "other")]
    other_address: Option<SocketAddr>,
    /// The nginx to compare with (cached).
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// Write `load.json` and `load.html` into this folder.
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// Requests per second (cached).
    #[arg(long, default_value_t = 800)]
    rate: u32,
    /// How many clients ask at once (cached).
    #[arg(long, default_value_t = 8)]
    callers: u32,
    /// How long each server is asked in a round, in seconds (cached).
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// How often each server is asked, in turns (cached).
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// How many pods have their credentials in memory (memory).
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// With how many pods it rests (rest).
    #[arg(long, value_delimiter = ',', default_values_t = [0, 110, 1000])]
    rest_pods: Vec<usize>,
    /// For how long it is measured at rest, in seconds (rest).
    #[arg(long, default_value_t = 60)]
    rest_seconds: u64,
    /// How many pods ask at once (cold, storm).
    #[arg(long, default_value_t = 110)]
    at_once: usize,
    /// How many pods come and go (churn).
    #[arg(long, default_value_t = 50)]
    churn: u32,
    /// Requests per second of all pods together (outage, update).
    #[arg(long, default_value_t = 200)]
    steady_rate: u32,
    /// How long they ask, in seconds (outage, update).
    #[arg(long, default_value_t = 30)]
    steady_seconds: u64,
}

/// An agent that is measured.
struct Subject {
    name: String,
    binary: PathBuf,
}

impl Arguments {
    /// The agents, in the order in which they take turns.
    fn subjects(&self) -> Vec<Subject> {
        let binaries = [Some(&self.agent), self.against.as_ref()];
        let subject = |binary: &PathBuf| Subject {
            name: match self.against {
                None => "podcreds".to_owned(),
                Some(_) => name_of(binary),
            },
            binary: binary.clone(),
        };
        binaries.into_iter().flatten().map(subject).collect()
    }

    /// Starts the agent that is not podcreds, if one is named.
    fn other(&self, eks_auth: &EksAuth) -> Result<Option<Other>> {
        let named = self.other.as_deref().zip(self.other_address);
        named
            .map(|(command, address)| Other::start(command, address, eks_auth))
            .transpose()
    }
}

/// The last two parts of its path, which tell builds apart.
fn name_of(binary: &Path) -> String {
    let parts: Vec<_> = binary.iter().collect();
    let last: PathBuf = parts.iter().skip(parts.len().saturating_sub(2)).collect();
    last.display().to_string()
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    if let Err(missing) = privileged::check() {
        bail!("the road through the kernel {missing}");
    }
    let mut report = Report::default();
    for scenario in &arguments.scenarios {
        report.add(*scenario, scenario.measure(arguments)?);
    }
    for table in report.tables() {
        println!("\n{table}");
    }
    if let Some(folder) = &arguments.report {
        report.write(folder)?;
        eprintln!("==> The report is in {}", folder.display());
    }
    Ok(())
}

/// A number that a client has printed.
fn number(answer: &Value, field: &str) -> Result<f64> {
    let value = answer[field].as_f64();
    value.with_context(|| format!("no {field} in {answer}"))
}

/// Says what is being done, does it, and says how long that took.
fn step<T>(title: &str, work: impl FnOnce() -> T) -> T {
    eprintln!("==> {title}");
    let start = Instant::now();
    let result = work();
    eprintln!("    done in {:.1} s", start.elapsed().as_secs_f64());
    result
}
