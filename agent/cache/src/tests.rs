//! The cache as a whole, on tokio's paused clock.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use podcreds_types::{CredentialError, PodUid, Token, TokenDigest};
use prometheus::Registry;
use tokio::time::{sleep, timeout};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// For how long a first refusal is remembered, though not believed.
const REMEMBERED: Duration = Duration::from_secs(63);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

fn uid(number: u16) -> PodUid {
    format!("{number:032x}").parse().unwrap()
}

fn subject(pod: u16) -> Subject {
    Subject::Pod(uid(pod))
}

fn digest(token: &str) -> TokenDigest {
    Token::new(token).digest()
}

fn with(capacity: usize, retention: Duration) -> Cache {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let config = Config {
        capacity,
        retention,
    };
    Cache::new(config, Clock::paused(), metrics)
}

fn cache() -> Cache {
    with(2000, 3 * HOUR)
}

/// What an exchange brings for a token.
fn fetched(cache: &Cache, token: &str, life: Duration, asked: bool) -> Fetched {
    Fetched {
        body: Bytes::copy_from_slice(token.as_bytes()),
        expiration: cache.clock().now() + life,
        token: Token::new(token),
        digest: digest(token),
        asked,
    }
}

/// Has a pod's token get credentials that live six hours, because a request asked for them.
fn insert(cache: &Cache, pod: u16, token: &str) {
    cache.insert(subject(pod), fetched(cache, token, 6 * HOUR, true));
}

fn refuse(cache: &Cache, pod: u16, token: &str, takes: Takes) -> bool {
    let refused = Refused {
        source: Source::EksAuth,
        takes,
        error: CredentialError::not_ready("stands for a refusal"),
    };
    cache.refuse(subject(pod), digest(token), refused)
}

/// What there is for a token, in a word; with the token that got it.
fn look(cache: &Cache, pod: u16, token: &str) -> String {
    let text = |body: Bytes| String::from_utf8(body.to_vec()).unwrap();
    match cache.get(&subject(pod), &digest(token)) {
        Lookup::Fresh(body, _) => format!("fresh {}", text(body)),
        Lookup::Stale(body) => format!("stale {}", text(body)),
        Lookup::Refused(_) => "refused".to_owned(),
        Lookup::Nothing => "nothing".to_owned(),
    }
}

fn entries(cache: &Cache) -> i64 {
    cache.metrics.entries.get()
}

fn due(cache: &Cache) -> Vec<Subject> {
    let due = cache.upkeep().due;
    due.into_iter().map(|renewal| renewal.subject).collect()
}

async fn is_woken(cache: &Cache) -> bool {
    timeout(SECOND, cache.work()).await.is_ok()
}

/// Makes sure that nothing is left of anything.
fn assert_empty(cache: &Cache) {
    let metrics = &cache.metrics;
    assert_eq!(metrics.entries.get(), 0, "entries");
    assert_eq!(metrics.bytes.get(), 0, "bytes");
    assert_eq!(metrics.refusals.get(), 0, "refusals");
    assert_eq!(cache.kept.load(Relaxed), 0, "kept");
    assert_eq!(cache.entries.len(), 0, "slots of the map");
}

mod room {
    use super::*;

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
        let mut ways: Vec<(&str, Box<dyn Fn(&Cache)>)> = vec![
            ("forgotten", Box::new(|cache| cache.forget_pod(uid(1)))),
            (
                "refused",
                Box::new(|cache| {
                    refuse(cache, 1, "a", Takes::All);
                }),
            ),
            (
                "evicted",
                Box::new(|cache| (2..5).for_each(|pod| insert(cache, pod, "e"))),
            ),
            ("off the node", Box::new(|cache| cache.know_pods(|_| false))),
        ];
        for (way, go) in ways.drain(..) {
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
}

mod refusals {
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
}

mod presence {
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
            assert!(!cache.is_present(&subject(1)));
            assert_eq!(look(&cache, 1, "a"), "nothing");
            assert_eq!(entries(&cache), 1);
        }
        sleep(SECOND).await;
        cache.upkeep();
        assert!(cache.is_present(&subject(1)));
        insert(&cache, 1, "a");
        assert_eq!(look(&cache, 1, "a"), "fresh a");
        assert_eq!(look(&cache, 2, "b"), "fresh b");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_known_to_have_gone_gets_no_entry_until_it_is_back() {
        let cache = cache();
        let is_there = Arc::new(AtomicBool::new(true));
        let known = Arc::clone(&is_there);
        cache.know_pods(move |_| known.load(Relaxed));
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
        cache.know_pods(|_| true);
        cache.know_pods(|_| false);
        insert(&cache, 1, "a");
        assert_eq!(look(&cache, 1, "a"), "fresh a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_tokens_entry_needs_no_pod() {
        let cache = cache();
        cache.know_pods(|_| false);
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
}

mod upkeep {
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
    async fn expired_credentials_are_for_no_token_and_dropped_some_minutes_later() {
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
}

mod off {
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
}
