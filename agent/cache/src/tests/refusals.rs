//! Credentials and refusals in one entry.

use super::*;

#[tokio::test(start_paused = true)]
async fn stale_credentials_are_served_beside_the_rejection_of_their_token() {
    let cache = cache();
    insert(&cache, 1, "a");
    sleep(6 * HOUR - 10 * MINUTE).await;
    assert!(refuse(&cache, 1, "a", Takes::Nothing), "it is news");
    assert!(!refuse(&cache, 1, "a", Takes::Nothing), "it is no news");
    assert_eq!(look(&cache, 1, "a"), "stale a");
    assert!(cache.refusal(&subject(1), &digest("a")).is_some());
    sleep(6 * SECOND).await;
    assert!(cache.refusal(&subject(1), &digest("a")).is_none());
    assert!(cache.was_refused(&subject(1), &digest("a")));
    refuse(&cache, 1, "a", Takes::Nothing);
    sleep(10 * MINUTE).await;
    assert_eq!(look(&cache, 1, "a"), "nothing");
}

#[tokio::test(start_paused = true)]
async fn a_bad_token_loses_the_credentials_and_the_pods_other_tokens_keep_them() {
    let cache = cache();
    insert(&cache, 1, "a");
    assert!(cache.adopt(&subject(1), Token::new("b")));
    refuse(&cache, 1, "a", Takes::Token);
    assert_eq!(look(&cache, 1, "a"), "refused");
    assert_eq!(look(&cache, 1, "b"), "fresh a");
    assert!(cache.has_for_others(&subject(1), &digest("a")));
    sleep(3 * SECOND).await;
    assert_eq!(look(&cache, 1, "a"), "nothing", "it is asked about again");
    assert_eq!(look(&cache, 1, "b"), "fresh a");
}

#[tokio::test(start_paused = true)]
async fn without_the_token_that_renews_them_credentials_are_served_but_not_renewed() {
    let cache = cache();
    insert(&cache, 1, "a");
    insert(&cache, 1, "b");
    refuse(&cache, 1, "b", Takes::Token);
    assert_eq!(look(&cache, 1, "a"), "fresh b");
    sleep(4 * HOUR).await;
    assert!(due(&cache).is_empty());
    assert_eq!(look(&cache, 1, "a"), "fresh b");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_takes_all_takes_it_from_each_of_the_pods_tokens() {
    let cache = cache();
    insert(&cache, 1, "a");
    insert(&cache, 1, "b");
    insert(&cache, 2, "a");
    refuse(&cache, 1, "a", Takes::All);
    assert_eq!(look(&cache, 1, "a"), "refused");
    assert_eq!(look(&cache, 1, "b"), "nothing");
    assert_eq!(look(&cache, 2, "a"), "fresh a", "another pod");
    assert_eq!(entries(&cache), 1);
}

#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_token_that_was_never_accepted_takes_nothing() {
    let cache = cache();
    insert(&cache, 1, "a");
    for takes in [Takes::Nothing, Takes::Token, Takes::All] {
        refuse(&cache, 1, "forged", takes);
        assert_eq!(look(&cache, 1, "forged"), "refused");
        assert_eq!(look(&cache, 1, "a"), "fresh a");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_refusal_took_does_not_come_back_with_a_copy_from_before() {
    let later_refusals = [None, Some(Takes::Nothing), Some(Takes::Token)];
    for later in later_refusals {
        let cache = cache();
        insert(&cache, 1, "a");
        let copy = cache.snapshot(&subject(1)).unwrap();
        sleep(SECOND).await;
        refuse(&cache, 1, "a", Takes::All);
        sleep(4 * SECOND).await;
        if let Some(takes) = later {
            refuse(&cache, 1, "a", takes);
        }
        assert!(!cache.inherit(subject(1), copy), "{later:?}");
        assert_eq!(entries(&cache), 0, "{later:?}");
    }
}
