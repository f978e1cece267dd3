//! What came of a day.

use podcreds_report::{Figure, Page, Series, table};
use serde::Serialize;

use crate::day::{DayOptions, DayOutcome, Tally};

/// The share of the other rule's calls that there may be.
const MOST: f64 = 0.5;

/// What the pods of one kind cost.
#[derive(Clone, Debug, Serialize)]
pub struct DayRow {
    /// Which pods, or all of them.
    pub kind: &'static str,
    /// How many there were.
    pub pods: usize,
    /// How long they lived, in days.
    pub pod_days: f64,
    /// How often they asked.
    pub asked: usize,
    /// Calls to EKS Auth.
    pub calls: usize,
    /// What AWS's agent would have called.
    pub by_other_rule: usize,
}

/// What came of all of it.
#[derive(Clone, Debug, Serialize)]
pub struct DayReport {
    /// The command's settings, in words.
    pub node: String,
    /// What dice were thrown.
    pub seed: u64,
    /// Calls for pods that were gone.
    pub calls_for_the_gone: usize,
    /// One for each kind, and one for all.
    pub kinds: Vec<DayRow>,
}

impl DayRow {
    fn new(kind: &'static str, tally: &Tally) -> Self {
        Self {
            kind,
            pods: tally.pods,
            pod_days: tally.pod_days,
            asked: tally.asked,
            calls: tally.calls,
            by_other_rule: tally.by_other_rule,
        }
    }

    /// Calls as a share of what the other rule makes.
    pub fn share(&self) -> f64 {
        self.calls as f64 / self.by_other_rule as f64
    }
}

impl DayReport {
    /// Looks at what came of it.
    pub fn new(options: &DayOptions, outcome: &DayOutcome) -> Self {
        let mut all = Tally::default();
        for tally in outcome.kinds.values() {
            all.pods += tally.pods;
            all.pod_days += tally.pod_days;
            all.asked += tally.asked;
            all.calls += tally.calls;
            all.by_other_rule += tally.by_other_rule;
        }
        let kinds = outcome
            .kinds
            .iter()
            .map(|(kind, tally)| DayRow::new(kind, tally));
        Self {
            node: format!(
                "A node of {} pods over {} hours, after a day to find its rhythm",
                options.pods, options.hours
            ),
            seed: options.seed,
            calls_for_the_gone: outcome.calls_for_the_gone,
            kinds: kinds.chain([DayRow::new("all", &all)]).collect(),
        }
    }

    /// What is worse than it is to be.
    pub fn complaints(&self) -> Vec<String> {
        let all = self.kinds.last();
        let share = all
            .map(DayRow::share)
            .filter(|share| share.is_nan() || *share > MOST);
        let many = share.map(|share| format!("{share:.2} of the calls by the other rule"));
        let gone = self.calls_for_the_gone;
        let gone = (gone > 0).then(|| format!("{gone} calls for pods that were gone"));
        many.into_iter().chain(gone).collect()
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let titles = [
            "PODS",
            "THERE WERE",
            "POD-DAYS",
            "ASKED",
            "CALLS",
            "PER POD-DAY",
            "BY THE OTHER RULE",
            "SHARE",
        ];
        let rows = self.kinds.iter().map(|row| {
            let per_day = |calls: usize| calls as f64 / row.pod_days;
            vec![
                row.kind.to_owned(),
                row.pods.to_string(),
                format!("{:.1}", row.pod_days),
                row.asked.to_string(),
                row.calls.to_string(),
                format!("{:.1}", per_day(row.calls)),
                format!("{:.1}", per_day(row.by_other_rule)),
                format!("{:.2}", row.share()),
            ]
        });
        table::layout(&titles, &rows.collect::<Vec<_>>(), &[1, 2, 3, 4, 5, 6, 7])
    }

    /// For a browser: the calls of each hour.
    pub fn page(&self, outcome: &DayOutcome) -> String {
        let points = |hours: &[u32]| {
            let hours = hours.iter().enumerate();
            hours
                .map(|(hour, calls)| (hour as f64, f64::from(*calls)))
                .collect()
        };
        let figure = Figure::new("Calls to EKS Auth", "hours", "calls an hour")
            .with(Series::new("podcreds", points(&outcome.hours)))
            .with(Series::new(
                "renewed every three hours until the token expires",
                points(&outcome.hours_by_other_rule),
            ));
        let page = Page::new("A node's day", &self.node);
        page.table(&self.table()).figure(figure).html()
    }
}
