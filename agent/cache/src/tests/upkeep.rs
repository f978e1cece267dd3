//! What is due without a request, and when to look again.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_empty_cache_is_looked_at_every_five_minutes() {
    let cache = cache();
    assert_eq!(cache.upkeep().pause, LONGEST_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_live_long_do_not_make_the_pause_longer_than_five_minutes() {
    let cache = cache();
    insert(&cache, 1, "a");
    assert_eq!(cache.upkeep().pause, LONGEST_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn the_pause_ends_when_the_first_renewal_is_due() {
    let cache = cache();
    insert(&cache, 1, "a");
    // Due within two thirds of their lives.
    for (pod, life) in [(2, 4 * MINUTE), (3, 6 * MINUTE)] {
        cache.insert(subject(pod), fetched(&cache, "b", life, true));
    }
    let pause = cache.upkeep().pause;
    assert!(pause >= 136 * SECOND && pause <= 160 * SECOND, "{pause:?}");
    sleep(pause - SECOND).await;
    assert!(due(&cache).is_empty());
    sleep(SECOND).await;
    assert_eq!(due(&cache), [subject(2)]);
    // When it fails, it is due again a while later.
    cache.postpone(&subject(2));
    assert!(cache.failing().eq([subject(2)]));
    let upkeep = cache.upkeep();
    assert!(upkeep.due.is_empty());
    assert!(upkeep.pause >= 5 * SECOND && upkeep.pause <= 10 * SECOND);
    sleep(upkeep.pause).await;
    assert_eq!(due(&cache), [subject(2)]);
}

#[tokio::test(start_paused = true)]
async fn what_expires_first_is_renewed_first() {
    let cache = cache();
    for (pod, life) in [(1, 6 * HOUR), (2, 5 * HOUR), (3, 7 * HOUR)] {
        cache.insert(subject(pod), fetched(&cache, "a", life, true));
    }
    sleep(4 * HOUR).await;
    assert_eq!(due(&cache), [subject(2), subject(1), subject(3)]);
}

#[tokio::test(start_paused = true)]
async fn the_pause_ends_when_expired_credentials_are_to_be_dropped() {
    let cache = cache();
    let ours = fetched(&cache, "a", 2 * MINUTE, false);
    cache.insert(subject(1), ours);
    assert_eq!(cache.upkeep().pause, LONGEST_PAUSE, "two less than seven");
    sleep(4 * MINUTE).await;
    assert_eq!(cache.upkeep().pause, 3 * MINUTE);
    sleep(3 * MINUTE - SECOND).await;
    cache.upkeep();
    assert_eq!(entries(&cache), 1);
    sleep(SECOND).await;
    cache.upkeep();
    assert_empty(&cache);
    assert_eq!(cache.upkeep().pause, LONGEST_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn the_pause_ends_when_a_refusal_is_to_be_forgotten() {
    let cache = cache();
    insert(&cache, 2, "b");
    for pod in [1, 2] {
        refuse(&cache, pod, "bad", Takes::All);
    }
    assert_eq!(cache.upkeep().pause, REMEMBERED);
    sleep(REMEMBERED - SECOND).await;
    assert_eq!(cache.upkeep().pause, SECOND);
    assert!(cache.was_refused(&subject(1), &digest("bad")));
    sleep(SECOND).await;
    cache.upkeep();
    assert!(!cache.was_refused(&subject(1), &digest("bad")));
    assert!(!cache.was_refused(&subject(2), &digest("bad")));
    assert_eq!(cache.metrics.refusals.get(), 0);
    assert_eq!(cache.entries.len(), 1);
    assert_eq!(cache.upkeep().pause, LONGEST_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn the_pause_is_never_shorter_than_a_second() {
    let cache = cache();
    refuse(&cache, 1, "bad", Takes::All);
    sleep(REMEMBERED - SECOND / 10).await;
    assert_eq!(cache.upkeep().pause, SECOND);
}

#[tokio::test(start_paused = true)]
async fn asking_for_an_overdue_entry_wakes_and_asking_for_others_does_not() {
    let cache = cache();
    cache.insert(subject(1), fetched(&cache, "a", 4 * MINUTE, false));
    cache.insert(subject(2), fetched(&cache, "b", HOUR, false));
    sleep(3 * MINUTE).await;
    assert!(due(&cache).is_empty(), "no request has asked");
    assert_eq!(look(&cache, 2, "b"), "fresh b");
    assert!(!is_woken(&cache).await, "not due");
    assert_eq!(look(&cache, 1, "wrong"), "nothing");
    assert!(!is_woken(&cache).await, "none of its tokens");
    assert_eq!(look(&cache, 1, "a"), "stale a");
    assert!(is_woken(&cache).await);
    assert_eq!(due(&cache), [subject(1)]);
    assert_eq!(look(&cache, 1, "a"), "stale a");
    assert!(!is_woken(&cache).await, "it is known to be asked for");
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_not_served_and_are_dropped_some_minutes_later() {
    let cache = cache();
    cache.insert(subject(1), fetched(&cache, "a", HOUR, true));
    sleep(HOUR - SECOND).await;
    assert_eq!(look(&cache, 1, "a"), "stale a");
    sleep(SECOND).await;
    assert_eq!(look(&cache, 1, "a"), "nothing");
    assert!(!cache.has_for_others(&subject(1), &digest("b")));
    let upkeep = cache.upkeep();
    assert!(
        upkeep.due.is_empty(),
        "what has expired is not renewed unasked"
    );
    assert_eq!(upkeep.pause, 5 * MINUTE);
    assert_eq!(entries(&cache), 1);
    sleep(upkeep.pause).await;
    cache.upkeep();
    assert_empty(&cache);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_overdue_when_it_failed_or_has_not_come_within_a_minute() {
    let cache = cache();
    cache.insert(subject(1), fetched(&cache, "a", HOUR, true));
    cache.insert(subject(2), fetched(&cache, "b", HOUR, false));
    // Two thirds of their life at the latest.
    sleep(34 * MINUTE - SECOND).await;
    assert_eq!(cache.overdue(), 0);
    sleep(7 * MINUTE + SECOND).await;
    assert_eq!(cache.overdue(), 1, "no request has asked for the other");
    // The next try is minutes away, and it is overdue nevertheless.
    cache.postpone(&subject(1));
    assert_eq!(cache.overdue(), 1);
    cache.insert(subject(1), fetched(&cache, "a", HOUR, true));
    assert_eq!(cache.overdue(), 0);
}
