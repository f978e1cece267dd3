//! What makes room for what, and what is left when all has gone.

use super::*;

/// A way for credentials to go, and what it is called.
type Way = (&'static str, fn(&Cache));

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_credentials_make_room_and_refusals_do_not_count() {
    let cache = with(2, 3 * HOUR);
    for pod in 10..20 {
        refuse(&cache, pod, "bad", Takes::All);
    }
    insert(&cache, 1, "a");
    insert(&cache, 2, "b");
    assert_eq!((entries(&cache), cache.metrics.evictions.get()), (2, 0));
    assert_eq!(look(&cache, 1, "a"), "fresh a");
    insert(&cache, 3, "c");
    assert_eq!(look(&cache, 1, "a"), "fresh a");
    assert_eq!(look(&cache, 2, "b"), "nothing");
    assert_eq!(look(&cache, 3, "c"), "fresh c");
    assert_eq!((entries(&cache), cache.metrics.evictions.get()), (2, 1));
    for pod in 10..20 {
        assert!(cache.was_refused(&subject(pod), &digest("bad")), "{pod}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_makes_room_keeps_its_refusals() {
    let cache = with(1, 3 * HOUR);
    insert(&cache, 1, "a");
    refuse(&cache, 1, "bad", Takes::All);
    insert(&cache, 2, "b");
    assert_eq!(look(&cache, 1, "a"), "nothing");
    assert_eq!(look(&cache, 1, "bad"), "refused");
    assert_eq!((cache.metrics.evictions.get(), entries(&cache)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn credentials_that_replace_others_make_no_room() {
    let cache = with(2, 3 * HOUR);
    insert(&cache, 1, "a");
    insert(&cache, 2, "b");
    insert(&cache, 1, "a2");
    assert_eq!(look(&cache, 1, "a"), "fresh a2");
    assert_eq!(look(&cache, 2, "b"), "fresh b");
    assert_eq!(cache.metrics.evictions.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_all_is_gone_all_gauges_are_at_zero() {
    let cache = with(3, 3 * HOUR);
    let ways: [Way; 4] = [
        ("forgotten", |cache| cache.forget_pod(uid(1))),
        ("refused", |cache| {
            refuse(cache, 1, "a", Takes::All);
        }),
        ("evicted", |cache| {
            (2..5).for_each(|pod| insert(cache, pod, "e"));
        }),
        ("off the node", |cache| cache.keep_only_pods(|_| false)),
    ];
    for (way, go) in ways {
        cache.presence.sweep(Duration::MAX);
        insert(&cache, 1, "a");
        assert!(cache.adopt(&subject(1), Token::new("a-long-token-that-is-verified")));
        insert(&cache, 1, "a3");
        insert(&cache, 1, "a");
        refuse(&cache, 1, "a3", Takes::Token);
        refuse(&cache, 1, "forged", Takes::Nothing);
        if way == "off the node" {
            let snapshot = cache.snapshot(&subject(1)).unwrap();
            cache.forget(&subject(1));
            assert!(cache.inherit(subject(1), snapshot));
        }
        assert!(cache.metrics.bytes.get() > 0);
        go(&cache);
        assert_eq!(
            look(&cache, 1, "a-long-token-that-is-verified"),
            "nothing",
            "{way}"
        );
        (2..5).for_each(|pod| cache.forget(&subject(pod)));
        assert_eq!(cache.metrics.bytes.get(), 0, "{way}");
        assert_eq!(entries(&cache), 0, "{way}");
        sleep(2 * MINUTE).await;
        cache.upkeep();
        assert_empty(&cache);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_forgiven_leaves_nothing_behind() {
    let cache = cache();
    for n in 0..100u16 {
        refuse(&cache, n, "a", Takes::All);
        assert!(cache.forgive(&subject(n), &digest("a")));
        assert!(!cache.forgive(&subject(n), &digest("a")));
    }
    cache.upkeep();
    assert_empty(&cache);
}

#[tokio::test(start_paused = true)]
async fn looking_for_what_is_not_there_makes_no_entries() {
    for cache in [cache(), with(0, 3 * HOUR)] {
        let (nobody, token) = (subject(1), Token::new("a"));
        assert_eq!(look(&cache, 1, "a"), "nothing");
        assert!(!cache.adopt(&nobody, token.clone()));
        assert!(!cache.forgive(&nobody, &token.digest()));
        cache.postpone(&nobody);
        cache.disown(&nobody);
        cache.forget(&nobody);
        assert_empty(&cache);
    }
}
