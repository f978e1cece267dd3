//! Tokens that the kubelet has rotated.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::*;

/// Says of tokens "genuine-N-..." that they are pod N's, and of "forged..." that they are nobody's.
struct Keys;

impl VerifyToken for Keys {
    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        let text = token.expose();
        let verdict = match text.strip_prefix("genuine-") {
            Some(rest) => Verdict::Genuine {
                pod: uid(rest.split('-').next().unwrap().parse().unwrap()),
            },
            None if text.starts_with("forged") => Verdict::Forged,
            None => Verdict::Unknown,
        };
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
    let (fake, store, _) = generous(SOON);
    store.trust(Arc::new(Keys));
    ask(&store, pod(1), "old").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    for token in ["unknown", "genuine-2-other-pods"] {
        assert!(not_ready(&ask(&store, pod(1), token).await), "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_genuine_token_of_the_pod_rides_through_an_outage() {
    let (fake, store, clock) = generous(SOON);
    store.trust(Arc::new(Keys));
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    let before = fake.calls().len();
    let body = ask(&store, pod(1), "genuine-1-b").await.unwrap();
    assert!(is_for(&body, "genuine-1-a"));
    assert_eq!(fake.calls().len(), before);
    assert_eq!(store.0.metrics.adopted.get(), 1);

    // From now on the pod's credentials are refreshed with the token that is good for longer.
    sleep(2 * MINUTE).await;
    ask(&store, pod(1), "genuine-1-b").await.unwrap();
    fake.now(move |token| Ok(credentials(token, clock.now() + 6 * HOUR)));
    sleep(3 * HOUR).await;
    assert_eq!(fake.calls(), ["genuine-1-a", "genuine-1-b"]);
}

#[tokio::test(start_paused = true)]
async fn a_genuine_token_gets_stale_credentials_where_there_are_none_newer() {
    let (fake, store, _) = generous(SOON);
    store.trust(Arc::new(Keys));
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    sleep(6 * HOUR - 10 * MINUTE).await;
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    assert!(ask(&store, pod(1), "genuine-1-b").await.is_ok());
    assert!(ask(&store, pod(1), "genuine-1-b").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_forged_token_costs_no_call() {
    let (fake, store, _) = generous(SOON);
    store.trust(Arc::new(Keys));
    assert!(was_refused(&ask(&store, pod(1), "forged").await));
    assert_eq!(fake.calls().len(), 0);
    assert_eq!(store.0.metrics.forged.get(), 1);
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
async fn an_hour_long_outage_with_a_rotation_in_it_fails_no_request() {
    let (fake, store, clock) = generous(SOON);
    store.trust(Arc::new(Keys));
    let ask_all = async |rotation: &str| {
        for n in 0..20 {
            let token = format!("genuine-{n}-{rotation}");
            let body = ask(&store, pod(n), &token).await.unwrap();
            assert!(body.starts_with(format!(r#"{{"AccessKeyId":"genuine-{n}-"#).as_bytes()));
        }
    };
    for minute in 0..5 * 60 {
        match minute {
            120 => fake.now(|_| Err(UpstreamError::unavailable("down"))),
            180 => fake.now(move |token| Ok(credentials(token, clock.now() + 6 * HOUR))),
            _ => {}
        }
        ask_all(if minute < 150 { "a" } else { "b" }).await;
        sleep(MINUTE).await;
    }
    let renewed = fake
        .calls()
        .iter()
        .filter(|call| call.ends_with('b'))
        .count();
    assert!(renewed >= 20, "the new tokens renew: {renewed}");
}
