//! `cargo xtask cluster`: a Kubernetes node on this machine, and podcreds on it.

use std::{
    env,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use podcreds_tests::cluster::{Host, agent, aws, init};

/// A Kubernetes node on this machine, in namespaces of its own, with nothing simulated but AWS.
#[derive(Parser)]
#[command(name = "cluster")]
enum Command {
    /// Starts it, and waits until podcreds serves its pods.
    Up,
    /// Runs a program in it, with kubectl on the path.
    Run {
        /// The program.
        program: String,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Starts it, runs a program in it, and takes it down again.
    Test {
        /// The program.
        program: String,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Ends it, and removes all that it has left on the machine.
    Down,
    /// Waits for the end of `test`, and takes the node down unless it says that it has.
    #[command(hide = true)]
    Watch,
    /// Becomes the node; `up` does this.
    #[command(hide = true)]
    MakeNode,
    /// Is the node's first process.
    #[command(hide = true)]
    Init,
    /// Installs podcreds into the cluster that this runs in.
    #[command(hide = true)]
    Install,
    /// Is AWS, as the node sees it.
    #[command(hide = true)]
    Aws,
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let host = Host::of_checkout()?;
    match command {
        Command::Up => up(&host, false)?,
        Command::Run { program, arguments } => host.enter(&program, &arguments)?,
        Command::Test { program, arguments } => return test(&host, &program, &arguments),
        Command::Down => down(&host)?,
        Command::Watch => watch(&host)?,
        Command::MakeNode => host.make_node()?,
        Command::Init => init::run()?,
        Command::Install => agent::install()?,
        Command::Aws => aws::serve()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(host: &Host, bound: bool) -> Result<()> {
    step("Starting a Kubernetes node", || {
        host.up(bound, |line| eprintln!("{line}"))
    })?;
    // The node stays for a look if this fails.
    step("Installing podcreds as a DaemonSet", || {
        let own = env::current_exe().context("the path of this program")?;
        let own = own.display().to_string();
        ensure!(
            host.run(&own, &["install".to_owned()])?,
            "podcreds does not serve"
        );
        Ok(())
    })
}

fn down(host: &Host) -> Result<()> {
    step("Taking the node down", || host.down())
}

/// The program's exit code counts, unless the node cannot be started or leaves something behind.
fn test(host: &Host, program: &str, arguments: &[String]) -> Result<ExitCode> {
    let mut watcher = start_watcher()?;
    let tested = up(host, true).and_then(|()| host.run(program, arguments));
    let down = down(host);
    dismiss(&mut watcher)?;
    let success = tested?;
    down?;
    Ok(match success {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Starts the process that takes the node down when this one is killed.
fn start_watcher() -> Result<Child> {
    std::process::Command::new(env::current_exe().context("the path of this program")?)
        .arg("watch")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C and a closed terminal end the test, and not the watcher.
        .process_group(0)
        .spawn()
        .context("cannot start what watches")
}

/// Tells the watcher that the node is down.
fn dismiss(watcher: &mut Child) -> Result<()> {
    let mut input = watcher.stdin.take().context("the watcher's input")?;
    input.write_all(b"down").context("the watcher has ended")?;
    drop(input);
    watcher.wait().context("waiting for the watcher")?;
    Ok(())
}

fn watch(host: &Host) -> Result<()> {
    let mut said = Vec::new();
    io::stdin().lock().read_to_end(&mut said)?;
    if said.is_empty() { host.down() } else { Ok(()) }
}

/// Says what is being done, does it, and says how long that took.
fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {title}");
    let start = Instant::now();
    let result = work();
    let (how, seconds) = match &result {
        Ok(_) => ("done in", start.elapsed().as_secs_f64()),
        Err(_) => ("failed after", start.elapsed().as_secs_f64()),
    };
    eprintln!("    {how} {seconds:.1} s");
    result
}
