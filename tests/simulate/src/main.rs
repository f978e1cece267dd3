//! `cargo xtask simulate`: a node's day or a whole fleet, over the agent's own credentials stage.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use podcreds_simulate::{HOUR, day, day_report, fleet, fleet_report};
use serde::Serialize;

#[derive(Parser)]
#[command(name = "simulate", bin_name = "cargo xtask simulate")]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// What the dice are thrown by: the same seed makes the same pods do the same.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Where to write `day.json` and `day.html`, or `fleet.json` and `fleet.html`.
    #[arg(long, global = true, default_value = "target/simulate")]
    report: PathBuf,
}

#[derive(Subcommand)]
enum What {
    /// A node's day: calls to EKS Auth per pod-day, beside the rule of AWS's agent.
    Day(Day),
    /// A fleet against one quota, through a roll-out, an outage and a brown-out.
    Fleet(Fleet),
}

#[derive(Args)]
struct Day {
    /// Pods at a time.
    #[arg(long, default_value_t = 110)]
    pods: u64,
    /// The hours that count.
    #[arg(long, default_value_t = 24)]
    hours: u32,
}

#[derive(Args)]
struct Fleet {
    /// Nodes.
    #[arg(long, default_value_t = 5000)]
    nodes: u64,
    /// Pods on each of them.
    #[arg(long, default_value_t = 40)]
    pods: u64,
    /// Calls a second that EKS Auth answers to all of them together.
    #[arg(long, default_value_t = 200.0)]
    quota: f64,
    /// Within how many seconds all pods are rolled out.
    #[arg(long, default_value_t = 300)]
    roll_out: u64,
    /// How many hours are simulated.
    #[arg(long, default_value_t = 9)]
    hours: u32,
}

fn main() -> ExitCode {
    match simulate(&Arguments::parse()) {
        Ok(complaints) if complaints.is_empty() => ExitCode::SUCCESS,
        Ok(complaints) => {
            complaints
                .iter()
                .for_each(|what| eprintln!("too much: {what}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(arguments: &Arguments) -> Result<Vec<String>> {
    let seed = arguments.seed;
    let folder = &arguments.report;
    match &arguments.what {
        What::Day(day) => {
            let options = day::DayOptions {
                pods: day.pods,
                hours: day.hours,
                seed,
            };
            let outcome = day::run(&options)?;
            let report = day_report::DayReport::new(&options, &outcome);
            println!("{}", report.table());
            write(folder, "day", &report, &report.page(&outcome))?;
            Ok(report.complaints())
        }
        What::Fleet(fleet) => {
            let options = fleet::FleetOptions {
                nodes: fleet.nodes,
                pods: fleet.pods,
                quota: fleet.quota,
                roll_out: Duration::from_secs(fleet.roll_out),
                seed,
                until: HOUR * fleet.hours,
            };
            let started = Instant::now();
            let outcome = fleet::run(&options, |simulated| {
                let hours = simulated.as_secs_f64() / HOUR.as_secs_f64();
                let took = started.elapsed().as_secs_f64();
                eprintln!("{hours:.2} hours of the fleet in {took:.0} s");
            })?;
            let report = fleet_report::FleetReport::new(&options, &outcome);
            println!("{}", report.table());
            write(folder, "fleet", &report, &report.page(&options, &outcome))?;
            let complaints = report.phases.iter().flat_map(|it| it.complaints());
            Ok(complaints.collect())
        }
    }
}

fn write(folder: &Path, name: &str, report: &impl Serialize, page: &str) -> Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(folder.join(name).with_extension("json"), json))
        .and_then(|()| fs::write(folder.join(name).with_extension("html"), page))
        .with_context(|| format!("cannot write the report below {}", folder.display()))?;
    eprintln!(
        "The plot is in {}",
        folder.join(name).with_extension("html").display()
    );
    Ok(())
}
