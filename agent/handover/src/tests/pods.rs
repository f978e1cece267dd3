//! Pods that are not on the node.

use std::sync::Mutex;

use super::*;

#[tokio::test(start_paused = true)]
async fn pods_that_are_not_on_the_node_leave_nothing() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    let gone = Arc::new(Mutex::new(HashSet::from([uid(1)])));
    let known = Arc::clone(&gone);
    let is_on_node = move |pod| !known.lock().unwrap().contains(&pod);
    successor.cache.keep_only_pods(is_on_node);
    assert!(successor.served(subject(1), &["a"]).is_empty());
    assert_eq!(successor.served(subject(2), &["b"]), ["b"]);
    assert_eq!(successor.entries(), 1);

    leader.exchange(subject(1), "a2");
    leader.exchange(subject(3), "c");
    let told = tell(&mut changes, &successor);
    assert_eq!(told, [subject(1), subject(3)]);
    assert_eq!(successor.entries(), 2);
    gone.lock().unwrap().insert(uid(3));
    successor.cache.forget_pod(uid(3));
    leader.exchange(subject(3), "c2");
    assert_eq!(tell(&mut changes, &successor), [subject(3)]);
    assert_eq!(successor.entries(), 1, "it went while it was being told");

    // There is no pod to look for where nobody has verified the token's claims.
    let unidentified = Subject::Token(digest("d"));
    leader.exchange(unidentified, "d");
    tell(&mut changes, &successor);
    assert_eq!(successor.served(unidentified, &["d"]), ["d"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_just_gone_is_not_told_back_in() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    successor.cache.forget_pod(uid(1));
    leader.exchange(subject(1), "a2");
    tell(&mut changes, &successor);
    assert!(successor.served(subject(1), &["a", "a2"]).is_empty());
    assert_eq!(successor.entries(), 1);
}

#[tokio::test(start_paused = true)]
async fn pods_that_the_successor_knows_gone_lose_what_it_inherited_only() {
    let (_leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    successor.exchange(subject(3), "own");
    successor.cache.keep_only_pods(|_| false);
    assert_eq!(successor.entries(), 1);
    assert_eq!(successor.served(subject(3), &["own"]), ["own"]);
}
