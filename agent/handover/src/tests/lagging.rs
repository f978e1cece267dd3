//! Subscribers that are further behind than the cache keeps changes for.

use tokio::time::Instant;

use super::*;

/// More changes than the cache keeps for a subscriber that does not look.
const MANY: u16 = 400;

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_lags_tells_all_that_has_come() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    for pod in 3..3 + MANY {
        leader.exchange(subject(pod), "token");
    }
    // All of them, and what it has told before at most once more.
    let told = tell(&mut changes, &successor);
    let unique: HashSet<_> = told.iter().copied().collect();
    assert_eq!(unique.len(), told.len());
    assert!((3..3 + MANY).all(|pod| unique.contains(&subject(pod))));
    assert_eq!(successor.entries(), i64::from(MANY) + 2);
    assert_eq!(tell(&mut changes, &successor), [], "all is told");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_lags_tells_what_has_gone() {
    let (leader, mut changes, successor) = two_agents();
    leader.exchange(subject(3), "c");
    tell(&mut changes, &successor);
    leader.cache.forget_pod(uid(1));
    leader.refuse(2, "b", Takes::All);
    // One that comes and goes without having been told.
    leader.exchange(subject(4), "d");
    leader.cache.forget_pod(uid(4));
    for pod in 5..5 + MANY {
        leader.exchange(subject(pod), "token");
    }
    let told = tell(&mut changes, &successor);
    assert!([1, 2].iter().all(|pod| told.contains(&subject(*pod))));
    for (pod, token) in [(1, "a"), (2, "b"), (4, "d")] {
        assert!(successor.served(subject(pod), &[token]).is_empty(), "{pod}");
    }
    assert_eq!(successor.served(subject(3), &["c"]), ["c"]);
    assert_eq!(successor.entries(), i64::from(MANY) + 1);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_lags_while_it_tells_misses_nothing() {
    let (leader, mut changes, successor) = two_agents();
    for pod in 3..=10 {
        leader.exchange(subject(pod), "token");
    }
    // Half of it has been taken when far more changes than it can be behind.
    assert_eq!(changes.waiting(), 10);
    for _ in 0..5 {
        successor.take(changes.take().unwrap());
    }
    for pod in 1..=10 {
        leader.cache.forget_pod(uid(pod));
    }
    for pod in 11..11 + MANY {
        leader.exchange(subject(pod), "token");
    }
    tell(&mut changes, &successor);
    assert_eq!(successor.entries(), i64::from(MANY));
    assert_eq!(leader.entries(), i64::from(MANY));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_waits_is_woken_by_more_changes_than_it_can_be_behind() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    let waits = tokio::spawn(async move {
        changes.wait().await;
        changes
    });
    sleep(SECOND).await;
    let started = Instant::now();
    leader.cache.forget_pod(uid(1));
    for _ in 0..MANY {
        leader.exchange(subject(3), "c");
    }
    let mut changes = waits.await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    let told: HashSet<_> = tell(&mut changes, &successor).into_iter().collect();
    assert!(told.contains(&subject(1)) && told.contains(&subject(3)));
    assert!(successor.served(subject(1), &["a"]).is_empty());
    assert_eq!(successor.served(subject(3), &["c"]), ["c"]);
}
