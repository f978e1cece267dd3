//! A node that starts: many pods ask at once, and none of them shall have to ask for long.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;

use super::*;

/// An EKS Auth that bears so many calls a second, and as many at once. Says how many it has
/// throttled.
fn bears(calls_per_second: f64) -> (Fake, TestStore, Arc<Mutex<usize>>) {
    let (fake, store, clock) = generous(SOON);
    let throttled = Arc::<Mutex<usize>>::default();
    let (mut left, mut since) = (calls_per_second, Instant::now());
    let count = Arc::clone(&throttled);
    fake.now(move |token| {
        let won = since.elapsed().as_secs_f64() * calls_per_second;
        left = (left + won).min(calls_per_second);
        since = Instant::now();
        if left < 1.0 {
            *count.lock().unwrap() += 1;
            return Err(UpstreamError::Throttled { retry_after: None });
        }
        left -= 1.0;
        Ok(credentials(token, clock.now() + 6 * HOUR))
    });
    (fake, store, throttled)
}

/// How often each of so many pods asks, a second after it was told to come back.
async fn tries(store: &TestStore, pods: u16) -> Vec<usize> {
    let pods = (0..pods).map(|n| {
        let store = store.clone();
        async move {
            for tries in 1.. {
                if ask(&store, pod(n), &n.to_string()).await.is_ok() {
                    return tries;
                }
                sleep(Duration::from_secs(1)).await;
            }
            unreachable!()
        }
    });
    join_all(pods).await
}

#[tokio::test(start_paused = true)]
async fn no_pod_of_300_needs_a_third_try_and_no_call_is_throttled() {
    for calls_per_second in [100.0, 1000.0] {
        let (fake, store, throttled) = bears(calls_per_second);
        let tries = tries(&store, 300).await;
        let at_once = tries.iter().filter(|tries| **tries == 1).count();
        println!("upstream bears {calls_per_second}/s: {at_once} of 300 served at the first try");
        assert_eq!(tries.iter().max(), Some(&2), "{calls_per_second}");
        assert!(at_once >= 140, "{at_once}");
        assert_eq!(*throttled.lock().unwrap(), 0);
        assert_eq!(fake.calls().len(), 300);
    }
}

#[tokio::test(start_paused = true)]
async fn all_pods_of_an_ordinary_node_are_served_at_the_first_try() {
    let (_fake, store, _) = generous(SOON);
    assert!(tries(&store, 110).await.iter().all(|tries| *tries == 1));
}

#[tokio::test(start_paused = true)]
async fn a_smaller_quota_serves_all_pods_before_long() {
    let (fake, store, throttled) = bears(20.0);
    let started = Instant::now();
    tries(&store, 300).await;
    let took = started.elapsed().as_secs();
    let throttled = *throttled.lock().unwrap();
    println!("upstream bears 20/s: 300 pods after {took} s, {throttled} calls throttled");
    // It could not take less than 14 s.
    assert!(took < 28, "{took} s");
    assert!(
        throttled < 150,
        "{throttled} of {} calls",
        fake.calls().len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_is_not_asked_more_than_100_things_at_once() {
    let (fake, store, _) = generous(Duration::from_secs(5));
    let asking = (0..300).map(|n| store.fetch(pod(n), Token::new(n.to_string())));
    let (outcomes, most) = tokio::join!(join_all(asking), async {
        sleep(Duration::from_secs(3)).await;
        fake.in_air()
    });
    assert!(outcomes.iter().all(not_ready));
    assert_eq!(most, 100);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(fake.calls().len(), 300, "all the same, they are fetched");
    assert_eq!(store.metric("podcreds_limiter_calls_in_flight"), 0);
}

#[tokio::test(start_paused = true)]
async fn only_renewals_are_held_to_their_rate() {
    let config = config(|it| it.exchange.max_renewals_per_second = 1.0);
    let (fake, store, _) = with_config(SOON, config);
    for minutes in [0, 1] {
        sleep(MINUTE * minutes).await;
        assert!(tries(&store, 60).await.iter().all(|tries| *tries == 1));
    }
    assert_eq!(fake.calls().len(), 60);
    // All of them are due by then, while EKS Auth was away.
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    sleep(4 * HOUR).await;
    let clock = store.clock;
    fake.now(move |token| Ok(credentials(token, clock.now() + 6 * HOUR)));
    let mut most = 0;
    for _ in 0..16 * 60 {
        let before = fake.calls().len();
        sleep(Duration::from_secs(1)).await;
        most = most.max(fake.calls().len() - before);
    }
    assert!((1..=2).contains(&most), "{most} renewals in a second");
}

#[tokio::test(start_paused = true)]
async fn a_repaired_association_does_not_wait_for_a_backlog_of_refreshes() {
    let (fake, store, clock) = generous(SOON);
    for round in 0..2 {
        sleep(MINUTE * round).await;
        tries(&store, 300).await;
    }
    // None is renewed until all of them are due and wait for the limiter.
    fake.now(|_| {
        Err(UpstreamError::Unavailable {
            reason: "down".to_owned(),
            retry_after: Some(MINUTE),
        })
    });
    sleep(5 * HOUR).await;
    let backlog = || store.metric("podcreds_limiter_queue{urgency=\"refresh\"}");
    assert!(backlog() > 250, "{}", backlog());
    fake.now(move |token| match token {
        "late" => Err(refused()),
        _ => Ok(credentials(token, clock.now() + 6 * HOUR)),
    });
    // Until the pace is back after the outage, too.
    let pace = || store.metric("podcreds_limiter_calls_per_second");
    while not_ready(&ask(&store, pod(999), "late").await) || pace() < 50 {
        sleep(Duration::from_secs(1)).await;
    }
    // It is refused a second time, so that it counts as doubtful; then the association is made.
    sleep(Duration::from_secs(3)).await;
    assert!(was_refused(&ask(&store, pod(999), "late").await));
    fake.now(move |token| Ok(credentials(token, clock.now() + 6 * HOUR)));
    sleep(Duration::from_secs(6)).await;
    assert!(backlog() > 100, "the backlog is gone: {}", backlog());
    let asked = Instant::now();
    ask(&store, pod(999), "late").await.unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
}
