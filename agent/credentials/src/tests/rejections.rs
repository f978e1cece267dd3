//! Requests that EKS Auth rejects for what is in them: one token's trouble, and nobody else's.

use super::*;

/// EKS Auth says this to tokens that begin with "odd", and gives all others six hours.
fn picky() -> (Fake, TestStore, Clock) {
    let (fake, store, clock) = generous(SOON);
    fake.now(move |token| match token.starts_with("odd") {
        true => Err(UpstreamError::Rejected {
            code: "InvalidParameterException".to_owned(),
            message: "token is no token".to_owned(),
        }),
        false => Ok(credentials(token, clock.now() + 6 * HOUR)),
    });
    (fake, store, clock)
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_told_so_at_once_and_may_come_back() {
    let (fake, store, clock) = picky();
    let started = Instant::now();
    let Err(CredentialError::NotReady { reason, .. }) = ask(&store, pod(1), "odd").await else {
        panic!("not told to come back");
    };
    assert!(
        reason.contains("InvalidParameterException: token is no token"),
        "{reason}"
    );
    assert_eq!(started.elapsed(), SOON);
    fake.now(move |token| Ok(credentials(token, clock.now() + 6 * HOUR)));
    sleep(Duration::from_secs(4)).await;
    assert!(ask(&store, pod(1), "odd").await.is_ok(), "it was not final");
}

#[tokio::test(start_paused = true)]
async fn rejections_are_no_outage_and_hold_nobody_else_up() {
    let (fake, store, _) = picky();
    for n in 0..60 {
        assert!(not_ready(
            &ask(&store, pod(1), &format!("odd{}", n % 3)).await
        ));
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(store.metric("podcreds_upstream_consecutive_failures"), 0);
    let calls = fake.calls().len();
    assert!(calls < 30, "{calls} in a minute for three tokens");
    let rejected = "podcreds_exchange_attempts_total{outcome=\"rejected\",purpose=\"asked\"}";
    assert_eq!(store.metric(rejected), calls as i64);
    let started = Instant::now();
    assert!(ask(&store, pod(2), "good").await.is_ok());
    assert_eq!(started.elapsed(), SOON);
}

/// An outage is neither made by such a token nor hidden by it.
#[tokio::test(start_paused = true)]
async fn a_rejected_token_does_not_hide_an_outage() {
    let (fake, store, _) = picky();
    fake.now(|token| match token.starts_with("odd") {
        true => Err(UpstreamError::Rejected {
            code: "InvalidParameterException".to_owned(),
            message: "token is no token".to_owned(),
        }),
        false => Err(UpstreamError::unavailable("down")),
    });
    for n in 0..5 {
        assert!(not_ready(&ask(&store, pod(1), &format!("good{n}")).await));
        assert!(not_ready(&ask(&store, pod(2), &format!("odd{n}")).await));
    }
    assert!(store.metric("podcreds_upstream_consecutive_failures") >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_rejected_takes_nothing() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    sleep(2 * MINUTE).await;
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(|_| {
        Err(UpstreamError::Rejected {
            code: "ValidationException".to_owned(),
            message: "no".to_owned(),
        })
    });
    sleep(5 * HOUR).await;
    assert!(fake.calls().len() > 10, "it is tried again");
    assert!(ask(&store, pod(1), "a").await.is_ok());
    sleep(50 * MINUTE).await;
    assert!(ask(&store, pod(1), "a").await.is_ok(), "stale, and valid");
    let errors = "pod_identity_cache_errors{code=\"ValidationException\",type=\"Recoverable\"}";
    assert!(store.metric(errors) > 10);
}
