//! A run that is ended by a signal leaves nothing on the machine.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a helper of tests fails the test"
)]

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, PipeReader, pipe},
    os::unix::{fs::symlink, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podcreds_tests::{
    binary, needs_privileges,
    node::Node,
    run::{self, RunName},
    scenario::Scenario,
    wait::{self, until},
};

/// A run that begins removes what dead runs have left, which another test may be looking at.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The run that the tests below end: an agent, and a pod that it serves.
#[test]
#[ignore = "others start it, and end it"]
fn a_run() {
    let scene = Scenario::start();
    let _pod = scene.served_pod("pod");
    println!("\nREADY {}", run::current().name());
    loop {
        thread::park();
    }
}

/// A run that is over soon.
#[test]
#[ignore = "others start it"]
fn a_short_run() {
    drop(Node::new());
}

/// One of the tests above, as a process of its own.
fn program(test: &str) -> Vec<String> {
    let own = env::current_exe().unwrap().display().to_string();
    let arguments = ["--exact", test, "--ignored", "--nocapture"];
    [own]
        .into_iter()
        .chain(arguments.map(str::to_owned))
        .collect()
}

/// Starts a command, and waits until the run in it says that it is ready.
fn start(mut command: Command) -> (Child, RunName) {
    let (output, input) = pipe().unwrap();
    let child = command.stdout(input).spawn().unwrap();
    // It holds the other end of the pipe.
    drop(command);
    let name = name(output);
    (child, name)
}

fn name(output: PipeReader) -> RunName {
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let name = lines.find_map(|line| line.strip_prefix("READY ")?.parse().ok());
    name.expect("a run that gets ready")
}

fn start_run() -> (Child, RunName) {
    let words = program("a_run");
    let mut command = interruptible(&words[0]);
    command.args(&words[1..]);
    start(command)
}

/// A program that signals end, also where these tests run in the background of a script or under
/// nohup, in which case they and their children ignore some.
fn interruptible(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM,HUP").arg(program);
    command
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

fn wait_until_nothing_is_left(run: &RunName) {
    until(&format!("nothing is left of {run}"), || {
        run::leftovers(run).is_empty()
    });
}

/// The process that cleans up after a run.
fn janitor(run: &RunName) -> u32 {
    let wanted = format!("\0clean-up\0{run}\0");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_wanted = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(&wanted))
    };
    pids.find(is_wanted).expect("a janitor")
}

#[test]
fn tests_that_a_signal_ends_leave_nothing() {
    needs_privileges!();
    let _alone = alone();
    for by in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGKILL,
    ] {
        let (mut child, name) = start_run();
        let before = run::leftovers(&name);
        // A cgroup, a folder, the agent and the pod's pause process.
        assert!(before.len() >= 4, "{before:?}");
        signal(child.id(), by);
        assert_eq!(wait::exit(&mut child).signal(), Some(by as i32));
        wait_until_nothing_is_left(&name);
    }
}

#[test]
fn tests_end_with_the_cargo_that_runs_them() {
    needs_privileges!();
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let cargo = folder.path().join("cargo");
    symlink("/bin/sh", &cargo).unwrap();
    let mut command = Command::new(&cargo);
    command.args(["-c", &format!("{}; true", program("a_run").join(" "))]);
    let (mut child, name) = start(command);
    signal(child.id(), Signal::SIGTERM);
    wait::exit(&mut child);
    wait_until_nothing_is_left(&name);
}

/// Ends one of the programs of `cargo xtask` as soon as it has made pods.
fn end_program(name: &str, arguments: &[&str], by: Signal) {
    let mut child = interruptible(binary::find(name, "podcreds-tests"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let run = RunName::of_process(child.id()).unwrap();
    until(&format!("{name} has made pods"), || {
        let ended = child.try_wait().unwrap();
        assert_eq!(ended, None, "{name} has ended by itself");
        let there = run::leftovers(&run);
        there
            .iter()
            .filter(|what| what.starts_with("process"))
            .count()
            >= 2
    });
    signal(child.id(), by);
    wait::exit(&mut child);
    wait_until_nothing_is_left(&run);
}

#[test]
fn load_and_demo_that_a_signal_ends_leave_nothing() {
    needs_privileges!();
    let _alone = alone();
    let agent = binary::podcreds().display().to_string();
    for by in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // It has an agent and a pod, and waits for an nginx that does not serve.
        end_program("load", &["--agent", &agent, "--nginx", "/bin/true"], by);
        end_program("demo", &["--keep"], by);
    }
}

#[test]
fn the_next_run_removes_what_a_dead_run_has_left_and_nothing_of_a_living_one() {
    needs_privileges!();
    let _alone = alone();
    let (mut living, neighbour) = start_run();
    let (mut child, name) = start_run();
    signal(janitor(&name), Signal::SIGKILL);
    signal(child.id(), Signal::SIGKILL);
    wait::exit(&mut child);
    let left = run::leftovers(&name);
    assert!(left.len() >= 4, "{left:?}");
    let before = run::leftovers(&neighbour);
    let words = program("a_short_run");
    let next = Command::new(&words[0]).args(&words[1..]).output().unwrap();
    assert!(next.status.success(), "{next:?}");
    assert_eq!(run::leftovers(&name), [] as [&str; 0]);
    assert_eq!(run::leftovers(&neighbour), before);
    assert!(Path::new(&format!("/proc/{}", living.id())).exists());
    signal(living.id(), Signal::SIGTERM);
    wait::exit(&mut living);
    wait_until_nothing_is_left(&neighbour);
}
