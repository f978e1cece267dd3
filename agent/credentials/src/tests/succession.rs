//! What one agent's store hands over to the next one's.

use std::{collections::HashSet, sync::Arc};

use podcreds_types::{EksRefusal, RefusalKind, TokenDigest};
use proptest::prelude::*;

use super::{rotation::Keys, *};

/// Tells `heir` what `changes` has to tell by now, in bytes as between two processes.
fn tell(changes: &Changes, heir: &Store) -> Vec<Subject> {
    let mut told = Vec::new();
    while let Some(change) = changes.take() {
        told.push(change.subject());
        let bytes = change.encode().unwrap();
        heir.inherit(Change::decode(&bytes).unwrap());
    }
    told
}

fn digest(token: &str) -> TokenDigest {
    Token::new(token).digest()
}

fn subject(pod: u16) -> Subject {
    Subject::Pod(uid(pod))
}

/// The tokens of these that a store serves somebody from memory.
fn served<'a>(store: &Store, claimant: Claimant, tokens: &[&'a str]) -> Vec<&'a str> {
    let at_hand = |token: &&&str| store.cached(&claimant, &digest(token)).is_some();
    tokens.iter().filter(at_hand).copied().collect()
}

/// A store with the credentials of pods 1 and 2, who tells of it, and the store that comes after it.
async fn two_stores() -> (Fake, Store, Changes, Fake, Store) {
    let (fake, store, clock) = generous(SOON);
    ask(&store, pod(1), "a").await.unwrap();
    ask(&store, pod(2), "b").await.unwrap();
    let next = Fake::new(SOON, move |token| {
        Ok(credentials(token, clock.now() + 6 * HOUR))
    });
    let heir = next.store(Config::default(), clock);
    heir.set_following(true);
    let changes = store.changes();
    (fake, store, changes, next, heir)
}

#[tokio::test(start_paused = true)]
async fn the_heir_serves_the_same_tokens_and_no_others() {
    let (_fake, store, changes, next, heir) = two_stores().await;
    for token in ["a1", "a2", "a3", "a4", "a5"] {
        ask(&store, pod(1), token).await.unwrap();
    }
    assert_eq!(tell(&changes, &heir), [subject(1), subject(2)]);
    let tokens = ["a", "a1", "a2", "a3", "a4", "a5", "b", "", "A"];
    for claimant in [pod(1), pod(2), pod(3)] {
        let before = served(&store, claimant, &tokens);
        assert_eq!(served(&heir, claimant, &tokens), before, "{claimant:?}");
    }
    assert_eq!(served(&heir, pod(1), &tokens), ["a2", "a3", "a4", "a5"]);
    assert!(served(&heir, bearer(1, None), &tokens).is_empty());
    assert!(next.calls().is_empty());
    let body = heir.cached(&pod(1), &digest("a5")).unwrap();
    assert_eq!(body, store.cached(&pod(1), &digest("a5")).unwrap());
    let (ours, theirs) = (&store.0.metrics, &heir.0.metrics);
    assert_eq!(theirs.entries.get(), 2);
    assert_eq!(theirs.bytes.get(), ours.bytes.get());
}

#[tokio::test(start_paused = true)]
async fn what_changes_later_is_told_once() {
    let (fake, store, changes, _next, heir) = two_stores().await;
    store.trust(Arc::new(Keys));
    tell(&changes, &heir);
    assert_eq!(tell(&changes, &heir), [], "nothing has changed");

    let waits = tokio::spawn(async move {
        changes.wait().await;
        changes
    });
    ask(&store, pod(3), "genuine-3-a").await.unwrap();
    let changes = waits.await.unwrap();
    assert_eq!(tell(&changes, &heir), [subject(3)]);
    ask(&store, pod(3), "genuine-3-b").await.unwrap();
    assert_eq!(tell(&changes, &heir), [subject(3)], "a token was adopted");
    let tokens = ["genuine-3-a", "genuine-3-b"];
    assert_eq!(served(&heir, pod(3), &tokens), tokens);

    store.forget(uid(1));
    fake.now(|_| Err(refused()));
    // Past the age at which they are refreshed: what EKS Auth then refuses is taken from both.
    sleep(2 * MINUTE).await;
    ask(&store, pod(2), "b").await.unwrap();
    sleep(3 * HOUR).await;
    let told: HashSet<_> = tell(&changes, &heir).into_iter().collect();
    assert!(
        told.is_superset(&[subject(1), subject(2)].into()),
        "{told:?}"
    );
    assert!(served(&heir, pod(1), &["a"]).is_empty());
    assert!(served(&heir, pod(2), &["b"]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_one_of_both_refreshes() {
    let (fake, store, changes, next, heir) = two_stores().await;
    tell(&changes, &heir);
    sleep(3 * HOUR + MINUTE).await;
    let mut calls = fake.calls();
    calls.sort();
    assert_eq!(calls, ["a", "a", "b", "b"]);
    assert!(next.calls().is_empty(), "{:?}", next.calls());
    // That they have asked is told as well; the older agent ends before it could refresh again.
    ask(&store, pod(1), "a").await.unwrap();
    tell(&changes, &heir);
    heir.set_following(false);
    fake.now(|_| Err(UpstreamError::unavailable("ended")));
    sleep(3 * HOUR).await;
    assert_eq!(next.calls(), ["a"], "nobody has asked for the other one");
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_not_on_the_node_leave_nothing() {
    let (_fake, store, changes, _next, heir) = two_stores().await;
    let entries = || heir.0.metrics.entries.get();
    tell(&changes, &heir);
    let gone = Arc::new(std::sync::Mutex::new(HashSet::from([uid(1)])));
    let census = Arc::clone(&gone);
    heir.count_pods(move |pod| !census.lock().unwrap().contains(&pod));
    assert!(served(&heir, pod(1), &["a"]).is_empty());
    assert_eq!(served(&heir, pod(2), &["b"]), ["b"]);
    assert_eq!(entries(), 1);

    ask(&store, pod(1), "a2").await.unwrap();
    ask(&store, pod(3), "c").await.unwrap();
    assert_eq!(tell(&changes, &heir), [subject(1), subject(3)]);
    assert_eq!(entries(), 2);
    gone.lock().unwrap().insert(uid(3));
    heir.forget(uid(3));
    ask(&store, pod(3), "c2").await.unwrap();
    assert_eq!(tell(&changes, &heir), [subject(3)]);
    assert_eq!(entries(), 1, "it went while it was being told of");

    // Whose claims nobody has verified is no pod that could be looked for.
    ask(&store, bearer(1, None), "d").await.unwrap();
    tell(&changes, &heir);
    assert_eq!(served(&heir, bearer(1, None), &["d"]), ["d"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_heir_has_got_itself_stays() {
    let (_fake, store, changes, next, heir) = two_stores().await;
    sleep(MINUTE).await;
    ask(&heir, pod(1), "a-newer").await.unwrap();
    tell(&changes, &heir);
    assert_eq!(served(&heir, pod(1), &["a", "a-newer"]), ["a-newer"]);
    store.forget(uid(1));
    tell(&changes, &heir);
    assert_eq!(served(&heir, pod(1), &["a", "a-newer"]), ["a-newer"]);
    // Unless it is older. By now the pod's end is forgotten.
    sleep(2 * MINUTE).await;
    ask(&store, pod(1), "a-newest").await.unwrap();
    tell(&changes, &heir);
    assert_eq!(
        served(&heir, pod(1), &["a-newer", "a-newest"]),
        ["a-newest"]
    );
    assert_eq!(next.calls(), ["a-newer"]);
}

/// Has the older agent's refreshes fail until credentials are stale, so that the heir asks EKS Auth itself and is told
/// `no`; then the older one tells once more what it has.
async fn told_again_after(no: UpstreamError) -> (Fake, Store, Changes, Fake, Store) {
    let (fake, store, changes, next, heir) = two_stores().await;
    tell(&changes, &heir);
    fake.now(|_| Err(UpstreamError::unavailable("down")));
    next.now(move |_| Err(no.clone()));
    sleep(6 * HOUR - 10 * MINUTE).await;
    assert!(was_refused(&ask(&heir, pod(1), "a").await));
    assert!(tell(&changes, &heir).contains(&subject(1)));
    (fake, store, changes, next, heir)
}

#[tokio::test(start_paused = true)]
async fn what_eks_auth_has_refused_the_heir_is_not_told_back_in() {
    let (fake, store, changes, next, heir) = told_again_after(refused()).await;
    assert_eq!(heir.0.metrics.entries.get(), 1, "only the other pod's");
    assert!(heir.cached(&pod(1), &digest("a")).is_none());
    assert!(was_refused(&ask(&heir, pod(1), "a").await));
    let everything = store.changes();
    tell(&everything, &heir);
    assert!(was_refused(&ask(&heir, pod(1), "a").await));

    // What the older one gets later is news.
    let expiration = store.0.clock.now() + 6 * HOUR;
    fake.now(move |token| Ok(credentials(token, expiration)));
    sleep(6 * MINUTE).await;
    tell(&changes, &heir);
    assert_eq!(served(&heir, pod(1), &["a"]), ["a"]);
    next.now(|_| panic!("there is no need to ask"));
    ask(&heir, pod(1), "a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_eks_auth_has_refused_the_heir_is_not_told_back_in() {
    let no = UpstreamError::Refused(EksRefusal {
        kind: RefusalKind::BadToken,
        code: "ExpiredTokenException".to_owned(),
        message: "too late".to_owned(),
    });
    let (_fake, _store, _changes, _next, heir) = told_again_after(no).await;
    assert_eq!(heir.0.metrics.entries.get(), 2);
    assert!(!heir.0.cache.accepts(&subject(1), &digest("a")));
    assert!(heir.0.cache.accepts(&subject(2), &digest("b")));
}

#[tokio::test(start_paused = true)]
async fn what_was_told_on_a_connection_that_broke_is_not_believed_for_ever() {
    let (_fake, store, changes, _next, heir) = two_stores().await;
    tell(&changes, &heir);
    ask(&heir, pod(3), "own").await.unwrap();
    // Nobody hears of this.
    store.forget(uid(1));
    let told = tell(&store.changes(), &heir);
    heir.disown_all_but(&told.into_iter().collect());
    assert!(served(&heir, pod(1), &["a"]).is_empty());
    assert_eq!(served(&heir, pod(2), &["b"]), ["b"]);
    assert_eq!(served(&heir, pod(3), &["own"]), ["own"]);
}

#[tokio::test(start_paused = true)]
async fn other_settings_hold_for_what_is_inherited() {
    let (_fake, store, changes, next, _) = two_stores().await;
    let off = next.store(
        Config {
            capacity: 0,
            ..Config::default()
        },
        store.0.clock,
    );
    tell(&changes, &off);
    assert_eq!(off.0.metrics.entries.get(), 0);
    assert_eq!(tell(&off.changes(), &store), []);

    let small = Config {
        capacity: 1,
        retention: HOUR,
        ..Config::default()
    };
    let small = next.store(small, store.0.clock);
    ask(&store, pod(1), "a").await.unwrap();
    tell(&store.changes(), &small);
    assert_eq!(served(&small, pod(1), &["a"]), ["a"], "used last");
    assert!(served(&small, pod(2), &["b"]).is_empty());
    sleep(HOUR + MINUTE).await;
    assert_eq!(next.calls(), ["a"], "refreshed after the shorter retention");
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_not_taken_in() {
    let (_fake, _store, changes, _next, heir) = two_stores().await;
    let late = changes.take().unwrap();
    let bytes = late.encode().unwrap();
    sleep(6 * HOUR).await;
    assert!(!heir.inherit(Change::decode(&bytes).unwrap()));
    assert_eq!(heir.0.metrics.entries.get(), 0);
}

proptest! {
    /// Whoever writes into the socket must be root, but may be another build.
    #[test]
    fn bytes_that_are_no_change_are_told_from_one(bytes: Vec<u8>, cut in 0usize..300) {
        prop_assert!(Change::decode(&bytes).is_none());
        let dropped = Change::decode(br#"{"subject":{"pod":1},"kept":null}"#).unwrap();
        let whole = dropped.encode().unwrap();
        let cut = cut.min(whole.len() - 1);
        prop_assert!(Change::decode(&whole[..cut]).is_none());
    }
}
