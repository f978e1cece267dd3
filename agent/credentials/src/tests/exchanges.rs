//! One exchange per pod, whatever the clients and EKS Auth do.

use futures_util::future::join_all;
use tokio::time::timeout;

use super::*;

#[tokio::test(start_paused = true)]
async fn one_exchange_serves_all_who_wait_and_who_come_later() {
    let (fake, store, _) = generous(SOON);
    let waiting = (0..500).map(|_| store.fetch(pod(1), Token::new("a")));
    for outcome in join_all(waiting).await {
        assert!(is_for(&outcome.unwrap(), "a"));
    }
    assert!(store.cached(&pod(1), &Token::new("a").digest()).is_some());
    assert!(store.fetch(pod(1), Token::new("a")).await.is_ok());
    assert_eq!(fake.calls(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_cancels_nothing() {
    let (fake, store, _) = generous(SOON);
    let hangs_up = timeout(SOON / 2, store.fetch(pod(1), Token::new("a")));
    assert!(hangs_up.await.is_err());
    assert!(store.fetch(pod(1), Token::new("a")).await.is_ok());
    assert_eq!(fake.calls(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_costs_a_request_900_ms_and_the_retry_finds_the_cache_warm() {
    let (fake, store, _) = generous(Duration::from_millis(1500));
    let started = Instant::now();
    assert!(not_ready(&store.fetch(pod(1), Token::new("a")).await));
    assert_eq!(started.elapsed(), Duration::from_millis(900));
    sleep(Duration::from_secs(1)).await;
    assert!(store.cached(&pod(1), &Token::new("a").digest()).is_some());
    assert_eq!(fake.calls(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn trouble_upstream_is_tried_again_on_the_agents_own_time() {
    let (fake, store, clock) = generous(SOON);
    let mut failures = 3;
    fake.now(move |token| {
        if failures > 0 {
            failures -= 1;
            return Err(UpstreamError::unavailable("HTTP 500"));
        }
        Ok(credentials(token, clock.now() + HOUR))
    });
    let outcome = store.fetch(pod(1), Token::new("a")).await;
    let Err(CredentialError::NotReady { reason, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(reason.contains("HTTP 500"), "{reason}");
    sleep(Duration::from_secs(1)).await;
    assert!(store.cached(&pod(1), &Token::new("a").digest()).is_some());
    assert_eq!(fake.calls().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_made_for_a_pod_that_stopped_asking() {
    let (fake, store, _) = generous(SOON);
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    assert!(not_ready(&store.fetch(pod(1), Token::new("a")).await));
    sleep(2 * MINUTE).await;
    let tried = fake.calls().len();
    sleep(HOUR).await;
    assert_eq!(fake.calls().len(), tried);
    assert_eq!(store.metric("podcreds_exchanges"), 0);
}

#[tokio::test(start_paused = true)]
async fn throttling_is_left_alone_for_as_long_as_it_asked() {
    let (fake, store, _) = generous(SOON);
    fake.now(|_| {
        Err(UpstreamError::Throttled {
            retry_after: Some(Duration::from_secs(20)),
        })
    });
    assert!(not_ready(&store.fetch(pod(1), Token::new("a")).await));
    sleep(Duration::from_secs(18)).await;
    assert_eq!(fake.calls().len(), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_at_once_and_takes_what_the_token_had() {
    let (fake, store, clock) = generous(SOON);
    fake.now(move |token| Ok(credentials(token, clock.now() + HOUR)));
    store.fetch(pod(1), Token::new("a")).await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    // Long enough that a renewal's call, just before they expire, makes no other one wait.
    sleep(HOUR + MINUTE / 6).await;
    fake.now(|_| Err(refused()));
    let started = Instant::now();
    assert!(was_refused(&store.fetch(pod(1), Token::new("a")).await));
    assert_eq!(started.elapsed(), SOON);
    assert_eq!(store.metric("podcreds_cache_entries"), 0);
}

#[tokio::test(start_paused = true)]
async fn garbage_neither_gets_nor_takes_nor_blocks_what_a_good_token_has() {
    let (fake, store, _) = generous(SOON);
    let good = Token::new("good");
    store.fetch(pod(1), good.clone()).await.unwrap();

    let bad = Token::new("bad");
    assert!(store.cached(&pod(1), &bad.digest()).is_none());
    assert!(was_refused(&store.fetch(pod(1), bad).await));
    assert!(store.cached(&pod(1), &good.digest()).is_some());
    assert_eq!(fake.calls(), ["good", "bad"]);
}

#[tokio::test(start_paused = true)]
async fn tokens_of_one_pod_take_turns_and_are_never_exchanged_at_once() {
    let (fake, store, _) = generous(SOON);
    let garbage = |n: usize| store.fetch(pod(1), Token::new(format!("bad{n}")));
    let outcomes = tokio::join!(
        join_all((0..3).map(garbage)),
        store.fetch(pod(1), Token::new("good")),
        async {
            sleep(SOON / 2).await;
            assert_eq!(fake.in_air(), 1);
            not_ready(&store.fetch(pod(1), Token::new("bad: one too many")).await)
        },
    );
    assert!(outcomes.0.iter().all(was_refused));
    assert!(is_for(&outcomes.1.unwrap(), "good"));
    assert!(outcomes.2, "the line has no end");
    assert_eq!(fake.calls(), ["bad0", "bad1", "bad2", "good"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_keeps_failing_does_not_hold_up_another() {
    let (fake, store, clock) = generous(SOON);
    fake.now(move |token| match token {
        "odd" => Err(UpstreamError::unavailable("InvalidParameterException")),
        _ => Ok(credentials(token, clock.now() + HOUR)),
    });
    let (odd, good) = tokio::join!(store.fetch(pod(1), Token::new("odd")), async {
        sleep(Duration::from_millis(300)).await;
        store.fetch(pod(1), Token::new("good")).await
    });
    assert!(not_ready(&odd));
    assert!(is_for(&good.unwrap(), "good"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_takes_its_exchange_along() {
    let (fake, store, _) = generous(SOON);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.fetch(pod(1), Token::new("a")).await }
    });
    sleep(SOON / 2).await;
    assert_eq!(fake.in_air(), 1);
    store.forget(uid(1));
    assert!(not_ready(&waiting.await.unwrap()));
    assert_eq!(fake.in_air(), 0);

    store.fetch(pod(1), Token::new("a")).await.unwrap();
    store.forget(uid(1));
    assert!(store.cached(&pod(1), &Token::new("a").digest()).is_none());
    assert_eq!(store.metric("podcreds_cache_entries"), 0);
    assert_eq!(store.metric("podcreds_exchanges"), 0);
}

/// A cgroup is made again with the same UID, as kubelet does when a node's systemd is reloaded.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_and_comes_back_is_cached_again() {
    let (fake, store, _) = generous(SOON);
    let here = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let on_node = std::sync::Arc::clone(&here);
    store
        .cache()
        .keep_only_pods(move |_| on_node.load(std::sync::atomic::Ordering::Relaxed));
    let is_here = |is_here| here.store(is_here, std::sync::atomic::Ordering::Relaxed);
    ask(&store, pod(1), "a").await.unwrap();
    is_here(false);
    store.forget(uid(1));
    ask(&store, pod(1), "a").await.unwrap();
    assert_eq!(
        store.metric("podcreds_cache_entries"),
        0,
        "its last request"
    );
    is_here(true);
    for _ in 0..65 {
        ask(&store, pod(1), "a").await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(fake.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn pods_do_not_wait_for_each_other() {
    let (fake, store, _) = generous(SOON);
    let started = Instant::now();
    let all = (0..30).map(|n| store.fetch(pod(n), Token::new(format!("{n}"))));
    for (n, outcome) in join_all(all).await.into_iter().enumerate() {
        assert!(is_for(&outcome.unwrap(), &n.to_string()));
    }
    assert_eq!(started.elapsed(), SOON);
    assert_eq!(fake.calls().len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_exchange_and_no_more() {
    let (fake, store, clock) = generous(SOON);
    let mut first = true;
    fake.now(move |token| {
        assert!(!std::mem::take(&mut first), "a bug in a library");
        Ok(credentials(token, clock.now() + 6 * HOUR))
    });
    let started = Instant::now();
    assert!(not_ready(&ask(&store, pod(1), "a").await));
    assert_eq!(started.elapsed(), SOON, "waiters are told at once");
    assert_eq!(store.metric("podcreds_exchanges"), 0);
    assert!(ask(&store, pod(1), "a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_request_is_counted_once() {
    let (fake, store, _) = generous(SOON);
    let (one, two) = tokio::join!(ask(&store, pod(1), "a"), ask(&store, pod(1), "a"));
    assert!(one.is_ok() && two.is_ok());
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    sleep(6 * HOUR - 10 * MINUTE).await;
    for _ in 0..10 {
        ask(&store, pod(1), "a").await.unwrap();
    }
    for (result, count) in [("miss", 1), ("joined", 1), ("hit", 1), ("stale", 10)] {
        let name = format!("podcreds_cache_requests_total{{result=\"{result}\"}}");
        assert_eq!(store.metric(&name), count, "{result}");
    }
    assert_eq!(store.metric("podcreds_cache_hit_age_seconds_count"), 1);
}

#[test]
fn a_store_is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<TestStore>();
}
