//! `cargo xtask soak`: everything changes at once, for an hour, while each answer is checked.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use podcreds_tests::{
    privileged,
    soak::{self, Plan},
};

#[derive(Parser)]
#[command(name = "soak", bin_name = "cargo xtask soak --")]
struct Arguments {
    /// Decides about the order of all that happens. Without it: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// How many pods there are at most.
    #[arg(long, default_value_t = 20)]
    pods: usize,
    /// How many clients ask at once.
    #[arg(long, default_value_t = 3)]
    clients: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(missing) = privileged::check() {
        eprintln!("error: the soak {missing}");
        return ExitCode::FAILURE;
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("==> Soaking for {} s with --seed {seed}", arguments.seconds);
    let plan = Plan {
        seed,
        time: Duration::from_secs(arguments.seconds),
        pods: arguments.pods,
        clients: arguments.clients,
        progress: Duration::from_secs(10),
    };
    match soak::run(&plan) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
