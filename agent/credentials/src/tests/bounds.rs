//! What the store can grow to, and what it costs EKS Auth.

use futures_util::future::join_all;
use podcreds_types::{EksRefusal, RefusalKind};
use tokio::task::JoinSet;

use super::*;

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_makes_room() {
    let config = config(|it| it.cache.capacity = 3);
    let (_fake, store, _) = with_config(SOON, config);
    for n in [1, 2, 3, 1, 2, 4] {
        ask(&store, pod(n), &n.to_string()).await.unwrap();
    }
    let digest = |n: u16| Token::new(n.to_string()).digest();
    let kept = (1..=4).filter(|n| store.cached(&pod(*n), &digest(*n)).is_some());
    assert_eq!(kept.collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(store.metric("podcreds_cache_entries"), 3);
    assert_eq!(store.metric("podcreds_cache_evictions_total"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_entry_takes_what_its_body_and_token_take_and_little_more() {
    let (_fake, store, _) = generous(SOON);
    let token = "t".repeat(1000);
    let body = ask(&store, pod(1), &token).await.unwrap();
    let bytes = store.metric("podcreds_cache_bytes");
    let net = (token.len() + body.len()) as i64;
    assert!(bytes > net && bytes < net + 512, "{bytes} for {net}");
    store.forget(uid(1));
    assert_eq!(store.metric("podcreds_cache_bytes"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_off_keeps_nothing_but_what_a_client_comes_back_for() {
    for config in [
        config(|it| it.cache.capacity = 0),
        config(|it| it.cache.retention = Duration::ZERO),
    ] {
        let (fake, store, _) = with_config(SOON, config);
        let (one, two) = tokio::join!(ask(&store, pod(1), "a"), ask(&store, pod(1), "a"));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(fake.calls().len(), 1, "requests still share an exchange");
        assert!(ask(&store, pod(1), "a").await.is_ok());
        assert_eq!(fake.calls().len(), 2);

        fake.slow(Duration::from_secs(1));
        assert!(not_ready(&ask(&store, pod(1), "a").await));
        sleep(Duration::from_secs(1)).await;
        assert!(ask(&store, pod(1), "a").await.is_ok());
        assert_eq!(fake.calls().len(), 3, "the answer had waited");
        assert_eq!(store.metric("podcreds_cache_entries"), 0);

        assert!(not_ready(&ask(&store, pod(1), "a").await));
        sleep(MINUTE).await;
        assert_eq!(
            store.metric("podcreds_cache_entries"),
            0,
            "nobody came back"
        );
    }
}

/// A rotated token comes back for what the one before it has left.
#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_for_its_client_is_not_thrown_away() {
    let config = config(|it| it.cache.capacity = 0);
    for claimant in [pod(1), bearer(1, Some(1))] {
        let keys = Arc::new(super::rotation::Keys);
        let (fake, store, _) = make(Duration::from_secs(1), config.clone(), Some(keys));
        assert!(not_ready(&ask(&store, claimant, "genuine-1-a").await));
        sleep(Duration::from_secs(1)).await;
        if claimant == pod(1) {
            // The kernel's word needs no look at the signature: this one is exchanged.
            assert!(not_ready(&ask(&store, claimant, "genuine-1-b").await));
            assert!(ask(&store, claimant, "genuine-1-a").await.is_ok());
            continue;
        }
        assert!(ask(&store, claimant, "genuine-1-b").await.is_ok());
        assert_eq!(fake.calls(), ["genuine-1-a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_nobody_knows_cannot_fill_the_memory() {
    let (fake, store, _) = generous(HOUR);
    let token = |n: usize| Token::new(format!("made-up-{n}"));
    // From 20 addresses, 50 from each.
    let flood = (0..1000).map(|n| store.fetch(bearer((n % 20) as u8, None), token(n)));
    let outcomes = join_all(flood).await;
    assert!(outcomes.iter().all(not_ready));
    let exchanges = || store.metric("podcreds_exchanges");
    let crowd = exchanges();
    assert!((400..512).contains(&crowd), "{crowd}");
    drop(fake);
    assert!(not_ready(&ask(&store, bearer(100, None), "new").await));
    assert_eq!(exchanges(), crowd + 1, "a new address still can");
    assert!(not_ready(&store.fetch(pod(1), Token::new("a")).await));
    assert_eq!(exchanges(), crowd + 2, "a known pod still can");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_cold_pods_are_all_served_by_an_upstream_that_throttles() {
    let (fake, store, clock) = generous(SOON);
    let mut second = (Instant::now(), 0);
    fake.now(move |token| {
        if second.0.elapsed() >= Duration::from_secs(1) {
            second = (Instant::now(), 0);
        }
        second.1 += 1;
        if second.1 > 2 {
            return Err(UpstreamError::Throttled { retry_after: None });
        }
        Ok(credentials(token, clock.now() + 6 * HOUR))
    });
    let started = Instant::now();
    let pods = (0..1000).map(|n| {
        let store = store.clone();
        async move {
            while ask(&store, pod(n), &n.to_string()).await.is_err() {
                sleep(Duration::from_secs(1)).await;
            }
            started.elapsed()
        }
    });
    let waits = join_all(pods).await;
    let worst = waits.iter().max().unwrap().as_secs();
    let calls = fake.calls().len();
    println!("1,000 pods, upstream bears 2/s: worst wait {worst} s, {calls} calls");
    // It would take 500 s if nothing was ever throttled.
    assert!(worst < 1000, "{worst} s");
    assert!(calls < 1500, "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_hides_no_valid_credentials() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "good").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    sleep(6 * HOUR - 10 * MINUTE).await;
    let garbage = (0..4).map(|n| ask_as_task(&store, pod(1), format!("junk{n}")));
    let garbage: Vec<_> = garbage.collect();
    sleep(SOON / 5).await;
    assert!(ask(&store, pod(1), "good").await.is_ok());
    assert_eq!(
        store.metric("podcreds_cache_requests_total{result=\"stale\"}"),
        1
    );
    assert!(not_ready(&ask(&store, pod(1), "one too many").await));
    assert_eq!(
        store.metric("podcreds_cache_requests_total{result=\"overloaded\"}"),
        1
    );
    drop(garbage);
}

#[tokio::test(start_paused = true)]
async fn many_unidentified_callers_hide_no_valid_credentials() {
    let config = config(|it| it.exchange.unidentified = 8);
    let (fake, store, _) = with_config(SOON, config);
    ask(&store, bearer(1, None), "good").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    sleep(6 * HOUR - 10 * MINUTE).await;
    let crowd = (0..8).map(|n| {
        let token = format!("junk{n}");
        ask_as_task(&store, bearer(2, None), token)
    });
    let crowd: Vec<_> = crowd.collect();
    sleep(SOON / 5).await;
    assert!(ask(&store, bearer(1, None), "good").await.is_ok());
    drop(crowd);
}

fn ask_as_task(
    store: &TestStore,
    claimant: Claimant,
    token: String,
) -> tokio::task::JoinHandle<RequestResult> {
    let store = store.clone();
    tokio::spawn(async move { ask(&store, claimant, &token).await })
}

#[tokio::test(start_paused = true)]
async fn pods_in_crash_loops_keep_nobody_waiting() {
    let config = config(|it| it.cache.retention = 20 * MINUTE);
    let (fake, store, _) = with_config(SOON, config);
    ask(&store, pod(999), "good").await.unwrap();
    let mut loops = JoinSet::new();
    for n in 0..80 {
        let store = store.clone();
        loops.spawn(async move {
            loop {
                let _ = ask(&store, pod(n), &format!("bad{n}")).await;
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    sleep(2 * MINUTE).await;
    let started = Instant::now();
    while ask(&store, pod(998), "cold").await.is_err() {
        sleep(Duration::from_secs(1)).await;
    }
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    sleep(18 * MINUTE).await;
    let of_good = fake.calls().iter().filter(|call| *call == "good").count();
    assert_eq!(of_good, 2, "renewed in time");
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_one_address_keeps_no_other_waiting_without_keys() {
    let (fake, store, clock) = generous(SOON);
    fake.now(move |token| match token.starts_with("bad") {
        true => Err(UpstreamError::Refused(EksRefusal {
            kind: RefusalKind::BadToken,
            code: "InvalidTokenException".to_owned(),
            message: "no token of this cluster".to_owned(),
        })),
        false => Ok(credentials(token, clock.now() + 6 * HOUR)),
    });
    let flood = (0..1000).map(|n| store.fetch(bearer(1, None), Token::new(format!("bad{n}"))));
    let (_, took) = tokio::join!(join_all(flood), async {
        sleep(SOON / 5).await;
        let started = Instant::now();
        assert!(ask(&store, bearer(2, Some(2)), "cold").await.is_ok());
        started.elapsed()
    });
    assert!(took < 2 * SOON, "{took:?}");
    // It goes on for a minute, with new tokens all the time.
    let before = fake.calls().len();
    let started = Instant::now();
    let mut n = 0;
    while started.elapsed() < MINUTE {
        let token = Token::new(format!("bad again {n}"));
        let store = store.clone();
        tokio::spawn(async move { store.fetch(bearer(1, None), token).await });
        sleep(Duration::from_millis(5)).await;
        n += 1;
    }
    let calls = fake.calls().len() - before;
    println!("a flood of {n} forged tokens in a minute: {calls} calls");
    assert!(calls < 22 * 60, "{calls} calls for {n} tokens");
    let started = Instant::now();
    assert!(ask(&store, bearer(3, None), "cold too").await.is_ok());
    assert!(started.elapsed() < 2 * SOON, "{:?}", started.elapsed());
}
