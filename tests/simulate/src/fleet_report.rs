//! What came of a fleet.

use std::time::Duration;

use podcreds_report::{Figure, Page, Series, table};
use serde::Serialize;

use crate::{
    MINUTE,
    eks_auth::{Condition, Second},
    fleet::{FleetOptions, FleetOutcome, Phase, Wait},
};

/// How much longer the last pod may wait after an outage than the quota alone makes it.
const LONGEST: f64 = 1.3;
/// For how many seconds EKS Auth may see more than twice its quota after an outage.
const CROWDED: usize = 10;

/// What came of one phase.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// What happened.
    pub phase: &'static str,
    /// Whether EKS Auth answered nothing meanwhile: there are aims for what comes after that.
    pub is_outage: bool,
    /// Pods that had to wait.
    pub waited: usize,
    /// From the end of the trouble (of a roll-out: its beginning) until the last of them was
    /// served, in seconds.
    pub last_served: f64,
    /// The same for the last of the first 95 % of them.
    pub most_served: f64,
    /// The same as for the last if nothing but the quota had made them wait.
    pub by_quota_alone: f64,
    /// From then on: the longest time without a break with more calls than twice the quota, in the
    /// mean of five seconds, in seconds.
    pub crowded_seconds: usize,
    /// The most calls in one of these seconds.
    pub most_calls: u32,
    /// The share of calls that were over the quota, while somebody waited.
    pub throttled: f64,
    /// The most calls a second in a minute after all that, as a share of the quota.
    pub later_peak: f64,
}

/// What came of all of it.
#[derive(Debug, Serialize)]
pub struct FleetReport {
    /// The command's settings, in words.
    pub fleet: String,
    /// What dice were thrown.
    pub seed: u64,
    /// One for each phase.
    pub phases: Vec<Account>,
}

impl Account {
    /// How many times longer the last pod waited than the quota alone would have made it.
    pub fn times_quota(&self) -> f64 {
        self.last_served / self.by_quota_alone
    }

    /// What is worse than it is to be.
    pub fn complaints(&self) -> Vec<String> {
        let name = self.phase;
        let slow = (self.is_outage && self.times_quota() > LONGEST).then(|| {
            let times = self.times_quota();
            format!("{name}: the last pod waits {times:.2} times as long as the quota makes it")
        });
        let crowded = (self.is_outage && self.crowded_seconds > CROWDED).then(|| {
            let seconds = self.crowded_seconds;
            format!("{name}: more calls than twice the quota for {seconds} s")
        });
        let wave = (self.later_peak > 1.0).then(|| {
            let peak = self.later_peak;
            format!("{name}: later a wave of {peak:.2} times the quota")
        });
        [slow, crowded, wave].into_iter().flatten().collect()
    }
}

impl FleetReport {
    /// Looks at what came of it.
    pub fn new(options: &FleetOptions, outcome: &FleetOutcome) -> Self {
        let phases = options.phases();
        let ends = phases.iter().skip(1).map(|phase| phase.from);
        let ends = ends.chain([options.until]);
        let ideal = by_quota_alone(options, &outcome.waits);
        let accounts = phases.iter().zip(ends);
        Self {
            fleet: format!(
                "{} nodes of {} pods, {} calls a second for all of them",
                options.nodes, options.pods, options.quota
            ),
            seed: options.seed,
            phases: accounts
                .map(|(phase, end)| account(options, outcome, &ideal, phase, end))
                .collect(),
        }
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let titles = [
            "PHASE",
            "PODS THAT WAIT",
            "95 % SERVED",
            "LAST SERVED",
            "BY QUOTA ALONE",
            "TIMES",
            "CROWDED",
            "MOST CALLS/S",
            "THROTTLED",
            "LATER PEAK",
        ];
        let rows = self.phases.iter().map(|it| {
            vec![
                it.phase.to_owned(),
                it.waited.to_string(),
                format!("{:.0} s", it.most_served),
                format!("{:.0} s", it.last_served),
                format!("{:.0} s", it.by_quota_alone),
                format!("{:.2}", it.times_quota()),
                format!("{} s", it.crowded_seconds),
                it.most_calls.to_string(),
                format!("{:.0} %", it.throttled * 100.0),
                format!("{:.2}", it.later_peak),
            ]
        });
        table::layout(
            &titles,
            &rows.collect::<Vec<_>>(),
            &[1, 2, 3, 4, 5, 6, 7, 8, 9],
        )
    }

    /// For a browser: the calls of each ten seconds, and the pods that wait.
    pub fn page(&self, options: &FleetOptions, outcome: &FleetOutcome) -> String {
        let hours = |second: usize| second as f64 / 3600.0;
        let calls = |name: &str, pick: fn(&Second) -> u32| {
            let points = outcome.seconds.chunks(10).enumerate();
            let points = points.map(|(at, ten)| {
                let sum: u32 = ten.iter().map(pick).sum();
                (hours(at * 10), f64::from(sum) / ten.len() as f64)
            });
            Series::new(name, points.collect())
        };
        let waiting = waiting(outcome);
        let waiting = waiting.iter().enumerate().step_by(10);
        let waiting = waiting
            .map(|(at, pods)| (hours(at), *pods as f64))
            .collect();
        let calls = Figure::new("Calls to EKS Auth", "hours", "calls a second")
            .with(calls("all calls", |second| second.calls))
            .with(calls("served", |second| second.served))
            .up_to(options.quota * 3.0)
            .line("the quota", options.quota)
            .line("twice the quota", options.quota * 2.0);
        let pods =
            Figure::new("Pods that wait", "hours", "pods").with(Series::new("waiting", waiting));
        let phases = options.phases();
        let marked = [calls, pods].map(|figure| {
            phases.iter().fold(figure, |figure, phase| {
                let hours = |at: Duration| at.as_secs_f64() / 3600.0;
                figure.mark(phase.name, hours(phase.from), hours(phase.to))
            })
        });
        let page = Page::new("A fleet against one quota", &self.fleet);
        let page = page.table(&self.table());
        marked.into_iter().fold(page, Page::figure).html()
    }
}

fn account(
    options: &FleetOptions,
    outcome: &FleetOutcome,
    ideal: &[Duration],
    phase: &Phase,
    end: Duration,
) -> Account {
    // A roll-out is served while it lasts.
    let relief = match phase.quota_left() < 1.0 {
        true => phase.to,
        false => phase.from,
    };
    let waits = outcome.waits.iter().zip(ideal);
    let of_phase = |wait: &Wait| (phase.from..phase.to).contains(&wait.asked);
    let waits: Vec<_> = waits.filter(|(wait, _)| of_phase(wait)).collect();
    let since = |at: Duration| at.saturating_sub(relief).as_secs_f64();
    let mut served: Vec<_> = waits.iter().map(|(wait, _)| wait.until).collect();
    served.sort_unstable();
    let last = served.last().copied().unwrap_or_default();
    let most = served.get(served.len() * 95 / 100).copied();
    let alone = waits.iter().map(|(_, ideal)| **ideal).max();
    let between = |from: Duration, to: Duration| {
        let all = &outcome.seconds;
        let at = |at: Duration| (at.as_secs() as usize).min(all.len());
        &all[at(from)..at(to).max(at(from))]
    };
    let after = between(relief, end);
    let busy = between(relief, last);
    let sum = |pick: fn(&Second) -> u32| busy.iter().map(pick).map(f64::from).sum::<f64>();
    let calm = between(last.max(relief) + MINUTE * 10, end);
    let minutes = calm.chunks(60).map(|minute| {
        let calls: u32 = minute.iter().map(|second| second.calls).sum();
        f64::from(calls) / minute.len() as f64 / options.quota
    });
    Account {
        phase: phase.name,
        is_outage: phase.condition == Condition::Down,
        waited: waits.len(),
        most_served: since(most.unwrap_or_default()),
        last_served: since(last),
        by_quota_alone: since(alone.unwrap_or_default()),
        crowded_seconds: longest_crowd(after, options.quota * 2.0),
        most_calls: after
            .iter()
            .map(|second| second.calls)
            .max()
            .unwrap_or_default(),
        throttled: sum(|second| second.throttled) / sum(|second| second.calls).max(1.0),
        later_peak: minutes.fold(0.0, f64::max),
    }
}

/// For how many seconds on end there were more calls than that, in the mean of five seconds.
fn longest_crowd(seconds: &[Second], most: f64) -> usize {
    const MEAN: usize = 5;
    let is_crowded = |window: &[Second]| {
        let calls: u32 = window.iter().map(|second| second.calls).sum();
        f64::from(calls) > most * MEAN as f64
    };
    let crowded: Vec<_> = seconds.windows(MEAN).map(is_crowded).collect();
    let stretches = crowded.split(|is_crowded| !is_crowded).map(<[bool]>::len);
    stretches.max().unwrap_or_default()
}

/// When each pod would be served if they only waited for the quota, first come, first served.
fn by_quota_alone(options: &FleetOptions, waits: &[Wait]) -> Vec<Duration> {
    let phases = options.phases();
    let quota_at = |at: Duration| {
        let phase = phases.iter().find(|it| (it.from..it.to).contains(&at));
        options.quota * phase.map_or(1.0, Phase::quota_left)
    };
    let mut order: Vec<_> = (0..waits.len()).collect();
    order.sort_by_key(|at| waits[*at].asked);
    let mut served = vec![Duration::ZERO; waits.len()];
    let (mut now, mut left) = (Duration::ZERO, 0.0);
    let tick = Duration::from_millis(100);
    for at in order {
        if waits[at].asked > now {
            (now, left) = (waits[at].asked, 0.0);
        }
        while left < 1.0 {
            left += quota_at(now) * tick.as_secs_f64();
            now += tick;
        }
        left -= 1.0;
        served[at] = now;
    }
    served
}

/// How many pods wait in each second.
fn waiting(outcome: &FleetOutcome) -> Vec<i64> {
    let mut change = vec![0; outcome.seconds.len() + 2];
    let last = change.len() - 1;
    for wait in &outcome.waits {
        change[(wait.asked.as_secs() as usize).min(last)] += 1;
        change[(wait.until.as_secs() as usize).min(last)] -= 1;
    }
    let mut waiting = 0;
    let sum = change.into_iter().map(|by: i64| {
        waiting += by;
        waiting
    });
    sum.collect()
}
