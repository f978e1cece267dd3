//! The limiter as a whole, at times that the tests make up.

use std::time::UNIX_EPOCH;

use podcreds_types::Token;
use prometheus::Registry;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A limiter, and what time it is.
struct Fixture {
    limiter: Limiter,
    now: Instant,
}

fn fixture() -> Fixture {
    with(Config::default())
}

fn with(config: Config) -> Fixture {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let now = Instant::now();
    Fixture {
        limiter: Limiter::new(&config, metrics, now),
        now,
    }
}

impl Fixture {
    fn join(&mut self, namespace: &str, urgency: Urgency) -> QueueSlot {
        let share = CallShare::Own(Party::Namespace(namespace.to_owned()));
        let subject = Subject::Token(Token::new("x").digest());
        self.limiter.join(&share, urgency, subject)
    }

    fn ask(&mut self) -> QueueSlot {
        self.join("a", Urgency::Asked)
    }

    fn renew(&mut self) -> QueueSlot {
        self.join("a", Urgency::Renewal(UNIX_EPOCH))
    }

    /// The call that goes out now, if there is one.
    fn step(&mut self) -> Option<QueueSlot> {
        match self.limiter.step(self.now) {
            LimiterStep::Go(slot, _) => Some(slot),
            LimiterStep::At(_) | LimiterStep::Idle => None,
        }
    }

    /// Has all calls answered at once until this one has gone out. The time that this takes.
    fn until(&mut self, slot: QueueSlot) -> Duration {
        let started = self.now;
        loop {
            match self.limiter.step(self.now) {
                LimiterStep::Go(gone, _) => {
                    self.limiter.done();
                    if gone == slot {
                        return self.now - started;
                    }
                }
                LimiterStep::At(when) => {
                    assert!(when - started < 600 * SECOND, "it never goes out");
                    self.now = when;
                }
                LimiterStep::Idle => panic!("it is not in the queue"),
            }
        }
    }
}

#[test]
fn first_fetches_go_out_at_once_and_renewals_at_their_rate() {
    let mut it = fixture();
    let renewals: Vec<_> = (0..33).map(|_| it.renew()).collect();
    let asked: Vec<_> = (0..50).map(|_| it.ask()).collect();
    assert_eq!(it.until(asked[49]), Duration::ZERO);
    let took = it.until(renewals[32]).as_secs_f64();
    assert!((9.9..10.1).contains(&took), "{took} s for 33 at 3 a second");
    let one_more = it.ask();
    assert_eq!(it.until(one_more), Duration::ZERO);
}

#[test]
fn a_first_fetch_does_not_wait_for_renewals_that_wait_for_their_rate() {
    let mut it = with(Config {
        max_renewals_per_second: 0.1,
        ..Config::default()
    });
    let first = it.renew();
    it.renew();
    it.renew();
    it.until(first);
    assert_eq!(it.limiter.metrics.queue_renewals.get(), 2);
    for urgency in [Urgency::Asked, Urgency::Doubtful] {
        let slot = it.join("a", urgency);
        assert_eq!(it.until(slot), Duration::ZERO);
    }
}

#[test]
fn no_more_calls_are_in_flight_than_there_may_be() {
    let mut it = fixture();
    for _ in 0..IN_FLIGHT {
        it.ask();
    }
    let mut gone = 0;
    for _ in 0..10 {
        while it.step().is_some() {
            gone += 1;
        }
        it.now += SECOND;
    }
    assert_eq!(gone, IN_FLIGHT);
    let one_more = it.ask();
    it.now += 60 * SECOND;
    assert_eq!(it.step(), None);
    let standing = it.limiter.standing(one_more, it.now).unwrap();
    assert_eq!(standing.in_flight, IN_FLIGHT);
    assert_eq!((standing.ahead, standing.waiting), (Some(0), 1));
    it.limiter.done();
    assert_eq!(it.step(), Some(one_more));
    (0..IN_FLIGHT).for_each(|_| it.limiter.done());
    assert_eq!(it.limiter.metrics.limiter_in_flight.get(), 0);
}

#[test]
fn a_call_that_leaves_the_queue_costs_nothing() {
    let mut it = with(Config {
        max_renewals_per_second: 0.1,
        ..Config::default()
    });
    let first = it.renew();
    it.until(first);
    let leaves = it.renew();
    it.limiter.leave(leaves);
    let stays = it.renew();
    let took = it.until(stays);
    assert!(took < 11 * SECOND, "{took:?}");
    assert_eq!(it.limiter.metrics.queue_renewals.get(), 0);
}

#[test]
fn a_call_that_is_not_needed_leaves_its_share_to_the_next() {
    let mut it = with(Config {
        max_renewals_per_second: 0.1,
        ..Config::default()
    });
    it.renew();
    let next = it.renew();
    let slot = it.step().unwrap();
    assert_eq!(it.step(), None);
    it.limiter.refund(slot.kind());
    assert_eq!(it.until(next), Duration::ZERO);
}

#[test]
fn all_calls_wait_while_eks_auth_asks_to_be_left_alone() {
    let mut it = fixture();
    it.now = Instant::now();
    it.limiter.throttled(it.now);
    it.limiter.blocked(20 * SECOND);
    let slot = it.ask();
    it.now += 19 * SECOND;
    assert_eq!(it.step(), None);
    let standing = it.limiter.standing(slot, it.now).unwrap();
    let left = standing.block.unwrap();
    assert!(left > SECOND / 2 && left < 3 * SECOND / 2, "{left:?}");
    it.now += 2 * SECOND;
    assert_eq!(it.step(), Some(slot));
}

#[test]
fn a_refused_token_waits_for_no_backlog_of_renewals() {
    let mut it = fixture();
    for _ in 0..500 {
        it.renew();
    }
    while it.step().is_some() {
        it.limiter.done();
    }
    let slot = it.join("b", Urgency::Doubtful);
    let took = it.until(slot);
    assert!(took < SECOND / 10, "{took:?}");
}

#[test]
fn a_place_in_a_long_queue_is_not_told() {
    let mut it = fixture();
    it.limiter.blocked(60 * SECOND);
    let slots: Vec<_> = (0..LONG).map(|_| it.ask()).collect();
    let ahead = |it: &Fixture| it.limiter.standing(slots[LONG - 1], it.now).unwrap().ahead;
    assert_eq!(ahead(&it), Some(LONG - 1));
    it.ask();
    assert_eq!(ahead(&it), None);
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_a_call_counts_from_when_it_first_joined() {
    let mut it = fixture();
    let slot = it.renew();
    tokio::time::advance(3 * SECOND).await;
    let share = CallShare::Own(Party::Namespace("a".to_owned()));
    let subject = Subject::Token(Token::new("x").digest());
    let slot = it.limiter.move_up(slot, &share, Urgency::Asked, subject);
    tokio::time::advance(2 * SECOND).await;
    it.now = Instant::now();
    assert_eq!(it.step(), Some(slot));
    let [asked, renewals, _] = &it.limiter.metrics.waits;
    assert_eq!(asked.get_sample_sum(), 5.0);
    assert_eq!(renewals.get_sample_count(), 0);
}
