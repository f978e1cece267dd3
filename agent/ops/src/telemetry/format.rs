//! What a line looks like: as `tracing` writes it, and with the number of lines that were left out
//! before it.

use std::{fmt, time::Instant};

use prometheus::IntCounter;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Json, Writer},
    },
    registry::LookupSpan,
};

use super::repeats::Repeats;

/// Writes a line, or nothing where one like it has been written often enough.
pub(super) struct Rationed<F> {
    inner: F,
    repeats: Repeats,
    /// Lines that were left out.
    left_out: IntCounter,
}

/// A format in which a line has fields.
pub(super) trait Fields {
    /// Adds a field to a line that is complete but for its line break.
    fn add(line: &mut String, name: &str, value: u64);
}

impl Fields for Format<Json> {
    fn add(line: &mut String, name: &str, value: u64) {
        if line.ends_with('}') {
            line.pop();
            line.push_str(&format!(",\"{name}\":{value}}}"));
        }
    }
}

impl Fields for Format<Full> {
    fn add(line: &mut String, name: &str, value: u64) {
        line.push_str(&format!(" {name}={value}"));
    }
}

impl<F> Rationed<F> {
    pub(super) fn new(inner: F, left_out: IntCounter) -> Self {
        Self {
            inner,
            repeats: Repeats::default(),
            left_out,
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Rationed<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N> + Fields,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(left_out) = self.repeats.admit(event, Instant::now()) else {
            self.left_out.inc();
            return Ok(());
        };
        if left_out == 0 {
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner
            .format_event(context, Writer::new(&mut line), event)?;
        line.truncate(line.trim_end().len());
        F::add(&mut line, "left_out", left_out);
        writeln!(writer, "{line}")
    }
}
