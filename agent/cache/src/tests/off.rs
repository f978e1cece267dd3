//! Answers that wait for their clients where the cache is off.

use super::*;

fn caches() -> [Cache; 2] {
    [with(0, 3 * HOUR), with(2000, Duration::ZERO)]
}

#[tokio::test(start_paused = true)]
async fn a_parked_answer_is_taken_once_and_by_its_own_token() {
    for cache in caches() {
        assert!(cache.is_off());
        insert(&cache, 1, "a");
        assert_eq!(look(&cache, 1, "b"), "nothing");
        assert_eq!(look(&cache, 2, "a"), "nothing");
        sleep(9 * SECOND).await;
        cache.upkeep();
        assert_eq!(look(&cache, 1, "a"), "fresh a");
        assert_eq!(look(&cache, 1, "a"), "nothing");
        assert_empty(&cache);
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_answer_is_gone_after_ten_seconds() {
    for cache in caches() {
        insert(&cache, 1, "a");
        insert(&cache, 2, "b");
        let pause = cache.upkeep().pause;
        assert!(pause <= 10 * SECOND, "{pause:?}");
        sleep(10 * SECOND).await;
        assert_eq!(look(&cache, 1, "a"), "nothing");
        cache.upkeep();
        assert_empty(&cache);
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_answer_is_no_copy_and_makes_no_room() {
    for cache in caches() {
        (0..20).for_each(|pod| insert(&cache, pod, "a"));
        assert_eq!((entries(&cache), cache.metrics.evictions.get()), (20, 0));
        assert!(cache.snapshot(&subject(1)).is_none());
        assert!(!cache.has_for_others(&subject(1), &digest("b")));
        assert!(cache.later(&subject(1), cache.clock().now()).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_answer_is_taken_beside_a_refusal_which_stays() {
    for cache in caches() {
        insert(&cache, 1, "a");
        refuse(&cache, 1, "bad", Takes::All);
        assert_eq!(look(&cache, 1, "bad"), "refused");
        assert_eq!(look(&cache, 1, "a"), "fresh a");
        assert_eq!(look(&cache, 1, "bad"), "refused");
        assert_eq!(entries(&cache), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_answer_is_not_renewed() {
    for cache in caches() {
        insert(&cache, 1, "a");
        assert!(due(&cache).is_empty());
    }
}
