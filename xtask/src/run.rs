//! Runs other programs, and shows what is going on and how long it took.

use std::{ffi::OsStr, process::Command, time::Instant};

use anyhow::{Context as _, Result, bail};

use crate::setup::find_program;

/// What sends a program SIGTERM when the one that has started it ends (util-linux).
const BINDER: [&str; 4] = ["setpriv", "--pdeathsig", "TERM", "--"];

/// Announces a piece of work, does it, and says how long it took.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {title}");
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(_) => eprintln!("    done in {seconds:.1} s"),
        Err(_) => eprintln!("    failed after {seconds:.1} s"),
    }
    result
}

/// A program that is told to end when this one ends, for whatever reason: what it does is of no use
/// to anybody any more. To be started by the main thread, with which the bond goes.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    let [binder, arguments @ ..] = BINDER;
    match find_program(binder) {
        Some(binder) => {
            let mut command = Command::new(binder);
            command.args(arguments).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Runs a program that talks to the terminal itself.
///
/// # Errors
///
/// When it cannot be started or reports failure.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// What a program prints, or `None` when it cannot be started or reports failure.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    let binder = BINDER[1..].iter();
    let is_bound = words
        .iter()
        .skip(1)
        .zip(binder)
        .all(|(word, own)| word == own);
    let from = if is_bound { BINDER.len() } else { 0 };
    words.get(from..).unwrap_or(&words).join(" ")
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::Stdio,
    };

    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_arguments() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` failed (exit status: 3)");
    }

    #[test]
    fn a_bound_program_is_named_without_what_binds_it() {
        let error = run(bound("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` failed (exit status: 3)");
    }

    /// This test program starts itself as `xtask`, is killed, and sees that what `xtask` has
    /// started ends.
    #[test]
    fn a_bound_program_ends_with_the_one_that_started_it() {
        const INNER: &str = "PODCREDS_TEST_BOUND";
        if std::env::var_os(INNER).is_some() {
            // Tests run in threads; the bond goes with the thread that starts the program.
            let _ = bound("sh").args(["-c", "echo $$; exec sleep 60"]).status();
            return;
        }
        let name = "run::tests::a_bound_program_ends_with_the_one_that_started_it";
        let mut outer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(INNER, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(outer.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        // The harness may have begun the line with the test's name.
        let last_word = |line: String| line.split_whitespace().last()?.parse().ok();
        let _pid: u32 = lines.find_map(last_word).unwrap();
        outer.kill().unwrap();
        outer.wait().unwrap();
        // The pipe ends with the last process that holds it. The bound one would for a minute.
        let killed = Instant::now();
        assert_eq!(lines.find(|line| line == "never"), None);
        assert!(killed.elapsed().as_secs() < 30, "it went on");
    }

    #[test]
    fn output_of_a_failing_or_missing_program_is_none() {
        assert_eq!(output(&mut Command::new("false")), None);
        assert_eq!(output(&mut Command::new("/nonexistent")), None);
        assert_eq!(
            output(Command::new("echo").arg("hello")).as_deref(),
            Some("hello")
        );
    }
}
