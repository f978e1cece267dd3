//! What is logged: a level for the agent, and levels for parts of it.

use std::{fmt, str::FromStr};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::Verbosity;

/// Crates that see tokens or credentials, or whose chatter hides ours. They never log below `warn`.
const CONFINED: [&str; 9] = [
    "aws_",
    "h2",
    "http",
    "hyper",
    "jsonwebtoken",
    "mio",
    "rustls",
    "tokio",
    "tower",
];

/// After a failed call it says as an error that it found no connection to close: the agent's HTTP
/// client does not tell the SDK which one it was. hyper closes broken ones by itself, and what made
/// the call fail is logged by the agent.
const SILENT: &str = "aws_smithy_runtime::client::http::connection_poisoning";

/// What the names of our own crates begin with.
const OURS: &str = "podcreds";

/// What is logged, written `info` or `info,podcreds_exchange=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    verbosity: Verbosity,
    parts: Vec<(String, Verbosity)>,
}

/// A text that is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It names no level where one must be.
    #[error("{0:?} is no level: panic, error, warn, info, debug or trace")]
    Level(String),
    /// It names more than one level for all parts, or none.
    #[error("it must have one level for the whole agent, such as info,podcreds_exchange=debug")]
    Default,
    /// It names a part that is not the agent's own.
    #[error(
        "{0:?} is no part of the agent: name a crate of podcreds, such as podcreds_exchange; others \
         may see secrets"
    )]
    Part(String),
}

impl From<Verbosity> for Filter {
    fn from(verbosity: Verbosity) -> Self {
        let parts = Vec::new();
        Self { verbosity, parts }
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let (mut verbosity, mut parts) = (None, Vec::new());
        for directive in text.split(',').map(str::trim) {
            match directive.split_once('=') {
                Some((part, of_part)) if is_ours(part) => {
                    parts.push((part.to_owned(), level(of_part)?));
                }
                Some((part, _)) => return Err(FilterError::Part(part.to_owned())),
                None => {
                    let level = level(directive)?;
                    if verbosity.replace(level).is_some() {
                        return Err(FilterError::Default);
                    }
                }
            }
        }
        let verbosity = verbosity.ok_or(FilterError::Default)?;
        Ok(Self { verbosity, parts })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(self.verbosity))?;
        for (part, verbosity) in &self.parts {
            write!(f, ",{part}={}", name(*verbosity))?;
        }
        Ok(())
    }
}

impl Filter {
    /// Our own lines at the level asked for; other crates' only when somebody is looking for a
    /// mistake; and never those of a crate that would print a secret.
    pub(super) fn targets(&self) -> Targets {
        let ours = LevelFilter::from(self.verbosity);
        let others = match self.verbosity {
            Verbosity::Debug | Verbosity::Trace => ours,
            _ => ours.min(LevelFilter::WARN),
        };
        let confined = ours.min(LevelFilter::WARN);
        let parts = self.parts.iter();
        Targets::new()
            .with_default(others)
            .with_target(OURS, ours)
            .with_targets(CONFINED.map(|target| (target, confined)))
            .with_target(SILENT, LevelFilter::OFF)
            .with_targets(parts.map(|(part, level)| (part.as_str(), LevelFilter::from(*level))))
    }
}

fn is_ours(part: &str) -> bool {
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    part.starts_with(OURS) && part.chars().all(is_path)
}

fn level(text: &str) -> Result<Verbosity, FilterError> {
    Verbosity::from_str(text, true).map_err(|_| FilterError::Level(text.to_owned()))
}

fn name(verbosity: Verbosity) -> &'static str {
    match verbosity {
        Verbosity::Panic => "panic",
        Verbosity::Error => "error",
        Verbosity::Warn => "warn",
        Verbosity::Info => "info",
        Verbosity::Debug => "debug",
        Verbosity::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_written_as_it_is_read() {
        for text in [
            "info",
            "panic",
            "warn,podcreds_exchange=trace,podcreds_cache=debug",
        ] {
            assert_eq!(text.parse::<Filter>().unwrap().to_string(), text);
        }
        let loose = "DEBUG, podcreds::app=info".parse::<Filter>().unwrap();
        assert_eq!(loose.to_string(), "debug,podcreds::app=info");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused_with_the_reason() {
        let why = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
        assert!(why("loud").contains("\"loud\" is no level"));
        assert!(why("").contains("no level"));
        assert!(why("info,debug").contains("one level"));
        assert!(why("podcreds_cache=debug").contains("one level"));
        assert!(why("info,hyper=trace").contains("no part of the agent"));
        assert!(why("info,podcreds_cache=loud").contains("no level"));
    }
}
