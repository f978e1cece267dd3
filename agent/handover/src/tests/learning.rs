//! What the leader learns of what its successor has got itself.

use super::*;

/// Two agents that tell each other what they have.
struct Pair {
    leader: Agent,
    successor: Agent,
    to_successor: Changes,
    to_leader: Changes,
}

impl Pair {
    /// A leader with the credentials of pods 1 and 2, and its successor, which knows them.
    fn new() -> Self {
        let (leader, to_successor, successor) = two_agents();
        let to_leader = Changes::own_of(&successor.cache);
        let mut pair = Self {
            leader,
            successor,
            to_successor,
            to_leader,
        };
        pair.settle();
        pair
    }

    /// Tells the leader what there is to tell by now. How much that was.
    fn teach(&mut self) -> usize {
        let mut told = 0;
        while self.to_leader.waiting() > 0 {
            let change = self.to_leader.take().unwrap();
            if change.snapshot.is_some() {
                let bytes = change.encode().unwrap();
                let EntryChange { subject, snapshot } = EntryChange::decode(&bytes).unwrap();
                self.leader.cache.learn(subject, snapshot.unwrap());
                told += 1;
            }
        }
        told
    }

    /// Has both tell each other what there is until neither has anything more to tell.
    fn settle(&mut self) {
        for _ in 0..5 {
            let told = tell(&mut self.to_successor, &self.successor).len();
            if self.teach() + told == 0 {
                return;
            }
        }
        panic!("they never stop to tell each other the same");
    }

    fn both(&self) -> [&Agent; 2] {
        [&self.leader, &self.successor]
    }

    /// Checks that both serve the same tokens of a pod, with the same credentials.
    #[track_caller]
    fn assert_serve(&self, pod: u16, tokens: &[&str]) {
        for agent in self.both() {
            assert_eq!(agent.served(subject(pod), tokens), tokens);
        }
        for token in tokens {
            let [theirs, ours] = self.both().map(|agent| agent.body(subject(pod), token));
            assert_eq!(theirs, ours, "{token}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_successor_gets_the_leader_serves_and_renews_in_its_place() {
    let mut pair = Pair::new();
    pair.successor.exchange(subject(3), "own");
    pair.settle();
    pair.assert_serve(3, &["own"]);
    assert!(pair.successor.cache.own_snapshot(&subject(3)).is_none());
    sleep(3 * HOUR + MINUTE).await;
    assert!(pair.successor.renew().is_empty());
    assert!(pair.leader.renew().contains(&subject(3)));
    // It takes nothing from the other pods.
    pair.settle();
    pair.assert_serve(1, &["a"]);
    pair.assert_serve(2, &["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_comes_while_both_tell_each_other_is_lost_by_neither() {
    let mut pair = Pair::new();
    pair.successor.exchange(subject(3), "c");
    assert_eq!(pair.teach(), 1);
    assert!(pair.successor.cache.adopt(&subject(3), Token::new("c2")));
    // The leader's copy comes without the token.
    tell(&mut pair.to_successor, &pair.successor);
    assert_eq!(pair.successor.served(subject(3), &["c", "c2"]).len(), 2);
    pair.settle();
    pair.assert_serve(3, &["c", "c2"]);
    assert!(pair.leader.body(subject(2), "c2").is_none());
}

#[tokio::test(start_paused = true)]
async fn of_two_that_were_got_at_once_the_newer_stay_for_the_tokens_of_both() {
    for is_leader_first in [true, false] {
        let mut pair = Pair::new();
        let [mut first, mut last] = pair.both();
        if !is_leader_first {
            (first, last) = (last, first);
        }
        first.exchange(subject(3), "first");
        sleep(SECOND).await;
        last.exchange(subject(3), "last");
        let newer = last.body(subject(3), "last");
        pair.settle();
        pair.assert_serve(3, &["first", "last"]);
        assert_eq!(pair.leader.body(subject(3), "first"), newer);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_has_is_not_replaced_by_what_expires_before_it() {
    let mut pair = Pair::new();
    sleep(MINUTE).await;
    let before = pair.leader.body(subject(1), "a");
    pair.successor
        .exchange_for(subject(1), "short", 30 * MINUTE, true);
    pair.teach();
    assert_eq!(pair.leader.body(subject(1), "a"), before);
    assert_eq!(pair.leader.body(subject(1), "short"), before);
}

#[tokio::test(start_paused = true)]
async fn what_eks_auth_has_refused_since_the_leader_does_not_learn() {
    let mut pair = Pair::new();
    pair.successor.exchange(subject(3), "c");
    sleep(SECOND).await;
    pair.leader.refuse(3, "c", Takes::All);
    pair.teach();
    assert!(pair.leader.refuses(3, "c"));
    assert!(pair.leader.served(subject(3), &["c"]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_leader_learns_nothing_of_pods_that_are_not_on_the_node_by_its_account() {
    let mut pair = Pair::new();
    pair.leader.cache.keep_only_pods(|pod| pod != uid(3));
    pair.successor.exchange(subject(3), "c");
    pair.successor.exchange(subject(4), "d");
    pair.settle();
    assert!(pair.leader.served(subject(3), &["c"]).is_empty());
    pair.assert_serve(4, &["d"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_drops_of_what_it_has_learned_the_successor_drops_too() {
    let mut pair = Pair::new();
    pair.successor.exchange(subject(3), "c");
    pair.settle();
    pair.leader.refuse(3, "c", Takes::All);
    pair.settle();
    for agent in pair.both() {
        assert!(agent.served(subject(3), &["c"]).is_empty());
    }
}

/// A leader that was refused a token of pod 3 after its successor had exchanged that, and has got
/// credentials for another one since.
async fn refused_after_the_successor_got_it(takes: Takes) -> Pair {
    let mut pair = Pair::new();
    pair.successor.exchange(subject(3), "refused");
    sleep(SECOND).await;
    pair.leader.refuse(3, "refused", takes);
    pair.teach();
    sleep(SECOND).await;
    pair.leader.exchange(subject(3), "good");
    pair.settle();
    pair
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_refused_does_not_come_back_with_newer_credentials() {
    let tokens = ["refused", "good"];
    for takes in [Takes::All, Takes::Token] {
        let mut pair = refused_after_the_successor_got_it(takes).await;
        for agent in pair.both() {
            assert_eq!(agent.served(subject(3), &tokens), ["good"], "{takes:?}");
        }
        // By now the refusal would be forgotten, were the successor not there.
        sleep(5 * MINUTE).await;
        for agent in pair.both() {
            agent.cache.upkeep();
        }
        pair.successor.exchange(subject(3), "another");
        pair.settle();
        for agent in pair.both() {
            let served = agent.served(subject(3), &["refused", "good", "another"]);
            assert_eq!(served, ["good", "another"], "{takes:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_does_not_come_back_with_what_the_successor_got_before_it_heard_of_that() {
    for takes in [Takes::All, Takes::Token] {
        let mut pair = Pair::new();
        pair.successor.exchange(subject(3), "refused");
        sleep(SECOND).await;
        pair.leader.refuse(3, "refused", takes);
        sleep(SECOND).await;
        pair.successor.exchange(subject(3), "good");
        assert_eq!(pair.successor.served(subject(3), &["refused"]).len(), 1);
        pair.settle();
        for agent in pair.both() {
            let served = agent.served(subject(3), &["refused", "good"]);
            assert_eq!(served, ["good"], "{takes:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_leader_loses_the_successor_loses_from_its_own_credentials_too() {
    let mut pair = Pair::new();
    pair.leader.exchange(subject(3), "refused");
    pair.settle();
    sleep(SECOND).await;
    pair.leader.refuse(3, "refused", Takes::Token);
    pair.successor.exchange(subject(3), "own");
    pair.settle();
    pair.assert_serve(3, &["own"]);
    assert!(pair.leader.served(subject(3), &["refused"]).is_empty());
    assert!(pair.successor.served(subject(3), &["refused"]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_eks_auth_accepts_after_the_leader_was_refused_it_is_served_by_both() {
    let mut pair = refused_after_the_successor_got_it(Takes::All).await;
    sleep(SECOND).await;
    pair.successor.exchange(subject(3), "refused");
    pair.settle();
    pair.assert_serve(3, &["refused", "good"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_that_a_key_verifies_at_the_successor_does_not_come_back_to_the_leader() {
    for takes in [Takes::All, Takes::Token] {
        let mut pair = Pair::new();
        pair.leader.refuse(3, "refused", takes);
        sleep(SECOND).await;
        pair.successor.exchange(subject(3), "good");
        let refused = Token::new("refused");
        assert!(pair.successor.cache.adopt(&subject(3), refused));
        pair.settle();
        for agent in pair.both() {
            let served = agent.served(subject(3), &["refused", "good"]);
            assert_eq!(served, ["good"], "{takes:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_that_has_got_newer_credentials_comes_back_whatever_was_verified_since() {
    let mut pair = Pair::new();
    pair.leader.refuse(3, "refused", Takes::Token);
    sleep(SECOND).await;
    pair.successor.exchange(subject(3), "refused");
    let verified = Token::new("verified");
    assert!(pair.successor.cache.adopt(&subject(3), verified));
    pair.settle();
    pair.assert_serve(3, &["refused", "verified"]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_forgets_refusals_once_its_successor_has_gone() {
    let Pair {
        leader,
        successor,
        to_successor,
        to_leader,
    } = refused_after_the_successor_got_it(Takes::All).await;
    let count = || leader.metric("podcreds_refusals_remembered");
    sleep(5 * MINUTE).await;
    leader.cache.upkeep();
    assert_eq!(count(), 1);
    drop((successor, to_successor, to_leader));
    leader.cache.upkeep();
    assert_eq!(count(), 0);
}
