//! What is handed out when, and what is refreshed when.

use super::*;

/// Credentials that live an hour short of a minute, as those of a target role do.
const SHORT: Duration = Duration::from_secs(59 * 60);

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_never_served_and_stale_ones_only_in_need() {
    let (fake, store, _) = generous(SOON);
    let token = Token::new("a");
    store.fetch(pod(1), token.clone()).await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    sleep(6 * HOUR - 16 * MINUTE).await;
    assert!(store.cached(&pod(1), &token.digest()).is_some());
    sleep(2 * MINUTE).await;
    assert!(store.cached(&pod(1), &token.digest()).is_none(), "stale");
    no_recent_call(&fake).await;
    let started = Instant::now();
    assert!(store.fetch(pod(1), token.clone()).await.is_ok());
    assert!(store.fetch(pod(1), token.clone()).await.is_ok());
    assert!(started.elapsed() < 2 * SOON, "they wait for an outage");
    sleep(14 * MINUTE).await;
    assert!(not_ready(&store.fetch(pod(1), token).await), "expired");
}

/// Waits until no call went out for so long that the next one need not wait, also in an outage.
async fn no_recent_call(fake: &Fake) {
    let mut calls = 0;
    while calls < fake.calls().len() {
        calls = fake.calls().len();
        sleep(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn stale_credentials_are_replaced_before_they_are_handed_out() {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    sleep(6 * HOUR - 14 * MINUTE).await;
    no_recent_call(&fake).await;
    fake.now(move |_| Ok(credentials("newer", clock.now() + 6 * HOUR)));
    assert!(is_for(&ask(&store, pod(1), "a").await.unwrap(), "newer"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_delays_a_request_with_valid_credentials_by_300_ms_only() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
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
async fn a_pod_that_has_not_asked_since_its_last_refresh_is_not_refreshed_again() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    sleep(MINUTE / 2).await;
    ask(&store, pod(1), "a").await.unwrap();
    sleep(8 * HOUR).await;
    assert_eq!(fake.calls().len(), 2, "one refresh and no more");
    ask(&store, pod(1), "a").await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(fake.calls().len(), 3, "it asks again, past the retention");
    sleep(24 * HOUR).await;
    assert_eq!(fake.calls().len(), 3, "and then never");
    assert_eq!(store.metric("podcreds_cache_entries"), 0, "expired");
    assert_eq!(store.metric("podcreds_cache_bytes"), 0);
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
    store.forget(uid(1));
    assert!(ask(&store, pod(1), "a").await.is_ok(), "its last request");
    assert_eq!(store.metric("podcreds_cache_entries"), 0);
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
    assert!((12..60).contains(&tried), "{tried} in five hours");
    let errors = || {
        store.metric(
            "pod_identity_cache_errors{code=\"ServiceUnavailableException\",type=\"Recoverable\"}",
        )
    };
    let each_is_noted = async {
        // The last one may be on its way still.
        while errors() + 1 != fake.calls().len() as i64 {
            sleep(SOON).await;
        }
    };
    let noted = tokio::time::timeout(MINUTE, each_is_noted).await;
    noted.expect("each try that failed is counted");
    fake.now(move |_| Ok(credentials("newer", clock.now() + 6 * HOUR)));
    sleep(11 * MINUTE).await;
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
    assert_eq!(store.metric("podcreds_cache_entries"), 0);
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

#[tokio::test(start_paused = true)]
async fn a_process_that_keeps_its_credentials_comes_through_an_outage() {
    for (life, outage) in [
        (6 * HOUR, 320 * MINUTE),
        (6 * HOUR, 345 * MINUTE),
        (SHORT, 43 * MINUTE),
    ] {
        let (fake, store, clock) = generous(SOON);
        fake.now(move |token| Ok(credentials(token, clock.now() + life)));
        ask(&store, pod(1), "a").await.unwrap();
        sleep(outage).await;
        fake.now(|_| Err(UpstreamError::unavailable("down")));
        // Botocore keeps what it has until it has 15 minutes left.
        sleep((life - 14 * MINUTE).saturating_sub(outage)).await;
        let body = store.cached(&pod(1), &Token::new("a").digest());
        assert!(body.is_some(), "{life:?}: nothing newer had been fetched");
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_with_little_life_do_not_replace_better_ones() {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(move |_| Ok(credentials("dying", clock.now() + MINUTE)));
    sleep(3 * HOUR).await;
    assert!(fake.calls().len() > 1, "it is refreshed");
    assert!(is_for(&ask(&store, pod(1), "a").await.unwrap(), "a"));
    // EKS Auth has accepted this one, so it may have the same.
    assert!(is_for(&ask(&store, pod(1), "b").await.unwrap(), "a"));
    // Where there are none better, they are what there is.
    assert!(is_for(&ask(&store, pod(2), "c").await.unwrap(), "dying"));
}

#[tokio::test(start_paused = true)]
async fn two_tokens_of_a_pod_that_ask_together_cost_one_call() {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    ask(&store, pod(1), "b").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    sleep(6 * HOUR - 10 * MINUTE).await;
    no_recent_call(&fake).await;
    let before = fake.calls().len();
    fake.now(move |token| Ok(credentials(token, clock.now() + 6 * HOUR)));
    let (one, two) = tokio::join!(ask(&store, pod(1), "a"), ask(&store, pod(1), "b"));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(fake.calls().len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn the_nearest_expiry_is_that_of_credentials_that_are_asked_for() {
    let (_fake, store, _) = generous(SOON);
    let nearest = || store.metric_f64("podcreds_cache_nearest_expiry_seconds");
    sleep(MINUTE).await;
    assert!(nearest().is_nan());
    ask(&store, pod(1), "a").await.unwrap();
    sleep(MINUTE).await;
    assert!(nearest() > 5.9 * 3600.0 && nearest() < 6.0 * 3600.0);
    sleep(7 * HOUR).await;
    assert!(nearest().is_nan(), "nobody has asked for the new ones");
}

#[tokio::test(start_paused = true)]
async fn renewals_are_put_off_for_an_hour_while_many_share_a_quota() {
    let (fake, store, clock) = generous(SOON);
    let started = Instant::now();
    ask(&store, pod(1), "a").await.unwrap();
    sleep(HOUR).await;
    ask(&store, pod(1), "a").await.unwrap();
    // The first renewal is throttled, too: the next one is not put off for another hour.
    let mut renewals = 0;
    fake.now(move |token| {
        renewals += usize::from(token == "a");
        match (token, renewals) {
            ("a", 2) => Ok(credentials("newer", clock.now() + 6 * HOUR)),
            _ => Err(UpstreamError::Throttled { retry_after: None }),
        }
    });
    let calls = || fake.calls().iter().filter(|token| *token == "a").count();
    while calls() < 3 {
        assert!(not_ready(&ask(&store, pod(2), "other").await));
        sleep(Duration::from_secs(20)).await;
    }
    let after = started.elapsed();
    // It was due after 2 h 33 min to three hours.
    assert!((HOUR * 7 / 2..HOUR * 9 / 2).contains(&after), "{after:?}");
}
