//! An operator has credentials fetched again, and looks at what there is.

use podcreds_cache::Summary;

use super::*;

const SHORT: Duration = Duration::from_secs(10 * 60);

/// What there is of the only pod.
fn only(store: &TestStore) -> Summary {
    let mut all = store.cache().summaries();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn role(store: &TestStore) -> String {
    only(store).role.unwrap().to_string()
}

/// Has EKS Auth answer with another role, whose credentials live so long.
fn change_role(fake: &Fake, clock: Clock, role: &'static str, life: Duration) {
    fake.now(move |token| {
        let mut credentials = credentials(token, clock.now() + life);
        credentials.role = role.to_owned();
        Ok(credentials)
    });
}

#[tokio::test(start_paused = true)]
async fn a_refresh_replaces_credentials_that_would_be_good_for_longer() {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    change_role(&fake, clock, "other", SHORT);
    store.refresh(Subject::Pod(uid(1))).await.unwrap();
    assert_eq!(role(&store), "other");
    assert_eq!(only(&store).expiration, clock.now() + SHORT);
    assert_eq!(fake.calls(), ["a", "a"]);
    assert!(ask(&store, pod(1), "a").await.is_ok());
    assert_eq!(fake.calls().len(), 2, "a pod gets the new ones");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_waits_for_no_call_that_went_out_before() {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    // Twice the retention: there was one renewal, and the next is due once a pod asks.
    sleep(6 * HOUR + MINUTE).await;
    let before = fake.calls().len();
    fake.slow(20 * SOON);
    // Sets off the renewal: the old role's, by this call.
    let asking = store.clone();
    let asking = tokio::spawn(async move { ask(&asking, pod(1), "a").await });
    settle().await;
    assert_eq!(fake.in_air(), 1);
    fake.slow(SOON);
    change_role(&fake, clock, "other", HOUR);
    store.refresh(Subject::Pod(uid(1))).await.unwrap();
    assert_eq!((role(&store).as_str(), fake.in_air()), ("other", 0));
    assert_eq!(fake.calls().len(), before + 2);
    assert!(asking.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_refused_says_so_and_takes_the_credentials() {
    let (fake, store, _) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(|_| Err(refused()));
    let refreshed = store.refresh(Subject::Pod(uid(1))).await;
    let words = refreshed.unwrap_err().to_string();
    assert_eq!(words, "ResourceNotFoundException: no association");
    assert!(store.cache().summaries().is_empty());
    let report = store.report().await.unwrap();
    assert_eq!(&*report.errors[0].1.message, words);
    // Without credentials there is no token.
    let words = store.refresh(Subject::Pod(uid(1))).await.unwrap_err();
    assert!(words.to_string().contains("when it asks"), "{words}");
    store.forget(uid(1));
    assert!(store.report().await.unwrap().errors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_goes_on_trying_and_keeps_what_there_is_meanwhile() {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    let refreshing = store.clone();
    let refreshing = tokio::spawn(async move { refreshing.refresh(Subject::Pod(uid(1))).await });
    sleep(Duration::from_secs(2)).await;
    let report = store.report().await.unwrap();
    let exchanging = report.exchanging.iter().map(|(subject, _)| *subject);
    assert_eq!(exchanging.collect::<Vec<_>>(), [Subject::Pod(uid(1))]);
    assert!(report.upstream.failures_in_a_row > 1);
    assert!(ask(&store, pod(1), "a").await.is_ok());
    change_role(&fake, clock, "other", HOUR);
    refreshing.await.unwrap().unwrap();
    assert_eq!(role(&store), "other");
}

/// They are renewed at two thirds of their life, as all are, and not before.
#[tokio::test(start_paused = true)]
async fn short_credentials_give_way_to_longer_ones_at_two_thirds_of_their_life() {
    let (fake, store, clock) = generous(SOON);
    change_role(&fake, clock, "short", SHORT);
    ask(&store, pod(1), "a").await.unwrap();
    change_role(&fake, clock, "long", 6 * HOUR);
    sleep(SHORT / 2).await;
    assert_eq!(role(&store), "short");
    sleep(SHORT / 6 + Duration::from_secs(2)).await;
    assert_eq!(role(&store), "long");
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_summary_says_when_credentials_came_and_when_they_were_asked_for() {
    let (_, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    let came = clock.now();
    sleep(MINUTE).await;
    ask(&store, pod(1), "a").await.unwrap();
    let asked = clock.now();
    sleep(MINUTE).await;
    let summary = only(&store);
    let since = |time| clock.now().duration_since(time).unwrap().as_secs();
    assert_eq!(since(summary.renewed), since(came));
    assert_eq!(since(summary.last_asked.unwrap()), since(asked));
    assert!(!summary.is_stale && !summary.has_expired && !summary.is_followed);
}
