//! The agent's log, line by line.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use serde_json::Value;

use crate::wait::{self, DEADLINE};

/// One line.
#[derive(Clone, Debug, Default)]
pub struct LogLine {
    /// `INFO`, `WARN` and so on; nothing for a line that is not JSON, such as a panic's.
    pub level: String,
    /// The message; the whole line when it is not JSON.
    pub message: String,
    /// The module that logged it.
    pub target: String,
    /// All fields, these three included.
    pub fields: Value,
    /// The line as it was written.
    pub raw: String,
}

impl LogLine {
    fn parse(raw: String) -> Self {
        let Ok(fields @ Value::Object(_)) = serde_json::from_str(&raw) else {
            return Self {
                message: raw.clone(),
                raw,
                ..Self::default()
            };
        };
        let text = |name| {
            fields
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            level: text("level"),
            message: text("message"),
            target: text("target"),
            fields,
            raw,
        }
    }

    /// A field as text.
    pub fn field(&self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

/// The lines so far; a thread adds to them.
#[derive(Clone)]
pub struct Logs(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: Mutex<Held>,
    grown: Condvar,
}

#[derive(Default)]
struct Held {
    lines: Vec<LogLine>,
    ended: bool,
    /// Nobody reads.
    is_paused: bool,
}

impl Logs {
    /// Collects the lines of `source` until it ends.
    pub(super) fn collect(source: impl Read + Send + 'static) -> Self {
        let logs = Self(Arc::default());
        let writer = logs.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                let mut held = writer.held();
                held.lines.push(LogLine::parse(line));
                writer.0.grown.notify_all();
                while held.is_paused {
                    let waited = writer.0.grown.wait(held);
                    held = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
            writer.held().ended = true;
            writer.0.grown.notify_all();
        });
        logs
    }

    /// Reads nothing more, after the next line, until it is told to go on.
    pub fn pause(&self, is_paused: bool) {
        self.held().is_paused = is_paused;
        self.0.grown.notify_all();
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<LogLine> {
        self.held().lines.clone()
    }

    /// The last `count` lines.
    pub fn last(&self, count: usize) -> Vec<LogLine> {
        let held = self.held();
        let skipped = held.lines.len().saturating_sub(count);
        held.lines[skipped..].to_vec()
    }

    /// The lines so far with this message.
    pub fn with_message(&self, message: &str) -> Vec<LogLine> {
        let mut lines = self.all();
        lines.retain(|line| line.message == message);
        lines
    }

    /// Waits until the agent has ended, and returns all lines.
    ///
    /// # Panics
    ///
    /// When it has not ended after [`DEADLINE`].
    pub fn to_the_end(&self) -> Vec<LogLine> {
        wait::until("the agent's log ends", || self.held().ended);
        self.all()
    }

    /// Waits for a line, which may have come already.
    ///
    /// # Panics
    ///
    /// When none has come after [`DEADLINE`], or none can come any more because the agent has
    /// ended.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&LogLine) -> bool) -> LogLine {
        let end = Instant::now() + DEADLINE;
        let mut held = self.held();
        let mut seen = 0;
        loop {
            if let Some(line) = held.lines[seen..].iter().find(|line| wanted(line)) {
                return line.clone();
            }
            assert!(!held.ended, "the agent has ended; waited for: {what}");
            seen = held.lines.len();
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "gave up after {DEADLINE:?}: {what}");
            let waited = self.0.grown.wait_timeout(held, left);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
