//! Where a request spends its time, and what became of it.

use std::hint::black_box;

use http::StatusCode;

use super::*;
use crate::{
    metrics::RequestOutcome,
    road::{Road, Roads, Stage},
};

const STAGES: &str = "podcreds_request_stage_duration_seconds";
const WHOLE: &str = "podcreds_connect_to_response_duration_seconds";
const ANSWERS: &str = "podcreds_request_duration_seconds";

impl Fixture {
    /// The seconds in a histogram's series with this label, or in all of them.
    fn seconds(&self, name: &str, label: Option<&str>) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let fits = |series: &&Metric| {
            let mut labels = series.get_label().iter();
            label.is_none_or(|label| labels.any(|pair| pair.value() == label))
        };
        let series = family.unwrap().get_metric().iter().filter(fits);
        series.map(|it| it.get_histogram().get_sample_sum()).sum()
    }

    fn outcomes(&self) -> [u64; 4] {
        let count = |outcome| self.metric("podcreds_requests_total", Some(outcome));
        ["served", "late", "failed", "client_fault"].map(count)
    }
}

/// The same up to a hundredth.
fn assert_same(left: f64, right: f64) {
    assert!((left - right).abs() < 0.01 * right, "{left} {right}");
}

#[tokio::test(start_paused = true)]
async fn the_stages_of_first_requests_add_up_to_the_whole() {
    let fixture = Fixture::new(Config::default());
    for token in [
        "good",
        "good",
        "unassociated",
        "malformed",
        "stolen",
        "slow",
    ] {
        fixture.connect().ask(get(token)).await;
    }
    assert_same(fixture.seconds(STAGES, None), fixture.seconds(WHOLE, None));
    // Most did not come so far, or have no need to.
    for (stage, requests) in [
        ("kernel", 6),
        ("read", 6),
        ("identify", 6),
        ("exchange", 3),
        ("write", 6),
    ] {
        assert_eq!(fixture.metric(STAGES, Some(stage)), requests, "{stage}");
    }
    for (code, requests) in [("200", 2), ("503", 1), ("404", 1), ("400", 1), ("403", 1)] {
        assert_eq!(fixture.metric(WHOLE, Some(code)), requests, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_stages_of_later_requests_add_up_to_what_they_take() {
    let fixture = Fixture::new(Config::default());
    let mut client = fixture.connect();
    for _ in 0..10 {
        client.ask(get("good")).await;
    }
    let beside = ["kernel", "write"].map(|stage| fixture.seconds(STAGES, Some(stage)));
    let whole = fixture.seconds(ANSWERS, None) + beside.iter().sum::<f64>();
    assert_same(fixture.seconds(STAGES, None), whole);
    assert_eq!(fixture.metric(STAGES, Some("kernel")), 1);
    assert_eq!(fixture.metric(STAGES, Some("write")), 10);
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_once_by_what_became_of_it() {
    for (token, outcomes) in [
        ("good", [1, 0, 0, 0]),
        ("slow", [0, 0, 1, 0]),
        ("unassociated", [0, 0, 0, 1]),
        ("denied", [0, 0, 0, 1]),
        ("rejected", [0, 0, 0, 1]),
        ("malformed", [0, 0, 0, 1]),
        ("stolen", [0, 0, 0, 1]),
        ("detour", [0, 0, 0, 1]),
        ("undecided", [0, 0, 1, 0]),
    ] {
        let fixture = Fixture::new(Config::default());
        fixture.connect().ask(get(token)).await;
        assert_eq!(fixture.outcomes(), outcomes, "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_come_a_second_after_the_connect_are_late() {
    let fixture = Fixture::new(Config::default());
    for (waited, outcomes) in [(900, [1, 0, 0, 0]), (1001, [1, 1, 0, 0])] {
        let waited = Duration::from_millis(waited);
        fixture.connect_since(waited).ask(get("good")).await;
        assert_eq!(fixture.outcomes(), outcomes, "{waited:?}");
    }
}

/// `cargo test --release -p podcreds-server what_following -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement, which says something in a release build only"]
async fn what_following_a_request_by_stage_costs() {
    const REQUESTS: u32 = 1_000_000;
    let roads = Roads::register(&Registry::new()).unwrap();
    let now = Instant::now();
    let times = Times {
        accepted: now,
        connected: Some(now),
    };
    let started = Instant::now();
    for _ in 0..REQUESTS {
        let mut road = Road::of_first(black_box(times));
        road.enter(Stage::Cache);
        road.enter(Stage::Write);
        black_box(RequestOutcome::of_served(&road));
        roads.ended(road, StatusCode::OK);
    }
    println!("{:?} for a request", started.elapsed() / REQUESTS);
}
