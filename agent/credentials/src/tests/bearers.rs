//! Callers that are known by their tokens alone.

use futures_util::future::join_all;

use super::{rotation::Keys, *};

#[tokio::test(start_paused = true)]
async fn a_genuine_token_and_its_pod_share_everything() {
    let (fake, store, _) = generous_with(SOON, Keys);
    let body = ask(&store, bearer(1, Some(1)), "genuine-1-a")
        .await
        .unwrap();
    // The pod itself, identified by the kernel; and its rotated token from another address.
    for (claimant, token) in [
        (pod(1), "genuine-1-a"),
        (bearer(2, Some(1)), "genuine-1-b"),
        (pod(1), "genuine-1-b"),
    ] {
        assert_eq!(ask(&store, claimant, token).await.unwrap(), body);
    }
    assert_eq!(fake.calls(), ["genuine-1-a"]);
    assert_eq!(store.metric("podcreds_cache_entries"), 1);
    store.forget(uid(1));
    assert_eq!(
        store.metric("podcreds_cache_entries"),
        0,
        "nothing is left of the pod"
    );
}

#[tokio::test(start_paused = true)]
async fn claims_alone_reach_nothing() {
    let (fake, store, clock) = generous_with(SOON, Keys);
    ask(&store, pod(1), "genuine-1-a").await.unwrap();
    // What no key has signed has an exchange and an entry of its own, whatever it claims.
    assert!(is_for(
        &ask(&store, bearer(1, Some(1)), "unknown").await.unwrap(),
        "unknown"
    ));
    assert!(is_for(
        &ask(&store, pod(1), "genuine-1-a").await.unwrap(),
        "genuine-1-a"
    ));
    // And a genuine token of another pod gets what is that pod's.
    let other = ask(&store, bearer(1, Some(1)), "genuine-2-a")
        .await
        .unwrap();
    assert!(is_for(&other, "genuine-2-a"));
    assert!(
        store
            .cached(&pod(2), &Token::new("genuine-2-a").digest())
            .is_some()
    );

    fake.now(move |_| Ok(credentials("stolen", clock.now() + 6 * HOUR)));
    for token in ["forged", "foreign"] {
        assert!(
            was_refused(&ask(&store, bearer(1, Some(1)), token).await),
            "{token}"
        );
    }
    assert_eq!(fake.calls(), ["genuine-1-a", "unknown", "genuine-2-a"]);
    assert_eq!(store.metric("podcreds_tokens_forged_total"), 1);
}

/// Its claims say where to look; that it is the very token that was accepted there is what counts.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_accepted_for_a_pod_is_known_without_keys() {
    let (fake, store, _) = generous(SOON);
    let body = ask(&store, pod(1), "a").await.unwrap();
    assert_eq!(ask(&store, bearer(1, Some(1)), "a").await.unwrap(), body);
    assert_eq!(fake.calls(), ["a"]);
    // Also near the end of its credentials, when EKS Auth is down.
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    sleep(6 * HOUR - 10 * MINUTE).await;
    assert_eq!(ask(&store, bearer(1, Some(1)), "a").await.unwrap(), body);
    assert!(not_ready(&ask(&store, bearer(1, Some(1)), "b").await));
    assert!(not_ready(&ask(&store, bearer(1, Some(2)), "a").await));
}

#[tokio::test(start_paused = true)]
async fn one_caller_takes_no_room_that_others_need() {
    let (_fake, store, _) = generous(HOUR);
    let flood = (0..1000).map(|n| store.fetch(bearer(1, None), Token::new(format!("made-up-{n}"))));
    let outcomes = join_all(flood).await;
    assert!(outcomes.iter().all(not_ready));
    assert_eq!(store.metric("podcreds_exchanges"), 128);
    assert!(not_ready(&ask(&store, bearer(2, None), "other").await));
    assert_eq!(
        store.metric("podcreds_exchanges"),
        129,
        "another one still can"
    );
}

/// The same with keys: while junk is looked at, a genuine token is.
#[tokio::test(start_paused = true)]
async fn verifying_junk_keeps_no_genuine_token_waiting() {
    let (fake, store, _) = generous_with(SOON, Keys);
    let junk = |n: usize| store.fetch(bearer(1, Some(1)), Token::new(format!("forged-{n}")));
    let (flood, genuine) = tokio::join!(
        join_all((0..1000).map(junk)),
        ask(&store, bearer(2, Some(1)), "genuine-1-a")
    );
    let refused = flood.iter().filter(|outcome| was_refused(outcome)).count();
    assert_eq!(refused, 128, "the rest found no room");
    assert!(genuine.is_ok());
    assert_eq!(fake.calls(), ["genuine-1-a"]);
    sleep(MINUTE).await;
    assert!(was_refused(
        &ask(&store, bearer(1, Some(1)), "forged").await
    ));
}

#[tokio::test(start_paused = true)]
async fn requests_with_one_token_share_a_verification_and_a_call() {
    let (fake, store, _) = generous_with(SOON, Keys);
    let crowd = (0..500).map(|_| store.fetch(bearer(1, Some(1)), Token::new("genuine-1-a")));
    assert!(join_all(crowd).await.iter().all(Result::is_ok));
    assert_eq!(fake.calls(), ["genuine-1-a"]);
}
