//! Asking running agents over the operators' socket, and what comes of it.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use podcreds_admin::{AskError, Question, ask_all};
use serde::de::DeserializeOwned;

use crate::exit::{NO_PERMISSION, REFUSED, UNAVAILABLE, USAGE, WRITING_FAILED};

/// Why a command has not done what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The agents do not answer, or not to this.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Nobody reads the answer.
    #[error("writing the answer: {0}")]
    Write(#[from] io::Error),
    /// The answer cannot be written.
    #[error("writing the answer: {0}")]
    Json(#[from] serde_json::Error),
}

/// What those agents say that answer, and on standard error why others do not.
///
/// # Errors
///
/// The first reason where none answers.
pub(super) fn ask<T>(folder: &Path, question: &Question) -> Result<Vec<T>, AskError>
where
    T: DeserializeOwned + Send,
{
    let (mut said, mut errors) = (Vec::new(), Vec::new());
    for answer in ask_all(folder, question)? {
        match answer {
            Ok(answer) => said.push(answer),
            Err(error) => errors.push(error),
        }
    }
    if said.is_empty() {
        return Err(errors
            .into_iter()
            .next()
            .unwrap_or_else(|| AskError::Nobody(folder.to_owned())));
    }
    // In an update one agent may not know what the other one does.
    let is_worth_saying = |error: &&AskError| !matches!(error, AskError::NotFound(_));
    for error in errors.iter().filter(is_worth_saying) {
        eprintln!("podcreds: {error}");
    }
    Ok(said)
}

/// Writes an answer to standard output.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// The exit code of a command that asks agents: whether all went well.
pub(crate) fn exit_code(outcome: Result<bool, CommandError>) -> ExitCode {
    let error = match outcome {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return REFUSED.into(),
        // The reader has seen enough, as `head` has.
        Err(CommandError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    eprintln!("podcreds: {error}");
    let code = match error {
        CommandError::Write(_) | CommandError::Json(_) => WRITING_FAILED,
        CommandError::Ask(AskError::NotPermitted(_)) => NO_PERMISSION,
        CommandError::Ask(AskError::Invalid(_)) => USAGE,
        CommandError::Ask(AskError::NotFound(_)) => REFUSED,
        _ => UNAVAILABLE,
    };
    code.into()
}
