//! What was measured, in one form for all scenarios.

use serde::Serialize;

/// What one agent, or nginx, did in one case of a scenario.
#[derive(Serialize)]
pub(crate) struct Outcome {
    /// What was varied, such as `110 pods`.
    pub(crate) case: String,
    /// Which program it was.
    pub(crate) server: String,
    pub(crate) numbers: Vec<Number>,
    pub(crate) lines: Vec<Line>,
}

/// One number, with its unit: `us`, `ms`, `s`, `MB`, or nothing for a count.
#[derive(Serialize)]
pub(crate) struct Number {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// The quartiles of the rounds of which `value` is the median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quartiles: Option<(f64, f64)>,
}

/// A line for the plot of this title, with what its axes count.
#[derive(Serialize)]
pub(crate) struct Line {
    pub(crate) plot: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Outcome {
    pub(crate) fn new(case: impl Into<String>, server: impl Into<String>) -> Self {
        Self {
            case: case.into(),
            server: server.into(),
            numbers: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Adds a number.
    pub(crate) fn with(mut self, name: &'static str, value: f64, unit: &'static str) -> Self {
        self.numbers.push(Number {
            name,
            value,
            unit,
            quartiles: None,
        });
        self
    }

    /// Adds the median of the rounds, and how far they lie apart.
    pub(crate) fn with_rounds(
        mut self,
        name: &'static str,
        rounds: impl IntoIterator<Item = f64>,
        unit: &'static str,
    ) -> Self {
        let mut sorted: Vec<_> = rounds.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |part: usize| sorted.get(sorted.len() * part / 4).copied();
        self.numbers.push(Number {
            name,
            value: at(2).unwrap_or(f64::NAN),
            unit,
            quartiles: at(1).zip(at(3)),
        });
        self
    }

    /// Adds a line to a plot.
    pub(crate) fn with_line(mut self, line: Line) -> Self {
        self.lines.push(line);
        self
    }

    /// As a row of a table.
    pub(crate) fn row(&self) -> Vec<String> {
        let numbers = self.numbers.iter().map(Number::text);
        [self.case.clone(), self.server.clone()]
            .into_iter()
            .chain(numbers)
            .collect()
    }
}

impl Number {
    fn text(&self) -> String {
        let digits = match self.unit {
            "" if self.value.fract() == 0.0 => 0,
            "" => 2,
            "us" | "MB" => 1,
            "ms" if self.value >= 100.0 => 0,
            _ => 2,
        };
        let value = format!("{:.digits$} {}", self.value, self.unit);
        let value = value.trim_end().to_owned();
        match self.quartiles {
            Some((low, high)) => format!("{value} ({low:.digits$} to {high:.digits$})"),
            None => value,
        }
    }
}
