//! Tokens that the kubelet has rotated.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::BoxFuture;

use super::*;

/// Says of tokens "genuine-N-..." that they are pod N's, of "forged..." that they are nobody's, and
/// of "foreign..." that they are for somebody else.
pub(super) struct Keys;

impl VerifyToken for Keys {
    fn verify_now(&self, token: &Token) -> Verdict {
        let text = token.expose();
        match text.strip_prefix("genuine-") {
            Some(rest) => Verdict::Genuine {
                pod: uid(rest.split('-').next().unwrap().parse().unwrap()),
                namespace: "shop".to_owned(),
            },
            None if text.starts_with("forged") => Verdict::Forged,
            None if text.starts_with("foreign") => Verdict::OtherAudience,
            None => Verdict::Unknown,
        }
    }

    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        let verdict = self.verify_now(&token);
        Box::pin(async move { verdict })
    }
}

#[tokio::test(start_paused = true)]
async fn without_keys_a_new_token_is_exchanged_and_then_both_are_good() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "old").await.unwrap();
    assert!(is_for(&ask(&store, pod(1), "new").await.unwrap(), "new"));
    // A process that has not seen the rotation yet.
    assert!(is_for(&ask(&store, pod(1), "old").await.unwrap(), "new"));
    assert_eq!(fake.calls(), ["old", "new"]);
}

#[tokio::test(start_paused = true)]
async fn an_unverified_token_gets_nothing_from_the_cache() {
    let (fake, store, _) = generous_with(SOON, Keys);
    ask(&store, pod(1), "old").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    for token in ["unknown", "genuine-2-other-pods"] {
        assert!(not_ready(&ask(&store, pod(1), token).await), "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_genuine_token_of_the_pod_is_served_through_an_outage() {
    let (fake, store, clock) = generous_with(SOON, Keys);
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    let before = fake.calls().len();
    let body = ask(&store, pod(1), "genuine-1-b").await.unwrap();
    assert!(is_for(&body, "genuine-1-a"));
    assert_eq!(fake.calls().len(), before);
    assert_eq!(store.metric("podcreds_tokens_adopted_total"), 1);

    // From now on the pod's credentials are refreshed with the token that is good for longer.
    sleep(2 * MINUTE).await;
    ask(&store, pod(1), "genuine-1-b").await.unwrap();
    fake.now(move |token| Ok(credentials(token, clock.now() + 6 * HOUR)));
    sleep(3 * HOUR).await;
    assert_eq!(fake.calls(), ["genuine-1-a", "genuine-1-b"]);
}

#[tokio::test(start_paused = true)]
async fn a_genuine_token_gets_stale_credentials_where_there_are_none_newer() {
    let (fake, store, _) = generous_with(SOON, Keys);
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    sleep(6 * HOUR - 10 * MINUTE).await;
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    assert!(ask(&store, pod(1), "genuine-1-b").await.is_ok());
    assert!(ask(&store, pod(1), "genuine-1-b").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_genuine_token_does_not_wait_for_a_refresh_that_hangs() {
    let (fake, store, _) = generous_with(SOON, Keys);
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    fake.slow(MINUTE);
    fake.now(|_| Err(UpstreamError::unavailable("timed out")));
    while fake.in_air() == 0 {
        sleep(Duration::from_secs(1)).await;
    }
    for n in 0..8 {
        let token = format!("genuine-1-b{n}");
        assert!(ask(&store, pod(1), &token).await.is_ok(), "{token}");
        assert_eq!(fake.in_air(), 1, "the refresh still hangs");
    }
}

/// EKS Auth asks to be left alone for a minute.
fn blocks() -> UpstreamError {
    UpstreamError::Unavailable {
        reason: "down".to_owned(),
        retry_after: Some(MINUTE),
    }
}

#[tokio::test(start_paused = true)]
async fn a_genuine_token_does_not_wait_for_a_limiter_that_is_blocked() {
    let (fake, store, _) = generous_with(SOON, Keys);
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    fake.now(|_| Err(blocks()));
    assert!(not_ready(&ask(&store, pod(2), "genuine-2-a").await));
    assert!(ask(&store, pod(1), "genuine-1-b").await.is_ok());
    assert_eq!(fake.calls(), ["genuine-1-a", "genuine-2-a"]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_moves_up_when_a_request_waits_behind_it() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(|_| Err(blocks()));
    let queued = || {
        let of =
            |urgency| store.metric(&format!("podcreds_limiter_queue{{urgency=\"{urgency}\"}}"));
        (of("asked"), of("refresh"))
    };
    let started = Instant::now();
    let (mut calls, mut blocked) = (fake.calls().len(), started);
    // Until the renewal waits, which it does once it must not be put off any longer, and so early
    // in the minute that it goes on waiting.
    while queued().1 == 0 || fake.in_air() > 0 || blocked.elapsed() > Duration::from_secs(50) {
        assert!(not_ready(&ask(&store, pod(2), "other").await));
        assert!(started.elapsed() < 6 * HOUR, "it is never due");
        sleep(Duration::from_secs(1)).await;
        if fake.calls().len() > calls {
            (calls, blocked) = (fake.calls().len(), Instant::now());
        }
    }
    store.forget(uid(2));
    settle().await;
    assert_eq!(queued(), (0, 1));
    assert!(not_ready(&ask(&store, pod(1), "b").await));
    assert_eq!(queued(), (1, 0));
}

/// Knows nothing at once, and what [`Keys`] knows after a while.
struct SlowKeys(Duration);

impl VerifyToken for SlowKeys {
    fn verify_now(&self, _: &Token) -> Verdict {
        Verdict::Unknown
    }

    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        let delay = self.0;
        Box::pin(async move {
            sleep(delay).await;
            Keys.verify_now(&token)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_cold_pod_does_not_wait_for_keys() {
    let (_fake, store, _) = generous_with(SOON, SlowKeys(5 * SOON));
    let started = Instant::now();
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    assert_eq!(started.elapsed(), SOON);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_waits_for_keys_but_not_for_long() {
    let (fake, store, _) = generous_with(SOON, SlowKeys(4 * SOON));
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    assert!(ask(&store, pod(1), "genuine-1-b").await.is_ok());
    assert_eq!(fake.calls().len(), 1);

    let (fake, store, _) = generous_with(SOON, SlowKeys(10 * SOON));
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    let started = Instant::now();
    let body = ask(&store, pod(1), "genuine-1-b").await.unwrap();
    assert!(is_for(&body, "genuine-1-a"));
    assert_eq!(started.elapsed(), 10 * SOON, "told while it waits in line");
    assert!(fake.calls().len() > 1, "it had gone into line");
}

/// Counts the tokens that it looks at.
struct CountingKeys(Arc<AtomicUsize>);

impl VerifyToken for CountingKeys {
    fn verify_now(&self, _: &Token) -> Verdict {
        Verdict::Unknown
    }

    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        self.0.fetch_add(1, Ordering::Relaxed);
        SlowKeys(Duration::ZERO).verify(token)
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_full_of_garbage_has_few_tokens_verified_in_a_second() {
    let verified = Arc::new(AtomicUsize::new(0));
    let (_fake, store, _) = generous_with(SOON, CountingKeys(Arc::clone(&verified)));
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    let garbage = |round: usize| {
        let store = store.clone();
        let ask_all = (0..100).map(move |n| {
            let store = store.clone();
            async move { ask(&store, pod(1), &format!("bad-{round}-{n}")).await }
        });
        tokio::spawn(futures_util::future::join_all(ask_all))
    };
    let mut rounds = Vec::new();
    for round in 0..10 {
        rounds.push(garbage(round));
        sleep(Duration::from_millis(100)).await;
    }
    let count = verified.load(Ordering::Relaxed);
    assert!((4..=44).contains(&count), "{count} of 1,000 in a second");
    for round in rounds {
        assert!(round.await.unwrap().iter().all(Result::is_err));
    }
    sleep(MINUTE).await;
    assert!(
        ask(&store, pod(1), "genuine-1-b").await.is_ok(),
        "there is room again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_forged_token_costs_no_call() {
    let (fake, store, _) = generous_with(SOON, Keys);
    assert!(was_refused(&ask(&store, pod(1), "forged").await));
    assert_eq!(fake.calls().len(), 0);
    assert_eq!(store.metric("podcreds_tokens_forged_total"), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_last_few_tokens_of_a_pod_are_good() {
    let (fake, store, _) = generous(SOON);
    for n in 0..5 {
        ask(&store, pod(1), &format!("{n}")).await.unwrap();
    }
    let digest = |n: usize| Token::new(n.to_string()).digest();
    let good = (0..5).filter(|n| store.cached(&pod(1), &digest(*n)).is_some());
    assert_eq!(good.collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(fake.calls().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_verified_pod_does_not_wait_for_a_crowd_of_unverified_ones() {
    let (_fake, store, _) = generous_with(SOON, Keys);
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..300 {
        let store = store.clone();
        crowd.spawn(async move {
            while ask(&store, pod(n), &format!("unknown-{n}")).await.is_err() {
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    sleep(Duration::from_secs(2)).await;
    let started = Instant::now();
    while ask(&store, pod(999), "genuine-999-a").await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// What EKS Auth does for an hour: the answer, and how long it takes.
const OUTAGES: [(fn() -> UpstreamError, Duration); 3] = [
    (|| UpstreamError::unavailable("down"), SOON),
    (
        || UpstreamError::unavailable("timed out"),
        Duration::from_secs(10),
    ),
    (
        || UpstreamError::Throttled {
            retry_after: Some(MINUTE),
        },
        SOON,
    ),
];

#[tokio::test(start_paused = true)]
async fn an_hour_long_outage_with_a_rotation_in_it_fails_no_request() {
    for (error, delay) in OUTAGES {
        let (fake, store, clock) = generous_with(SOON, Keys);
        let ask_all = async |rotation: &str| {
            for n in 0..20 {
                let token = format!("genuine-{n}-{rotation}");
                let body = ask(&store, pod(n), &token).await.expect(&token);
                assert!(body.starts_with(format!(r#"{{"AccessKeyId":"genuine-{n}-"#).as_bytes()));
            }
        };
        for minute in 0..5 * 60 {
            match minute {
                120 => {
                    fake.slow(delay);
                    fake.now(move |_| Err(error()));
                }
                180 => {
                    fake.slow(SOON);
                    fake.now(move |token| Ok(credentials(token, clock.now() + 6 * HOUR)));
                }
                _ => {}
            }
            ask_all(if minute < 150 { "a" } else { "b" }).await;
            sleep(MINUTE).await;
        }
        let calls = fake.calls();
        let renewed = calls.iter().filter(|call| call.ends_with('b')).count();
        assert!(renewed >= 20, "the new tokens renew: {renewed}");
    }
}
