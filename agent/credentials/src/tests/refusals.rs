//! EKS Auth's last words.

use podcreds_types::{EksRefusal, RefusalKind};

use super::*;

fn bad_token() -> UpstreamError {
    UpstreamError::Refused(EksRefusal {
        kind: RefusalKind::BadToken,
        code: "ExpiredTokenException".to_owned(),
        message: "expired".to_owned(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_costs_little_and_a_new_association_works_within_seconds() {
    let (fake, store, clock) = generous(SOON);
    fake.now(|_| Err(refused()));
    for _ in 0..600 {
        assert!(was_refused(&ask(&store, pod(1), "a").await));
        sleep(Duration::from_secs(1)).await;
    }
    assert!(fake.calls().len() <= 65, "{}", fake.calls().len());
    fake.now(move |token| Ok(credentials(token, clock.now() + HOUR)));
    let started = Instant::now();
    while ask(&store, pod(1), "a").await.is_err() {
        sleep(Duration::from_secs(1)).await;
    }
    assert!(started.elapsed() <= Duration::from_secs(11));
    assert_eq!(store.metric("podcreds_refusals_remembered"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_one_pod_says_nothing_about_another() {
    let (_fake, store, _) = generous(SOON);
    assert!(was_refused(&ask(&store, pod(1), "bad").await));
    assert!(ask(&store, pod(2), "good").await.is_ok());
    assert!(ask(&store, pod(1), "good").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_refused_takes_the_credentials() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    sleep(2 * MINUTE).await;
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(|_| Err(refused()));
    sleep(3 * HOUR).await;
    assert_eq!(store.metric("podcreds_cache_entries"), 0);
    let errors =
        "pod_identity_cache_errors{code=\"ResourceNotFoundException\",type=\"NonRecoverable\"}";
    assert_eq!(store.metric(errors), 1);
    assert!(was_refused(&ask(&store, pod(1), "a").await));
    assert_eq!(store.metric(errors), 1, "no renewal");
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_loses_its_right_but_not_the_pods_credentials() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "old").await.unwrap();
    sleep(2 * MINUTE).await;
    ask(&store, pod(1), "new").await.unwrap();
    ask(&store, pod(1), "old").await.unwrap();
    sleep(2 * MINUTE).await;
    ask(&store, pod(1), "old").await.unwrap();
    fake.now(|_| Err(bad_token()));
    sleep(3 * HOUR).await;
    assert_eq!(fake.calls(), ["old", "new", "new"], "the refresh");
    let digest = |token: &str| Token::new(token).digest();
    assert!(store.cached(&pod(1), &digest("new")).is_none());
    assert!(store.cached(&pod(1), &digest("old")).is_some());
    sleep(HOUR).await;
    assert_eq!(fake.calls().len(), 3, "there is no token to try it with");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_garbage_is_slowed_down_for_its_own_pod_only() {
    let (fake, store, _) = generous(SOON);
    let started = Instant::now();
    let mut n = 0;
    while started.elapsed() < MINUTE {
        let _ = ask(&store, pod(1), &format!("bad{n}")).await;
        sleep(Duration::from_millis(100)).await;
        n += 1;
    }
    assert!(fake.calls().len() < 30, "{}", fake.calls().len());
    let started = Instant::now();
    assert!(ask(&store, pod(2), "good").await.is_ok());
    assert_eq!(started.elapsed(), SOON);
}

/// What is told at once, and what is not.
fn look_up(store: &TestStore, claimant: Claimant, token: &str) -> Option<RequestResult> {
    store.look_up(&claimant, &Token::new(token).digest())
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_answered_from_memory_for_as_long_as_it_is_remembered() {
    let (fake, store, _) = generous(SOON);
    assert!(look_up(&store, pod(1), "bad").is_none(), "nobody has asked");
    assert!(was_refused(&ask(&store, pod(1), "bad").await));
    ask(&store, pod(1), "good").await.unwrap();
    assert!(was_refused(&look_up(&store, pod(1), "bad").unwrap()));
    assert!(look_up(&store, pod(1), "good").unwrap().is_ok());
    assert!(look_up(&store, pod(2), "bad").is_none(), "of another pod");
    assert_eq!(
        store.metric("podcreds_cache_requests_total{result=\"refused\"}"),
        1
    );
    sleep(Duration::from_secs(4)).await;
    assert!(
        look_up(&store, pod(1), "bad").is_none(),
        "EKS Auth is asked again"
    );
    assert_eq!(fake.calls(), ["bad", "good"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_bearers_token_is_remembered_for_that_token_only() {
    let (_fake, store, _) = generous(SOON);
    assert!(was_refused(&ask(&store, bearer(1, Some(1)), "bad").await));
    assert!(was_refused(
        &look_up(&store, bearer(2, None), "bad").unwrap()
    ));
    assert!(look_up(&store, bearer(1, Some(1)), "good").is_none());
    assert!(look_up(&store, pod(1), "bad").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_forged_token_is_looked_at_once_in_a_while() {
    let (fake, store, _) = generous_with(SOON, super::rotation::Keys);
    for claimant in [pod(1), bearer(1, Some(1))] {
        for _ in 0..10 {
            assert!(was_refused(&ask(&store, claimant, "forged").await));
            sleep(Duration::from_millis(200)).await;
        }
        assert!(was_refused(&look_up(&store, claimant, "forged").unwrap()));
    }
    assert_eq!(
        store.metric("podcreds_tokens_forged_total"),
        2,
        "once for each of them"
    );
    assert!(fake.calls().is_empty());
}
