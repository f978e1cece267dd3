//! Wall clocks that somebody sets while credentials are in memory.

use futures_util::future::{BoxFuture, FutureExt};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;

const BACK: i64 = -2 * 3600;
const FORWARD: i64 = 2 * 3600;

/// A store with the credentials of pod 1, which live 59 minutes, and an EKS Auth that is down.
async fn short_lived() -> (Fake, TestStore, Clock) {
    let (fake, store, clock) = generous(SOON);
    fake.now(move |token| Ok(credentials(token, clock.now() + 59 * MINUTE)));
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    (fake, store, clock)
}

#[tokio::test(start_paused = true)]
async fn credentials_end_on_time_though_the_clock_was_put_back() {
    let (_fake, store, clock) = short_lived().await;
    sleep(10 * MINUTE).await;
    clock.put_forward(BACK);
    sleep(48 * MINUTE).await;
    assert!(ask(&store, pod(1), "a").await.is_ok(), "still valid");
    sleep(MINUTE).await;
    assert!(not_ready(&ask(&store, pod(1), "a").await), "past their end");
    assert!(store.cached(&pod(1), &Token::new("a").digest()).is_none());
    sleep(6 * MINUTE).await;
    assert_eq!(store.metric("podcreds_cache_entries"), 0);
}

#[tokio::test(start_paused = true)]
async fn credentials_are_refreshed_on_time_though_the_clock_was_put_back() {
    let (fake, store, clock) = short_lived().await;
    sleep(MINUTE).await;
    ask(&store, pod(1), "a").await.unwrap();
    clock.put_forward(BACK);
    fake.now(move |token| Ok(credentials(token, clock.now() + 59 * MINUTE)));
    sleep(41 * MINUTE).await;
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_put_forward_and_set_right_costs_no_valid_credentials() {
    let (_fake, store, clock) = short_lived().await;
    sleep(MINUTE).await;
    clock.put_forward(FORWARD);
    assert!(
        not_ready(&ask(&store, pod(1), "a").await),
        "no client would take them"
    );
    sleep(15 * MINUTE).await;
    clock.put_forward(0);
    assert!(store.cached(&pod(1), &Token::new("a").digest()).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_for_its_client_does_not_outlive_its_credentials() {
    let config = config(|it| it.cache.capacity = 0);
    let (fake, store, clock) = with_config(Duration::from_secs(1), config);
    fake.now(move |token| Ok(credentials(token, clock.now() + Duration::from_secs(5))));
    assert!(not_ready(&ask(&store, pod(1), "a").await));
    sleep(Duration::from_secs(1)).await;
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    clock.put_forward(BACK);
    sleep(Duration::from_secs(5)).await;
    assert!(store.cached(&pod(1), &Token::new("a").digest()).is_none());
}

/// Finds every token genuine: the wall clock says that it has not expired.
struct Trusting;

impl VerifyToken for Trusting {
    fn verify_now(&self, _token: &Token) -> Verdict {
        Verdict::Genuine {
            pod: uid(1),
            namespace: "a".to_owned(),
        }
    }

    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        std::future::ready(self.verify_now(&token)).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_expired_is_not_believed_by_a_clock_that_was_put_back() {
    let (fake, store, clock) = generous_with(SOON, Trusting);
    ask(&store, pod(1), "a").await.unwrap();
    let key = EncodingKey::from_secret(b"nobody verifies this here");
    let exp = clock.now() + 30 * MINUTE;
    let exp = exp.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |n: u8| {
        let claims = json!({ "exp": exp, "n": n, "kubernetes.io": {} });
        encode(&Header::default(), &claims, &key).unwrap()
    };
    sleep(29 * MINUTE).await;
    clock.put_forward(BACK);
    ask(&store, pod(1), &token(1)).await.unwrap();
    assert_eq!(fake.calls(), ["a"], "it is good still");
    fake.now(|_| Err(refused()));
    sleep(MINUTE).await;
    assert!(was_refused(&ask(&store, pod(1), &token(2)).await));
    assert_eq!(fake.calls().len(), 2, "EKS Auth has decided");
}
