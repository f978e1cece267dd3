//! The limiter as a whole, on tokio's paused clock.

use std::{future::poll_fn, pin::pin, task::Poll, time::UNIX_EPOCH};

use prometheus::Registry;
use tokio::time::sleep;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limiter() -> Limiter {
    with(Config::default())
}

fn with(config: Config) -> Limiter {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    Limiter::new(&config, &Handle::current(), metrics)
}

fn of(namespace: &str) -> Turn {
    Turn::Own(Party::Namespace(namespace.to_owned()))
}

fn ask(limiter: &Limiter) -> Pass {
    limiter.queue(&of("a"), Urgency::Asked)
}

fn refresh(limiter: &Limiter) -> Pass {
    limiter.queue(&of("a"), Urgency::Refresh(UNIX_EPOCH))
}

/// Passes, and has a call made that is answered at once.
async fn call(mut pass: Pass) {
    pass.granted().await.unwrap().start();
}

async fn has_passed(pass: &mut Pass) -> bool {
    let mut granted = pin!(pass.granted());
    poll_fn(|context| Poll::Ready(granted.as_mut().poll(context).is_ready())).await
}

#[tokio::test(start_paused = true)]
async fn first_calls_go_out_at_once_and_renewals_at_their_rate() {
    let limiter = limiter();
    let started = Instant::now();
    let renewals: Vec<_> = (0..33).map(|_| refresh(&limiter)).collect();
    for pass in (0..50).map(|_| ask(&limiter)).collect::<Vec<_>>() {
        call(pass).await;
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    for pass in renewals {
        call(pass).await;
    }
    let took = started.elapsed().as_secs_f64();
    assert!((9.9..10.1).contains(&took), "{took} s for 33 at 3 a second");
    call(ask(&limiter)).await;
    assert!(started.elapsed().as_secs_f64() < took + 0.001);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_renewals_wait_for_their_rate_goes_first() {
    let limiter = with(Config {
        max_renewals_per_second: 0.1,
        ..Config::default()
    });
    let renewals: Vec<_> = (0..3).map(|_| refresh(&limiter)).collect();
    sleep(SECOND).await;
    assert_eq!(limiter.shared.metrics.queue_refreshes.get(), 2);
    let started = Instant::now();
    call(ask(&limiter)).await;
    call(limiter.queue(&of("a"), Urgency::Doubtful)).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    drop(renewals);
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_are_in_flight_than_there_may_be() {
    let limiter = limiter();
    let mut permits = Vec::new();
    for mut pass in (0..IN_FLIGHT).map(|_| ask(&limiter)).collect::<Vec<_>>() {
        let mut permit = pass.granted().await.unwrap();
        permit.start();
        permits.push(permit);
    }
    let mut one_more = ask(&limiter);
    sleep(60 * SECOND).await;
    assert!(!has_passed(&mut one_more).await);
    let standing = limiter.standing(one_more.place()).unwrap();
    assert_eq!(standing.in_flight, IN_FLIGHT);
    assert_eq!((standing.ahead, standing.waiting), (Some(0), 1));
    permits.pop();
    call(one_more).await;
    drop(permits);
    assert_eq!(limiter.shared.metrics.limiter_in_flight.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_costs_nothing() {
    let limiter = with(Config {
        max_renewals_per_second: 0.1,
        ..Config::default()
    });
    call(refresh(&limiter)).await;
    drop(refresh(&limiter));
    let stays = refresh(&limiter);
    let started = Instant::now();
    call(stays).await;
    assert!(started.elapsed() < 11 * SECOND, "{:?}", started.elapsed());
    assert_eq!(limiter.shared.metrics.queue_refreshes.get(), 0);
}

/// A task is ended between the grant and the call, or turns out not to need the call.
#[tokio::test(start_paused = true)]
async fn a_permit_that_is_not_used_goes_to_the_next() {
    for takes_it in [false, true] {
        let limiter = with(Config {
            max_renewals_per_second: 0.1,
            ..Config::default()
        });
        let mut granted = refresh(&limiter);
        let mut next = refresh(&limiter);
        sleep(SECOND).await;
        assert!(!has_passed(&mut next).await);
        if takes_it {
            drop(granted.granted().await.unwrap());
        } else {
            drop(granted);
        }
        let started = Instant::now();
        call(next).await;
        assert_eq!(started.elapsed(), Duration::ZERO, "{takes_it}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_wait_while_upstream_asks_to_be_left_alone() {
    let limiter = limiter();
    limiter.throttled(Instant::now());
    limiter.blocked(20 * SECOND);
    let mut pass = ask(&limiter);
    sleep(19 * SECOND).await;
    assert!(!has_passed(&mut pass).await);
    let standing = limiter.standing(pass.place()).unwrap();
    assert_eq!(standing.block, Some(SECOND));
    sleep(2 * SECOND).await;
    assert!(has_passed(&mut pass).await);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_drops_those_who_left() {
    let limiter = limiter();
    limiter.blocked(60 * SECOND);
    drop(ask(&limiter));
    let _stays = refresh(&limiter);
    limiter.sweep();
    assert_eq!(limiter.shared.metrics.queue_asked.get(), 0);
    assert_eq!(limiter.shared.metrics.queue_refreshes.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_waits_for_no_backlog_of_refreshes() {
    let limiter = limiter();
    let backlog: Vec<_> = (0..500).map(|_| refresh(&limiter)).collect();
    sleep(SECOND).await;
    let started = Instant::now();
    call(limiter.queue(&of("b"), Urgency::Doubtful)).await;
    assert!(started.elapsed() < SECOND / 10, "{:?}", started.elapsed());
    drop(backlog);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_a_place_in_a_queue_that_is_long() {
    let limiter = limiter();
    limiter.blocked(60 * SECOND);
    let crowd: Vec<_> = (0..=LONG).map(|_| ask(&limiter)).collect();
    let last = crowd[LONG].place();
    let standing = limiter.standing(last).unwrap();
    assert_eq!((standing.ahead, standing.waiting), (None, LONG + 1));
    drop(crowd);
    limiter.sweep();
    assert_eq!(limiter.standing(last), None);
}
