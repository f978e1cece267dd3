//! What a leader's cache hands over to its successor's.

use std::{collections::HashSet, iter, sync::Mutex, time::SystemTime};

use bytes::Bytes;
use podcreds_cache::{self as cache, Clock, Fetched, Lookup, Refused, Source, Subject, Takes};
use podcreds_types::{CredentialError, EksRefusal, PodUid, RefusalKind, Token, TokenDigest};
use prometheus::{Registry, TextEncoder};
use proptest::prelude::*;
use tokio::time::Instant;

use super::{change::Change, changes::Changes, *};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// What an agent has unless it is told otherwise.
const CONFIG: cache::Config = cache::Config {
    capacity: 2000,
    retention: Duration::from_secs(3 * 3600),
};
/// More changes than the cache keeps for a subscriber that does not look.
const MANY: u16 = 400;

fn uid(number: u16) -> PodUid {
    format!("{number:032x}").parse().unwrap()
}

fn subject(pod: u16) -> Subject {
    Subject::Pod(uid(pod))
}

fn digest(token: &str) -> TokenDigest {
    Token::new(token).digest()
}

/// An agent, as far as the other one has to do with it.
struct Agent {
    cache: Arc<Cache>,
    registry: Registry,
}

impl Agent {
    fn new(config: cache::Config, clock: Clock) -> Self {
        let registry = Registry::new();
        let metrics = cache::Metrics::register(&registry).unwrap();
        let cache = Arc::new(Cache::new(config, clock, metrics));
        Self { cache, registry }
    }

    fn successor(config: cache::Config, clock: Clock) -> Self {
        let successor = Self::new(config, clock);
        successor.cache.set_following(true);
        successor
    }

    fn changes(&self) -> Changes {
        Changes::of(&self.cache)
    }

    /// Exchanges a token for credentials that live so long.
    fn exchange_for(&self, subject: Subject, token: &str, life: Duration, asked: bool) {
        let body = format!(r#"{{"AccessKeyId":"{token}"}}"#);
        let fetched = Fetched {
            body: Bytes::from(body),
            expiration: self.cache.clock().now() + life,
            token: Token::new(token),
            digest: digest(token),
            asked,
        };
        self.cache.insert(subject, fetched);
    }

    /// Exchanges a token because a request has asked for it.
    fn exchange(&self, subject: Subject, token: &str) {
        self.exchange_for(subject, token, 6 * HOUR, true);
    }

    /// Renews all that is due, and names the pods' subjects.
    fn renew(&self) -> Vec<Subject> {
        let due = self.cache.upkeep().due;
        for renewal in &due {
            self.exchange_for(renewal.subject, renewal.token.expose(), 6 * HOUR, false);
        }
        due.into_iter().map(|renewal| renewal.subject).collect()
    }

    fn refuse(&self, pod: u16, token: &str, takes: Takes) {
        let (kind, code) = match takes {
            Takes::Token => (RefusalKind::BadToken, "ExpiredTokenException"),
            _ => (RefusalKind::NotFound, "ResourceNotFoundException"),
        };
        let refusal = EksRefusal {
            kind,
            code: code.to_owned(),
            message: "no".to_owned(),
        };
        let refused = Refused {
            source: Source::EksAuth,
            takes,
            error: CredentialError::Refused(refusal),
        };
        self.cache.refuse(subject(pod), digest(token), refused);
    }

    fn body(&self, subject: Subject, token: &str) -> Option<Bytes> {
        match self.cache.get(&subject, &digest(token)) {
            Lookup::Fresh(body, _) | Lookup::Stale(body) => Some(body),
            Lookup::Refused(_) | Lookup::Nothing => None,
        }
    }

    fn refuses(&self, pod: u16, token: &str) -> bool {
        let found = self.cache.get(&subject(pod), &digest(token));
        matches!(found, Lookup::Refused(CredentialError::Refused(_)))
    }

    /// The tokens of these that get a subject's credentials from memory.
    fn served<'a>(&self, subject: Subject, tokens: &[&'a str]) -> Vec<&'a str> {
        let has = |token: &&&str| self.body(subject, token).is_some();
        tokens.iter().filter(has).copied().collect()
    }

    /// What a metric without labels says.
    fn metric(&self, name: &str) -> i64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        let text = text.unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(of, _)| *of == name).unwrap();
        value.parse().unwrap()
    }

    fn entries(&self) -> i64 {
        self.metric("podcreds_cache_entries")
    }

    /// Takes in one change, as from a frame.
    fn take(&self, change: Change) -> bool {
        match change.snapshot {
            Some(snapshot) => self.cache.inherit(change.subject, snapshot),
            None => {
                self.cache.disown(&change.subject);
                false
            }
        }
    }
}

/// Tells the successor what there is to tell by now, in bytes as between two processes.
fn tell(changes: &mut Changes, successor: &Agent) -> Vec<Subject> {
    let mut told = Vec::new();
    while changes.waiting() > 0 {
        let change = changes.take().unwrap();
        told.push(change.subject);
        let bytes = change.encode().unwrap();
        successor.take(Change::decode(&bytes).unwrap());
    }
    told
}

/// A leader with the credentials of pods 1 and 2, what it has to tell, and its successor.
fn two_agents() -> (Agent, Changes, Agent) {
    let clock = Clock::paused();
    let leader = Agent::new(CONFIG, clock);
    leader.exchange(subject(1), "a");
    leader.exchange(subject(2), "b");
    let changes = leader.changes();
    (leader, changes, Agent::successor(CONFIG, clock))
}

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
async fn pods_that_are_not_on_the_node_leave_nothing() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    let gone = Arc::new(Mutex::new(HashSet::from([uid(1)])));
    let known = Arc::clone(&gone);
    let is_on_node = move |pod| !known.lock().unwrap().contains(&pod);
    successor.cache.know_pods(is_on_node);
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
    successor.cache.know_pods(|_| false);
    assert_eq!(successor.entries(), 1);
    assert_eq!(successor.served(subject(3), &["own"]), ["own"]);
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
    assert_eq!(successor.served(subject(1), &tokens), ["a-newest"]);
}

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
    assert!(!successor.take(Change::decode(&bytes).unwrap()));
    assert_eq!(successor.entries(), 0);
}

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
    assert!(successor.take(Change::decode(&bytes).unwrap()));
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
    assert!(!late.take(Change::decode(&bytes).unwrap()));
    assert_eq!(late.entries(), 0);
}

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

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_or_read_is_told_as_gone() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    let fetched = Fetched {
        body: Bytes::from_static(b"no JSON"),
        expiration: leader.cache.clock().now() + HOUR,
        token: Token::new("a"),
        digest: digest("a"),
        asked: true,
    };
    leader.cache.insert(subject(1), fetched);
    assert_eq!(changes.waiting(), 1);
    let change = changes.take().unwrap();
    assert!(change.encode().is_none());
    let bytes = Change::gone(change.subject).encode().unwrap();
    successor.take(Change::decode(&bytes).unwrap());
    assert!(successor.served(subject(1), &["a"]).is_empty());

    leader.exchange(subject(2), "b2");
    let mut bytes = changes_of_one(&mut changes);
    let at = bytes.find("expiration").unwrap();
    bytes.replace_range(at..at + 3, "xyz");
    assert!(Change::decode(bytes.as_bytes()).is_none());
    successor.take(Change::gone_by(bytes.as_bytes()).unwrap());
    assert_eq!(successor.entries(), 0);
}

/// The one change that there is to take, as text.
fn changes_of_one(changes: &mut Changes) -> String {
    assert_eq!(changes.waiting(), 1);
    let bytes = changes.take().unwrap().encode().unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn times_before_1970_are_not_told() {
    let clock = Clock::default();
    let leader = Agent::new(CONFIG, clock);
    leader.exchange(subject(1), "a");
    let mut snapshot = leader.cache.snapshot(&subject(1)).unwrap();
    snapshot.ages.fetched = SystemTime::UNIX_EPOCH - SECOND;
    let change = Change {
        subject: subject(1),
        snapshot: Some(snapshot),
    };
    assert!(change.encode().is_none());
}

proptest! {
    /// Only root writes into the socket, but it may be another build.
    #[test]
    fn bytes_that_are_no_change_are_told_from_one(bytes: Vec<u8>, cut in 0usize..300) {
        prop_assert!(Change::decode(&bytes).is_none());
        let dropped = Change::decode(br#"{"subject":{"pod":1},"kept":null}"#).unwrap();
        let whole = dropped.encode().unwrap();
        let cut = cut.min(whole.len() - 1);
        prop_assert!(Change::decode(&whole[..cut]).is_none());
    }

    /// Whatever tokens a pod shows, a copy is what it was, secrets and times to the nanosecond.
    #[test]
    fn a_change_in_bytes_is_the_same_change(
        token in "\\PC{0,40}", key in "[A-Z0-9]{0,20}", nanos: u32, asked: bool,
    ) {
        let leader = Agent::new(CONFIG, Clock::default());
        let life = HOUR + Duration::from_nanos(nanos.into());
        leader.exchange_for(subject(7), "older", life, asked);
        let body = format!(r#"{{ "AccessKeyId":"{key}" }}"#);
        let fetched = Fetched {
            body: Bytes::from(body),
            expiration: leader.cache.clock().now() + life,
            digest: digest(&token),
            token: Token::new(token),
            asked,
        };
        leader.cache.insert(subject(7), fetched);
        let mut changes = leader.changes();
        let before = iter::from_fn(|| changes.take()).next().unwrap();
        let after = Change::decode(&before.encode().unwrap()).unwrap();
        prop_assert_eq!(after.subject, before.subject);
        let (before, after) = (before.snapshot.unwrap(), after.snapshot.unwrap());
        prop_assert_eq!(after.body, before.body);
        prop_assert_eq!(after.ages, before.ages);
        prop_assert_eq!(after.latest, before.latest);
        prop_assert_eq!(after.older, before.older);
        let exposed = |token: &Option<Token>| token.as_ref().map(|it| it.expose().to_owned());
        prop_assert_eq!(exposed(&after.renewing), exposed(&before.renewing));
        prop_assert_eq!((after.asked, after.failures), (before.asked, before.failures));
    }
}
