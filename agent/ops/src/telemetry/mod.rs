//! Logs: JSON lines for machines, plain ones for people, always on standard error.
//!
//! A thread of their own writes them, and what a pod could repeat for ever is written now and then.

mod filter;
mod format;
mod level;
mod queue;
mod repeats;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Display,
    io::{self, IsTerminal, Write as _},
    panic::{self, PanicHookInfo},
    sync::OnceLock,
    thread,
    time::Duration,
};

use clap::ValueEnum;
use prometheus::{IntCounterVec, Opts, Registry};
use rustix::thread::CapabilitySet;
use tracing::{Subscriber, level_filters::LevelFilter, subscriber::set_global_default};
use tracing_subscriber::{
    Layer, Registry as Spans,
    fmt::{self, MakeWriter, format::JsonFields},
    layer::SubscriberExt,
    reload,
};

pub use self::{
    filter::{Filter, FilterError},
    level::{FilterState, follow_signals, level, set_level},
};
use self::{format::Rationed, level::Control, queue::LogQueue};
use super::privileges;

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

/// How long the end of the process waits for somebody to read its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The process's log, as `tracing`'s subscriber is the process's.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    queue: LogQueue,
    lost: IntCounterVec,
    control: Control,
}

/// Why the process cannot log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It logs already.
    #[error("the process logs already")]
    Twice,
    /// Two metrics of one name.
    #[error("registering metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Collects what is logged from here on. [`start_writing`] or [`finish`] writes it to standard
/// error.
///
/// # Errors
///
/// When the process logs already.
pub fn init(format: LogFormat, verbosity: Verbosity) -> Result<(), LogError> {
    let lost = lost_lines()?;
    let queue = LogQueue::new(lost.with_label_values(&["unread"]));
    let terminal = io::stderr().is_terminal();
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Json => false,
        LogFormat::Text => true,
    };
    let writer = queue.clone();
    let writer = move || writer.clone();
    let filter = Filter::from(verbosity);
    let (targets, handle) = reload::Layer::new(filter.targets());
    let set = if text {
        set_global_default(text_lines(writer, targets, terminal, &lost))
    } else {
        set_global_default(json_lines(writer, targets, &lost))
    };
    set.map_err(|_| LogError::Twice)?;
    let control = Control::new(handle, filter);
    let log = Log {
        queue,
        lost,
        control,
    };
    LOG.set(log).map_err(|_| LogError::Twice)?;
    panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// Starts the thread that writes what is logged. It gives up all capabilities first.
///
/// # Errors
///
/// When the thread cannot be started.
pub fn start_writing() -> io::Result<()> {
    let Some(log) = LOG.get() else { return Ok(()) };
    log.queue.start(io::stderr(), || {
        if let Err(error) = privileges::keep(CapabilitySet::empty()) {
            tracing::error!(%error, "the log's thread cannot give up capabilities");
        }
    })
}

/// Registers how many lines were not written.
///
/// # Errors
///
/// When that is registered already.
pub fn register(registry: &Registry) -> prometheus::Result<()> {
    let lost = match LOG.get() {
        Some(log) => log.lost.clone(),
        None => lost_lines()?,
    };
    registry.register(Box::new(lost))
}

/// Says something that is not to be missed: in the log, whatever its level, or on standard error
/// where there is none.
pub fn say(words: &dyn Display) {
    let line = format!("podcreds: {words}\n");
    match LOG.get() {
        Some(log) => log.queue.push(line.as_bytes()),
        // Nothing can be done about a terminal that is gone.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Waits for the last lines to be written, for a second at most: a reader must not keep the
/// process from ending. Call it before the process ends.
pub fn finish() {
    let Some(log) = LOG.get() else { return };
    // Where even a thread cannot be had, the lines are lost.
    if log.queue.is_started() || start_writing().is_ok() {
        log.queue.finish(LAST_WORDS);
    }
}

/// [Finishes](finish) the log when it is dropped, also while the process panics.
pub struct LastWords;

impl Drop for LastWords {
    fn drop(&mut self) {
        finish();
    }
}

/// Writes a panic to the log, as the standard library writes it to standard error, where it would
/// wait for a reader.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let Some(log) = LOG.get() else { return };
    let thread = thread::current();
    let mut words = format!("thread '{}' {panic}\n", thread.name().unwrap_or("?"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        words.push_str(&format!("{backtrace}\n"));
    }
    log.queue.push(words.as_bytes());
}

fn lost_lines() -> prometheus::Result<IntCounterVec> {
    let lost = IntCounterVec::new(
        Opts::new(
            "podcreds_log_lines_lost_total",
            "Log lines that were not written: nobody has read the log in time, or they repeat \
             others.",
        ),
        &["reason"],
    )?;
    for reason in ["unread", "repeated"] {
        lost.with_label_values(&[reason]);
    }
    Ok(lost)
}

fn json_lines<W, F>(
    writer: W,
    filter: F,
    lost: &IntCounterVec,
) -> impl Subscriber + Send + Sync + use<W, F>
where
    F: Layer<Spans> + Send + Sync,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let format = fmt::format()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false);
    let lines = fmt::layer()
        .fmt_fields(JsonFields::new())
        .event_format(Rationed::new(format, lost.with_label_values(&["repeated"])))
        .with_writer(writer);
    tracing_subscriber::registry().with(filter).with(lines)
}

fn text_lines<W, F>(
    writer: W,
    filter: F,
    colours: bool,
    lost: &IntCounterVec,
) -> impl Subscriber + Send + Sync + use<W, F>
where
    F: Layer<Spans> + Send + Sync,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let format = fmt::format().with_ansi(colours);
    let lines = fmt::layer()
        .with_ansi(colours)
        .event_format(Rationed::new(format, lost.with_label_values(&["repeated"])))
        .with_writer(writer);
    tracing_subscriber::registry().with(filter).with(lines)
}

#[cfg(test)]
mod tests;
