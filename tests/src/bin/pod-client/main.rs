//! What runs inside simulated pods: well-behaved clients, ill-behaved ones, and the tool that gets
//! any of them into a pod.
//!
//! Results are JSON objects on stdout, one a line. What goes wrong on the network is a result, with
//! an `error`; the exit code is 1 only when the command could not do its part.

mod bind_all;
mod flood;
mod get;
mod hold;
mod join;
mod pass_socket;
mod patient;
mod request;
mod sdk;
mod socket;
mod storm;
mod talk;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use podcreds_tests::run::{self, RunName};
use serde_json::Value;

#[derive(Parser)]
#[command(
    name = "pod-client",
    about = "Runs inside the simulated pods of podcreds' tests"
)]
enum Command {
    /// Joins cgroups and namespaces, and becomes another command.
    Join(join::Join),
    /// Asks for credentials over a raw socket, and shows all of the answer.
    Get(get::Get),
    /// Sends bytes as they are, and shows what comes back in the same way.
    Talk(talk::Talk),
    /// Asks for credentials many times from many threads, and counts what comes back.
    Storm(storm::Storm),
    /// Asks for credentials until it is told something else than to come back later.
    Patient(patient::Patient),
    /// Waits until a run has ended, and removes what it has left.
    CleanUp(CleanUp),
    /// Gets credentials through the Rust SDK's default chain.
    Sdk,
    /// Opens connections and misuses them.
    Hold(hold::Hold),
    /// Keeps many connections busy, as somebody does who wants all of the agent for itself.
    Flood(flood::Flood),
    /// Listens on every port of a range, on all addresses of both families.
    BindAll(bind_all::BindAll),
    /// Makes a socket here, and has a process in another cgroup connect it and ask.
    PassSocket(pass_socket::PassSocket),
}

#[derive(clap::Args)]
struct CleanUp {
    /// The run's name.
    run: RunName,
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Join(join) => join.run(),
        Command::Get(get) => get.run(),
        Command::Talk(talk) => talk.run(),
        Command::Storm(storm) => storm.run(),
        Command::Patient(patient) => patient.run(),
        Command::CleanUp(CleanUp { run }) => run::clean_up_after(&run).map_err(Into::into),
        Command::Sdk => sdk::run(),
        Command::Hold(hold) => hold.run(),
        Command::Flood(flood) => flood.run(),
        Command::BindAll(bind_all) => bind_all.run(),
        Command::PassSocket(pass_socket) => pass_socket.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("pod-client: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one result.
fn print(result: &Value) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{result}")?;
    stdout.flush()
}

/// Waits until standard input ends, by which the test says that this is to end.
fn wait_for_end_of_input() -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

/// The CPU time that this process has used, in milliseconds.
fn cpu_ms() -> nix::Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_milliseconds())
}
