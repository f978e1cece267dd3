//! `cargo xtask demo`: podcreds on a simulated node, with unmodified AWS clients as its pods.
//!
//! Prints what every client got, and ends with 0 only if all of it is right. `--s3` shows another
//! story: an application whose role is given, denied, changed and taken away.

mod full;
mod loopback;
mod movement;
mod outcome;
mod s3;
mod scenario;

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use podcreds_tests::{privileged, sdk::Sdk};

/// Who asks in each pod.
const CLIENTS: [Sdk; 3] = [Sdk::Boto3, Sdk::AwsCli, Sdk::Rust];

#[derive(Parser)]
struct Arguments {
    /// Leave everything running for a look, until Enter is pressed.
    #[arg(long, conflicts_with = "s3")]
    keep: bool,
    /// Show an application that lists a bucket in S3, and whose role comes and goes.
    #[arg(long)]
    s3: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let shown = match privileged::check() {
        _ if arguments.s3 => s3::show(),
        Ok(()) => full::show(&arguments),
        Err(missing) => {
            eprintln!("The redirect in the kernel cannot be shown here: {missing}.");
            eprintln!(
                "What follows is podcreds without it, on loopback, where only the token says who asks."
            );
            loopback::show()
        }
    };
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("Not everything is what it should be.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is being done, does it, and says how long that took.
fn step<T>(title: &str, work: impl FnOnce() -> T) -> T {
    eprintln!("==> {title}");
    let start = Instant::now();
    let result = work();
    eprintln!("    done in {:.1} s", start.elapsed().as_secs_f64());
    result
}
