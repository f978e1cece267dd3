//! What is handed out when, and what is refreshed when.

use super::*;

/// Credentials that live an hour short of a minute, as those of a target role do.
const SHORT: Duration = Duration::from_secs(59 * 60);

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_never_served_and_stale_ones_only_in_need() {
    let (fake, store, _) = generous(SOON);
    let token = Token::new("a");
    store.fetch(pod(1), token.clone()).await.unwrap();
    sleep(6 * HOUR - 16 * MINUTE).await;
    assert!(store.cached(&pod(1), &token.digest()).is_some());
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    sleep(2 * MINUTE).await;
    assert!(store.cached(&pod(1), &token.digest()).is_none(), "stale");
    let started = Instant::now();
    assert!(store.fetch(pod(1), token.clone()).await.is_ok());
    assert!(store.fetch(pod(1), token.clone()).await.is_ok());
    assert!(started.elapsed() < 2 * SOON, "they wait for an outage");
    sleep(14 * MINUTE).await;
    assert!(not_ready(&store.fetch(pod(1), token).await), "expired");
}

#[tokio::test(start_paused = true)]
async fn stale_credentials_are_replaced_before_they_are_handed_out() {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    sleep(6 * HOUR - 14 * MINUTE).await;
    fake.now(move |_| Ok(credentials("newer", clock.now() + 6 * HOUR)));
    assert!(is_for(&ask(&store, pod(1), "a").await.unwrap(), "newer"));
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_delays_who_has_something_that_will_do_by_300_ms_only() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    sleep(6 * HOUR - 14 * MINUTE).await;
    fake.slow(Duration::from_secs(3));
    let started = Instant::now();
    assert!(ask(&store, pod(1), "a").await.is_ok());
    assert_eq!(started.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_keeps_asking_is_refreshed_ahead_and_never_waits() {
    let (fake, store, clock) = generous(SOON);
    fake.now(move |token| Ok(credentials(token, clock.now() + SHORT)));
    ask(&store, pod(1), "a").await.unwrap();
    for _ in 0..24 * 60 {
        sleep(MINUTE).await;
        let body = store.cached(&pod(1), &Token::new("a").digest());
        assert!(body.is_some(), "a refresh came too late");
    }
    // 33 to 40 minutes apart.
    assert!(
        (36..=44).contains(&fake.calls().len()),
        "{}",
        fake.calls().len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_not_asked_is_not_refreshed() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    sleep(MINUTE / 2).await;
    ask(&store, pod(1), "a").await.unwrap();
    sleep(5 * HOUR).await;
    assert_eq!(fake.calls().len(), 1, "its start does not count");
    ask(&store, pod(1), "a").await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(fake.calls().len(), 2, "it asks again, past the retention");
    sleep(24 * HOUR).await;
    assert_eq!(fake.calls().len(), 2, "and then never");
    assert_eq!(store.0.metrics.entries.get(), 0, "expired");
    assert_eq!(store.0.metrics.bytes.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_pod_is_not_refreshed() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    sleep(HOUR).await;
    ask(&store, pod(1), "a").await.unwrap();
    store.forget(uid(1));
    sleep(24 * HOUR).await;
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refreshes_that_fail_back_off_and_recover_by_themselves() {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    let digest = Token::new("a").digest();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    for _ in 0..5 * 60 {
        sleep(MINUTE).await;
        assert!(store.cached(&pod(1), &digest).is_some(), "still valid");
    }
    let tried = fake.calls().len();
    assert!((25..90).contains(&tried), "{tried} in two hours");
    fake.now(move |_| Ok(credentials("newer", clock.now() + 6 * HOUR)));
    sleep(6 * MINUTE).await;
    assert!(is_for(&store.cached(&pod(1), &digest).unwrap(), "newer"));
}

#[tokio::test(start_paused = true)]
async fn pods_that_start_together_are_refreshed_apart() {
    let (fake, store, _) = generous(SOON);
    for n in 0..30 {
        ask(&store, pod(n), &n.to_string()).await.unwrap();
    }
    sleep(HOUR).await;
    for n in 0..30 {
        ask(&store, pod(n), &n.to_string()).await.unwrap();
    }
    let mut most_in_a_minute = 0;
    let mut before = fake.calls().len();
    for _ in 0..121 {
        sleep(MINUTE).await;
        most_in_a_minute = most_in_a_minute.max(fake.calls().len() - before);
        before = fake.calls().len();
    }
    assert_eq!(before, 60, "every one has been refreshed once");
    assert!(most_in_a_minute <= 8, "{most_in_a_minute} in one minute");
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_in_an_answer_are_no_answer() {
    let (fake, store, clock) = generous(SOON);
    fake.now(move |token| Ok(credentials(token, clock.now())));
    assert!(not_ready(&ask(&store, pod(1), "a").await));
    assert_eq!(store.0.metrics.entries.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_fault_of_a_refresh_costs_valid_credentials() {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    let digest = Token::new("a").digest();
    let faults: [fn() -> UpstreamError; 3] = [
        || UpstreamError::Throttled { retry_after: None },
        || UpstreamError::Throttled {
            retry_after: Some(MINUTE),
        },
        || UpstreamError::unavailable("HTTP 500"),
    ];
    let mut fault = faults.into_iter().cycle();
    let mut lies = 0;
    fake.now(move |token| {
        lies += 1;
        match lies % 4 {
            0 => Ok(credentials(token, clock.now() - HOUR)),
            _ => Err(fault.next().unwrap()()),
        }
    });
    for _ in 0..(6 * 60 - 16) {
        sleep(MINUTE).await;
        assert!(store.cached(&pod(1), &digest).is_some());
    }
    assert!(fake.calls().len() > 10);
}
