//! Pods that have gone, and what came from another agent.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_gone_gets_no_entry_until_a_minute_is_over() {
    let cache = cache();
    insert(&cache, 1, "a");
    insert(&cache, 2, "b");
    let copy = cache.snapshot(&subject(1)).unwrap();
    cache.forget_pod(uid(1));
    assert!(is_woken(&cache).await, "the pause is shorter now");
    assert_eq!(cache.upkeep().pause, MINUTE);
    for _ in 0..59 {
        sleep(SECOND).await;
        cache.upkeep();
        insert(&cache, 1, "a");
        assert!(!cache.inherit(subject(1), copy.clone()));
        assert!(!cache.presence.has(&subject(1)));
        assert_eq!(look(&cache, 1, "a"), "nothing");
        assert_eq!(entries(&cache), 1);
    }
    sleep(SECOND).await;
    cache.upkeep();
    assert!(cache.presence.has(&subject(1)));
    insert(&cache, 1, "a");
    assert_eq!(look(&cache, 1, "a"), "fresh a");
    assert_eq!(look(&cache, 2, "b"), "fresh b");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_known_to_have_gone_gets_no_entry_until_it_is_back() {
    let cache = cache();
    let is_there = Arc::new(AtomicBool::new(true));
    let known = Arc::clone(&is_there);
    cache.keep_only_pods(move |_| known.load(Relaxed));
    insert(&cache, 1, "a");
    is_there.store(false, Relaxed);
    cache.forget_pod(uid(1));
    for _ in 0..5 {
        sleep(MINUTE).await;
        cache.upkeep();
        insert(&cache, 1, "a");
        assert_eq!(look(&cache, 1, "a"), "nothing");
    }
    assert_empty(&cache);
    // One that comes back at once, as a static pod does, waits for no minute.
    is_there.store(true, Relaxed);
    insert(&cache, 1, "a");
    cache.forget_pod(uid(1));
    assert_eq!(look(&cache, 1, "a"), "nothing");
    insert(&cache, 1, "a");
    assert_eq!(look(&cache, 1, "a"), "fresh a");
}

#[tokio::test(start_paused = true)]
async fn the_first_account_of_the_pods_stays() {
    let cache = cache();
    cache.keep_only_pods(|_| true);
    cache.keep_only_pods(|_| false);
    insert(&cache, 1, "a");
    assert_eq!(look(&cache, 1, "a"), "fresh a");
}

#[tokio::test(start_paused = true)]
async fn a_single_tokens_entry_needs_no_pod() {
    let cache = cache();
    cache.keep_only_pods(|_| false);
    let token = Subject::Token(digest("a"));
    cache.insert(token, fetched(&cache, "a", HOUR, true));
    assert!(matches!(cache.get(&token, &digest("a")), Lookup::Fresh(..)));
}

#[tokio::test(start_paused = true)]
async fn only_what_was_inherited_is_disowned() {
    let cache = cache();
    insert(&cache, 1, "a");
    insert(&cache, 2, "b");
    let copy = cache.snapshot(&subject(2)).unwrap();
    cache.forget(&subject(2));
    assert!(cache.inherit(subject(2), copy));
    cache.disown_all_but(&HashSet::from([subject(2)]));
    assert_eq!(entries(&cache), 2);
    cache.disown(&subject(1));
    assert_eq!(entries(&cache), 2);
    cache.disown(&subject(2));
    assert_eq!(look(&cache, 1, "a"), "fresh a");
    assert_eq!(look(&cache, 2, "b"), "nothing");
}
