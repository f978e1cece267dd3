//! A run: one process of tests, demo or load, and all that it makes on the machine.
//!
//! What a run makes carries its name: cgroups and temporary folders in their own names, processes
//! in their environment. So it can be removed by others when the run is ended before it has done so
//! itself:
//!
//! - by a janitor, a process that each run starts. It waits until the run has ended, whether in
//!   order or by a signal, and then removes what is left.
//! - where the janitor was killed too, by the next run.
//!
//! Neither touches what belongs to a run that lives.

mod leftovers;
mod name;

use std::{
    env, fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::LazyLock,
    thread,
};

use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::getppid,
};

pub use name::RunName;

use crate::binary;

/// The environment variable that names the run of a process.
pub const VARIABLE: &str = "PODCREDS_RUN";

/// The run that this process is.
pub struct Run {
    name: RunName,
    /// Its input ends with this process.
    _janitor: Child,
}

/// The run that this process is. The first call begins it, and removes what earlier runs have left.
///
/// # Panics
///
/// When the janitor cannot be started, or there is no temporary folder.
pub fn current() -> &'static Run {
    static RUN: LazyLock<Run> = LazyLock::new(Run::begin);
    &RUN
}

impl Run {
    fn begin() -> Self {
        end_with_cargo();
        leftovers::remove_of_dead_runs();
        let name = RunName::own().expect("this process in /proc");
        let folder = folder(&name);
        fs::create_dir_all(&folder).unwrap_or_else(|why| panic!("cannot make {folder:?}: {why}"));
        // Fails only where a folder has been chosen already, which is then where temporary files
        // are.
        let _ = tempfile::env::override_temp_dir(&folder);
        Self {
            _janitor: start_janitor(&name),
            name,
        }
    }

    /// Its name.
    pub fn name(&self) -> &RunName {
        &self.name
    }
}

/// What is there of a run, in words: processes, cgroups and folders.
pub fn leftovers(run: &RunName) -> Vec<String> {
    leftovers::list(run)
}

/// Waits until a run has ended, which is when the input of this process ends, and removes what it
/// has left.
///
/// # Errors
///
/// When the input cannot be read, or something cannot be removed.
pub fn clean_up_after(run: &RunName) -> io::Result<()> {
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    leftovers::remove(run)
}

/// Where a run's temporary files are.
fn folder(run: &RunName) -> PathBuf {
    env::temp_dir().join(run.to_string())
}

fn start_janitor(run: &RunName) -> Child {
    Command::new(binary::pod_client())
        .arg("clean-up")
        .arg(run.to_string())
        .current_dir("/")
        .env_remove(VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C and a closed terminal end the run, and not the janitor.
        .process_group(0)
        .spawn()
        .expect("pod-client clean-up")
}

/// `cargo test` that is ended does not end the test programs that it has started.
fn end_with_cargo() {
    let parent = getppid();
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    if name.trim() != "cargo" {
        return;
    }
    // The kernel keeps this for a thread, and the one of a test ends with the test.
    thread::spawn(move || {
        let bound = set_pdeathsig(Signal::SIGTERM);
        if bound.is_ok() && getppid() != parent {
            process::exit(1);
        }
        loop {
            thread::park();
        }
    });
}
