//! What the successor has of what the leader has.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_successor_serves_the_same_tokens_and_no_others() {
    let (leader, mut changes, successor) = two_agents();
    for token in ["a1", "a2", "a3", "a4", "a5"] {
        leader.exchange(subject(1), token);
    }
    let told = tell(&mut changes, &successor);
    assert_eq!(told, [subject(1), subject(2)]);
    let tokens = ["a", "a1", "a2", "a3", "a4", "a5", "b", "", "A"];
    for pod in [1, 2, 3].map(subject) {
        let served = leader.served(pod, &tokens);
        assert_eq!(successor.served(pod, &tokens), served, "{pod:?}");
    }
    let served = successor.served(subject(1), &tokens);
    assert_eq!(served, ["a2", "a3", "a4", "a5"]);
    for token in tokens {
        let unidentified = Subject::Token(digest(token));
        assert!(successor.served(unidentified, &tokens).is_empty());
    }
    assert!(successor.cache.upkeep().due.is_empty());
    let body = successor.body(subject(1), "a5");
    assert!(body.is_some() && body == leader.body(subject(1), "a5"));
    assert_eq!(successor.entries(), 2);
    let bytes = "podcreds_cache_bytes";
    assert_eq!(successor.metric(bytes), leader.metric(bytes));
}

#[tokio::test(start_paused = true)]
async fn what_changes_twice_before_a_look_is_told_once() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    assert_eq!(tell(&mut changes, &successor), [], "nothing has changed");

    let waits = tokio::spawn(async move {
        changes.wait().await;
        changes
    });
    sleep(SECOND).await;
    assert!(!waits.is_finished());
    leader.exchange(subject(3), "c1");
    let mut changes = waits.await.unwrap();
    assert_eq!(tell(&mut changes, &successor), [subject(3)]);
    assert!(leader.cache.adopt(&subject(3), Token::new("c2")));
    let told = tell(&mut changes, &successor);
    assert_eq!(told, [subject(3)], "a token was adopted");
    let tokens = ["c1", "c2"];
    assert_eq!(successor.served(subject(3), &tokens), tokens);
    for token in ["c3", "c4", "c5"] {
        leader.exchange(subject(3), token);
    }
    assert_eq!(tell(&mut changes, &successor), [subject(3)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_loses_the_successor_loses_too() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    leader.cache.forget_pod(uid(1));
    // Past the age at which they are renewed: what EKS Auth then refuses is taken from both.
    sleep(3 * HOUR).await;
    leader.refuse(2, "b", Takes::All);
    let told: HashSet<_> = tell(&mut changes, &successor).into_iter().collect();
    assert_eq!(told, [subject(1), subject(2)].into());
    assert!(successor.served(subject(1), &["a"]).is_empty());
    assert!(successor.served(subject(2), &["b"]).is_empty());
    assert_eq!(successor.entries(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_leader_renews_and_the_successor_does_not_before_it_leads() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    sleep(3 * HOUR + MINUTE).await;
    assert!(successor.cache.upkeep().due.is_empty());
    let mut renewed = leader.renew();
    renewed.sort();
    assert_eq!(renewed, [subject(1), subject(2)]);
    // That a request has asked is told as well; the leader ends before it could renew again.
    assert!(leader.body(subject(1), "a").is_some());
    tell(&mut changes, &successor);
    successor.cache.set_following(false);
    assert!(successor.renew().is_empty(), "nothing is due yet");
    sleep(3 * HOUR).await;
    let renewed = successor.renew();
    assert_eq!(renewed, [subject(1)], "no request has asked for the other");
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_when_the_leader_ends_is_renewed_at_once() {
    let (_leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    sleep(3 * HOUR + MINUTE).await;
    assert!(successor.renew().is_empty());
    // What was there to do until now has been done.
    while timeout(SECOND, successor.cache.work()).await.is_ok() {}
    successor.cache.set_following(false);
    timeout(SECOND, successor.cache.work()).await.unwrap();
    assert_eq!(successor.renew().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_successor_has_got_itself_stays_unless_it_is_older() {
    let (leader, mut changes, successor) = two_agents();
    sleep(MINUTE).await;
    successor.exchange(subject(1), "a-newer");
    let tokens = ["a", "a-newer", "a-newest"];
    tell(&mut changes, &successor);
    assert_eq!(successor.served(subject(1), &tokens), ["a-newer"]);
    leader.cache.forget_pod(uid(1));
    tell(&mut changes, &successor);
    assert_eq!(successor.served(subject(1), &tokens), ["a-newer"]);
    // By now the pod's end is forgotten.
    sleep(2 * MINUTE).await;
    leader.cache.upkeep();
    leader.exchange(subject(1), "a-newest");
    tell(&mut changes, &successor);
    // The tokens that are good for the successor stay so, for what is newer.
    assert_eq!(successor.served(subject(1), &tokens), tokens[1..]);
    let newest = leader.body(subject(1), "a-newest");
    assert_eq!(successor.body(subject(1), "a-newer"), newest);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_before_a_connection_broke_is_not_believed_for_ever() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    successor.exchange(subject(3), "own");
    // The successor is not told that.
    leader.cache.forget_pod(uid(1));
    let told = tell(&mut leader.changes(), &successor);
    successor.cache.disown_all_but(&told.into_iter().collect());
    assert!(successor.served(subject(1), &["a"]).is_empty());
    assert_eq!(successor.served(subject(2), &["b"]), ["b"]);
    assert_eq!(successor.served(subject(3), &["own"]), ["own"]);
}

#[tokio::test(start_paused = true)]
async fn a_successor_without_a_cache_takes_nothing_in_and_tells_nothing() {
    let (leader, mut changes, _) = two_agents();
    let off = cache::Config {
        capacity: 0,
        ..CONFIG
    };
    let off = Agent::successor(off, leader.cache.clock());
    tell(&mut changes, &off);
    assert_eq!(off.entries(), 0);
    assert_eq!(tell(&mut off.changes(), &leader), []);
}

#[tokio::test(start_paused = true)]
async fn a_smaller_cache_keeps_what_was_used_last_and_renews_by_its_own_retention() {
    let (leader, _, _) = two_agents();
    let small = cache::Config {
        capacity: 1,
        retention: HOUR,
    };
    let small = Agent::new(small, leader.cache.clock());
    assert!(leader.body(subject(1), "a").is_some());
    tell(&mut leader.changes(), &small);
    assert_eq!(small.served(subject(1), &["a"]), ["a"], "used last");
    assert!(small.served(subject(2), &["b"]).is_empty());
    assert_eq!(small.entries(), 1);
    assert!(small.renew().is_empty());
    sleep(HOUR + MINUTE).await;
    assert_eq!(small.renew(), [subject(1)], "after the shorter retention");
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_not_taken_in() {
    let (_leader, mut changes, successor) = two_agents();
    let bytes = changes.take().unwrap().encode().unwrap();
    sleep(6 * HOUR).await;
    assert!(!successor.take(EntryChange::decode(&bytes).unwrap()));
    assert_eq!(successor.entries(), 0);
}
