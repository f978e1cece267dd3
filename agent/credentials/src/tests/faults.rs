//! What a fault, a flood or a busy pod must not do to others, or to the agent.

use futures_util::future::{BoxFuture, join_all};
use podcreds_cache::Subject;

use super::{rotation::Keys, *};

const SECOND: Duration = Duration::from_secs(1);

/// Keys that know nothing at once, and what [`Keys`] knows after half a second.
struct SlowKeys;

impl VerifyToken for SlowKeys {
    fn verify_now(&self, _: &Token) -> Verdict {
        Verdict::Unknown
    }

    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        Box::pin(async move {
            sleep(SECOND / 2).await;
            Keys.verify_now(&token)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_served_from_memory_gives_its_slot_in_the_limiter_up() {
    let (fake, store, clock) = generous_with(SOON, SlowKeys);
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    fake.now(|_| {
        Err(UpstreamError::Unavailable {
            reason: "down".to_owned(),
            retry_after: Some(20 * SECOND),
        })
    });
    assert!(not_ready(&ask(&store, pod(2), "x").await));
    fake.now(move |token| Ok(credentials(token, clock.now() + 6 * HOUR)));
    // The limiter is blocked, so this one waits there until the keys have spoken.
    let body = ask(&store, pod(1), "genuine-1-b").await.unwrap();
    assert!(is_for(&body, "genuine-1-a"));
    settle().await;
    assert_eq!(
        store.metric("podcreds_exchanges"),
        1,
        "the other pod's alone"
    );
}

/// Keys whose look at some tokens panics, as a library's may.
struct PanickingKeys;

impl VerifyToken for PanickingKeys {
    fn verify_now(&self, token: &Token) -> Verdict {
        assert!(!token.expose().starts_with("boom"), "a bug in a library");
        Verdict::Unknown
    }

    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        Box::pin(async move { Keys.verify_now(&token) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_one_token_costs_no_other_pod_anything() {
    let (fake, store, _) = generous_with(SOON, PanickingKeys);
    fake.slow(SECOND / 2);
    let other = {
        let store = store.clone();
        tokio::spawn(async move { ask(&store, pod(2), "other").await })
    };
    settle().await;
    for n in 0..8 {
        let outcome = ask(&store, pod(3), &format!("boom{n}")).await;
        assert!(outcome.is_ok() || not_ready(&outcome), "EKS Auth decides");
    }
    assert!(other.await.unwrap().is_ok());
    assert_eq!(
        fake.calls().iter().filter(|call| *call == "other").count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_during_a_hand_over_stays_taken_after_a_flood_of_forged_tokens() {
    let (fake, store, clock) = generous_with(SOON, Keys);
    let upstream = Arc::new(fake.clone());
    let leader = TestStore::start(Config::default(), upstream, None, clock, &Handle::current());
    ask(&leader, bearer(1, None), "token").await.unwrap();
    let subject = Subject::Token(Token::new("token").digest());
    store.cache().set_following(true);
    let copy = leader.cache().snapshot(&subject).unwrap();
    assert!(store.cache().inherit(subject, copy.clone()));
    sleep(6 * HOUR - 10 * MINUTE).await;
    fake.now(|_| Err(refused()));
    assert!(was_refused(&ask(&store, bearer(1, None), "token").await));
    assert!(!store.cache().inherit(subject, copy.clone()));
    for round in 0..12 {
        let flood = (0..128).map(|n| {
            let (store, token) = (store.clone(), format!("forged-{round}-{n}"));
            async move { ask(&store, bearer(2, None), &token).await }
        });
        assert!(join_all(flood).await.iter().all(was_refused));
        sleep(SECOND / 5).await;
    }
    assert!(!store.cache().inherit(subject, copy));
}

#[tokio::test(start_paused = true)]
async fn credentials_that_a_request_asks_for_late_are_renewed_in_time() {
    const LIFE: Duration = Duration::from_secs(15 * 60);
    for phase in 0..12u64 {
        let (fake, store, clock) = generous(SOON);
        fake.now(move |token| Ok(credentials(token, clock.now() + LIFE)));
        ask(&store, pod(1), "a").await.unwrap();
        let calls = || fake.calls().iter().filter(|call| *call == "a").count();
        let started = Instant::now();
        while calls() < 2 {
            assert!(started.elapsed() < LIFE, "not renewed unasked");
            sleep(SECOND).await;
        }
        let fetched = Instant::now();
        // Another pod's exchange decides when the cache is looked at.
        sleep(Duration::from_secs(180 + phase * 25)).await;
        ask(&store, pod(2), "b").await.unwrap();
        sleep(2 * SECOND).await;
        ask(&store, pod(1), "a").await.unwrap();
        while calls() < 3 {
            let took = fetched.elapsed();
            assert!(took <= 10 * MINUTE, "{took:?} in phase {phase}");
            sleep(SECOND).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_pace_comes_back_in_the_metrics_too() {
    let (_fake, store, _) = generous(SOON);
    let pace = || store.metric_f64("podcreds_limiter_calls_per_second");
    let all = (0..1000).map(|n| store.fetch(pod(n), Token::new(n.to_string())));
    join_all(all).await;
    assert!(pace() > 100.0, "{}", pace());
    sleep(6 * MINUTE).await;
    assert!((pace() - 100.0).abs() < 1.0, "{}", pace());
}
