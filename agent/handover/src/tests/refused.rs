//! What EKS Auth has refused to the successor, of which the leader does not know.

use super::*;

/// Has the leader's renewals fail until credentials are stale, so that the successor asks EKS Auth
/// itself and is refused; then the leader tells once more what it has.
async fn told_again_after(takes: Takes) -> (Agent, Changes, Agent) {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    sleep(6 * HOUR - 10 * MINUTE).await;
    let stale = successor.cache.get(&subject(1), &digest("a"));
    assert!(matches!(stale, Lookup::Stale(_)));
    successor.refuse(1, "a", takes);
    assert!(successor.refuses(1, "a"));
    for pod in [1, 2] {
        leader.cache.postpone(&subject(pod));
    }
    assert!(tell(&mut changes, &successor).contains(&subject(1)));
    (leader, changes, successor)
}

#[tokio::test(start_paused = true)]
async fn credentials_that_eks_auth_has_taken_from_a_pod_are_not_told_back_in() {
    let (leader, mut changes, successor) = told_again_after(Takes::All).await;
    assert_eq!(successor.entries(), 1, "only the other pod's");
    assert!(successor.refuses(1, "a"));
    let mut everything = leader.changes();
    tell(&mut everything, &successor);
    assert!(successor.refuses(1, "a"));
    assert_eq!(successor.entries(), 1);

    // What the leader gets later is news.
    sleep(6 * MINUTE).await;
    assert!(leader.renew().contains(&subject(1)));
    tell(&mut changes, &successor);
    let found = successor.cache.get(&subject(1), &digest("a"));
    assert!(matches!(found, Lookup::Fresh(..)), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_eks_auth_has_refused_is_not_told_back_in() {
    let (_leader, _changes, successor) = told_again_after(Takes::Token).await;
    assert_eq!(successor.entries(), 2);
    assert!(!successor.cache.accepts(&subject(1), &digest("a")));
    assert!(successor.cache.accepts(&subject(2), &digest("b")));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_forgotten_while_the_leader_may_tell_what_came_before_it() {
    let (leader, mut changes, successor) = told_again_after(Takes::All).await;
    sleep(5 * MINUTE).await;
    successor.cache.upkeep();
    leader.cache.postpone(&subject(1));
    assert_eq!(tell(&mut changes, &successor), [subject(1)]);
    assert!(successor.served(subject(1), &["a"]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_not_told_back_in_after_its_request_was_rejected() {
    let (leader, mut changes, successor) = told_again_after(Takes::All).await;
    sleep(4 * SECOND).await;
    // EKS Auth is asked once more and rejects the request: that gives nothing back.
    successor.refuse(1, "a", Takes::Nothing);
    leader.cache.postpone(&subject(1));
    assert_eq!(tell(&mut changes, &successor), [subject(1)]);
    assert!(successor.served(subject(1), &["a"]).is_empty());
    assert_eq!(successor.entries(), 1);
}
