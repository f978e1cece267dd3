//! The commands that ask running agents over the operator's socket.

mod agent_lines;
mod log_level;
mod node;
mod pods_table;
mod refresh;
mod refused_table;
mod status;

use std::{
    io::{self, Write},
    path::Path,
};

use podcreds_admin::{AskError, Question, ask_all};
use serde::de::DeserializeOwned;

pub(crate) use self::{log_level::log_level, refresh::refresh, status::status};

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
fn ask<T>(folder: &Path, question: &Question) -> Result<Vec<T>, AskError>
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
fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}
