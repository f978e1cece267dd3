//! Runs other programs, and shows what is going on and how long it took.

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result, bail};

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
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_arguments() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` failed (exit status: 3)");
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
