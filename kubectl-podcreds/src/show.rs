//! Writes what a command has found, for people or for programs.

use std::io::{self, IsTerminal, Write};

use podcreds_output::{json, yaml};
use serde::Serialize;
use terminal_size::{Width, terminal_size};

use crate::cli::Output;

/// Why nothing could be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShowError {
    /// Nobody reads it.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// It makes no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Something that people read as text, and programs as JSON.
pub(crate) trait Shown: Serialize {
    /// The text. Names in it have been made harmless. Tables fit into `width` columns.
    fn text(&self, width: Option<usize>) -> String;
}

/// Writes it to standard output.
///
/// # Errors
///
/// When that cannot be written to. A reader that has seen enough, as `head` has, is no error.
pub(crate) fn show(output: Output, shown: &impl Shown) -> Result<(), ShowError> {
    let text = match output {
        Output::Text => shown.text(width()),
        Output::Json => json(shown)?,
        Output::Yaml => yaml(&serde_json::to_value(shown)?),
    };
    print(text.as_bytes())
}

/// Writes this to standard output.
///
/// # Errors
///
/// As [`show`].
pub(crate) fn print(text: &[u8]) -> Result<(), ShowError> {
    let mut to = io::stdout().lock();
    let written = to.write_all(text).and_then(|()| to.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// How wide the terminal is, if there is one.
fn width() -> Option<usize> {
    let size = terminal_size().filter(|_| io::stdout().is_terminal());
    size.map(|(Width(width), _)| usize::from(width))
}
