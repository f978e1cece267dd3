//! Wall clocks that are put back before a hand-over.

use super::*;

/// Seconds by which a wall clock is put back.
const BACK: i64 = -2 * 3600;

/// A leader with the credentials of pod 1, which live 59 minutes, ten minutes of which have passed
/// when the wall clock is put back.
async fn short_lived() -> Agent {
    let leader = Agent::new(CONFIG, Clock::paused());
    leader.exchange_for(subject(1), "a", 59 * MINUTE, true);
    sleep(10 * MINUTE).await;
    leader.cache.clock().put_forward(BACK);
    leader
}

#[tokio::test(start_paused = true)]
async fn where_the_clock_was_put_back_the_successor_is_told_no_more_life_than_there_is() {
    let leader = short_lived().await;
    let successor = Agent::successor(CONFIG, leader.cache.clock());
    let bytes = leader.changes().take().unwrap().encode().unwrap();
    assert!(successor.take(EntryChange::decode(&bytes).unwrap()));
    sleep(48 * MINUTE).await;
    assert!(successor.body(subject(1), "a").is_some());
    sleep(MINUTE).await;
    let found = successor.cache.get(&subject(1), &digest("a"));
    assert!(matches!(found, Lookup::Nothing), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn where_the_clock_was_put_back_what_has_ended_is_not_taken_in() {
    let leader = short_lived().await;
    sleep(49 * MINUTE).await;
    let late = Agent::successor(CONFIG, leader.cache.clock());
    let bytes = leader.changes().take().unwrap().encode().unwrap();
    assert!(!late.take(EntryChange::decode(&bytes).unwrap()));
    assert_eq!(late.entries(), 0);
}
