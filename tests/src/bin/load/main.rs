//! `cargo xtask load`: what a request costs, beside a static file served by nginx in the same run.
//!
//! Both are asked at the same fixed rate, by the same clients in the same simulated pod: requests
//! that reach the agent take the whole road through the kernel. Numbers of shared machines vary;
//! those of one run can be compared.

mod memory;
mod nginx;
mod rest;
mod speed;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Result, bail};
use clap::Parser;
use podcreds_tests::{eks_auth::EksAuth, privileged};

#[derive(Parser)]
#[command(name = "load", bin_name = "cargo xtask load --")]
struct Arguments {
    /// The agent to measure.
    #[arg(long)]
    agent: PathBuf,
    /// The nginx to compare with.
    #[arg(long, required_unless_present = "rest")]
    nginx: Option<PathBuf>,
    /// Requests per second.
    #[arg(long, default_value_t = 800)]
    rate: u32,
    /// How many clients ask at once.
    #[arg(long, default_value_t = 8)]
    callers: u32,
    /// How long each of both is asked in a round, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// How often each of both is asked, in turns.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// How many pods have their credentials cached when memory is measured.
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Measure only what an agent costs that nobody asks.
    #[arg(long)]
    rest: bool,
    /// With how many pods it rests.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 110, 1000])]
    rest_pods: Vec<usize>,
    /// For how long it is measured at rest, in seconds.
    #[arg(long, default_value_t = 60)]
    rest_seconds: u64,
    /// Another agent to measure at rest, beside the first one.
    #[arg(long)]
    against: Option<PathBuf>,
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
    let eks_auth = EksAuth::start();
    eks_auth.associate("default", "default", "load");
    if arguments.rest {
        println!("\n{}", rest::measure(arguments, &eks_auth)?);
        return Ok(());
    }
    let speed = speed::measure(arguments, &eks_auth)?;
    let memory = memory::measure(arguments, &eks_auth)?;
    println!("\n{speed}\n\n{memory}");
    Ok(())
}

/// Says what is being done, does it, and says how long that took.
fn step<T>(title: &str, work: impl FnOnce() -> T) -> T {
    eprintln!("==> {title}");
    let start = Instant::now();
    let result = work();
    eprintln!("    done in {:.1} s", start.elapsed().as_secs_f64());
    result
}
