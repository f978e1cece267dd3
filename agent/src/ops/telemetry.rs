//! Logs: JSON lines for machines, plain ones for people, always on standard error.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::{Subscriber, level_filters::LevelFilter, subscriber::SetGlobalDefaultError};
use tracing_subscriber::{
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
};

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

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How much is logged. The names of other agents' levels (panic, trace) are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Verbosity {
    /// Nothing: what ends the process is told by its last words and its exit code.
    Panic,
    /// What needs somebody to act.
    Error,
    /// Also what degrades the service.
    Warn,
    /// Also changes of state.
    #[default]
    Info,
    /// Also what helps to find a mistake.
    Debug,
    /// Everything.
    Trace,
}

impl From<Verbosity> for LevelFilter {
    fn from(verbosity: Verbosity) -> Self {
        match verbosity {
            Verbosity::Panic => Self::OFF,
            Verbosity::Error => Self::ERROR,
            Verbosity::Warn => Self::WARN,
            Verbosity::Info => Self::INFO,
            Verbosity::Debug => Self::DEBUG,
            Verbosity::Trace => Self::TRACE,
        }
    }
}

/// Logs to standard error from here on.
///
/// # Errors
///
/// When the process logs already.
pub fn init(format: LogFormat, verbosity: Verbosity) -> Result<(), SetGlobalDefaultError> {
    let stderr = io::stderr();
    let text = match format {
        LogFormat::Auto => stderr.is_terminal(),
        LogFormat::Json => false,
        LogFormat::Text => true,
    };
    if text {
        let colours = stderr.is_terminal();
        tracing::subscriber::set_global_default(text_lines(io::stderr, verbosity, colours))
    } else {
        tracing::subscriber::set_global_default(json_lines(io::stderr, verbosity))
    }
}

fn json_lines<W>(writer: W, verbosity: Verbosity) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer);
    tracing_subscriber::registry()
        .with(targets(verbosity))
        .with(lines)
}

fn text_lines<W>(writer: W, verbosity: Verbosity, colours: bool) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_ansi(colours).with_writer(writer);
    tracing_subscriber::registry()
        .with(targets(verbosity))
        .with(lines)
}

/// Our own lines at the level asked for; other crates' only when somebody is looking for a mistake;
/// and never those of a crate that would print a secret.
fn targets(verbosity: Verbosity) -> Targets {
    let ours = LevelFilter::from(verbosity);
    let others = match verbosity {
        Verbosity::Debug | Verbosity::Trace => ours,
        _ => ours.min(LevelFilter::WARN),
    };
    let confined = ours.min(LevelFilter::WARN);
    Targets::new()
        .with_default(others)
        .with_target(env!("CARGO_PKG_NAME"), ours)
        .with_targets(CONFINED.map(|target| (target, confined)))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn json(verbosity: Verbosity, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = json_lines(move || writer.clone(), verbosity);
        tracing::subscriber::with_default(subscriber, log);
        captured.text()
    }

    #[test]
    fn json_lines_are_flat() {
        let line = json(Verbosity::Info, || {
            tracing::info!(address = "[::]:80", pods = 3, "listening");
        });
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["message"], "listening");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["address"], "[::]:80");
        assert_eq!(line["pods"], 3);
        assert_eq!(line["target"], module_path!());
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn text_lines_are_for_people() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = text_lines(move || writer.clone(), Verbosity::Info, false);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pods = 3, "slow");
        });
        assert!(captured.text().contains("WARN"), "{}", captured.text());
        assert!(
            captured.text().contains("slow pods=3"),
            "{}",
            captured.text()
        );
    }

    #[test]
    fn verbosity_is_a_threshold() {
        let log = || {
            tracing::error!("e-line");
            tracing::info!("i-line");
            tracing::trace!("t-line");
        };
        assert_eq!(json(Verbosity::Panic, log), "");
        assert_eq!(json(Verbosity::Error, log).lines().count(), 1);
        assert_eq!(json(Verbosity::Info, log).lines().count(), 2);
        assert_eq!(json(Verbosity::Trace, log).lines().count(), 3);
    }

    #[test]
    fn crates_that_see_secrets_stay_quiet() {
        let log = || {
            tracing::debug!(target: "aws_smithy_runtime::client", "body: very-secret");
            tracing::trace!(target: "hyper_util::client", "very-secret");
            tracing::warn!(target: "rustls::common_state", "handshake");
            tracing::debug!(target: "netlink", "other");
            tracing::info!(target: "netlink", "chatter");
        };
        let loud = json(Verbosity::Trace, log);
        assert!(!loud.contains("very-secret"));
        assert!(loud.contains("handshake") && loud.contains("other"));
        assert!(!json(Verbosity::Info, log).contains("chatter"));
    }
}
