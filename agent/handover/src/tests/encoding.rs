//! Changes in bytes.

use std::{iter, time::SystemTime};

use proptest::prelude::*;

use super::*;

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_or_read_is_told_as_gone() {
    let (leader, mut changes, successor) = two_agents();
    tell(&mut changes, &successor);
    let fetched = Fetched {
        body: Bytes::from_static(b"no JSON"),
        expiration: leader.cache.clock().now() + HOUR,
        role: Some(ROLE.into()),
        token: Token::new("a"),
        digest: digest("a"),
        asked: true,
    };
    leader.cache.insert(subject(1), fetched);
    assert_eq!(changes.waiting(), 1);
    let change = changes.take().unwrap();
    assert!(change.encode().is_none());
    let bytes = EntryChange::gone(change.subject).encode().unwrap();
    successor.take(EntryChange::decode(&bytes).unwrap());
    assert!(successor.served(subject(1), &["a"]).is_empty());

    leader.exchange(subject(2), "b2");
    let mut bytes = only_change(&mut changes);
    let at = bytes.find("expiration").unwrap();
    bytes.replace_range(at..at + 3, "xyz");
    assert!(EntryChange::decode(bytes.as_bytes()).is_none());
    successor.take(EntryChange::gone_by(bytes.as_bytes()).unwrap());
    assert_eq!(successor.entries(), 0);
}

/// Agents before the role was told, and after.
#[test]
fn a_change_without_a_role_is_read_and_one_field_more_does_no_harm() {
    let leader = Agent::new(CONFIG, Clock::default());
    leader.exchange(subject(1), "a");
    let bytes = leader.changes().take().unwrap().encode().unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let role = format!(r#""role":"{ROLE}","#);
    let old = text.replace(&role, "");
    assert_ne!(old, text);
    let role = |text: &str| {
        let change = EntryChange::decode(text.as_bytes()).unwrap();
        change.snapshot.unwrap().role
    };
    assert_eq!(role(&old), None);
    assert_eq!(role(&text).as_deref(), Some(ROLE));
    let newer = text.replace(r#""asked":"#, r#""unheard_of":{"x":[1]},"asked":"#);
    assert_eq!(role(&newer).as_deref(), Some(ROLE));
}

/// The one change that there is to take, as text.
fn only_change(changes: &mut Changes) -> String {
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
    let change = EntryChange {
        subject: subject(1),
        snapshot: Some(snapshot),
    };
    assert!(change.encode().is_none());
}

proptest! {
    /// Only root writes into the socket, but it may be another build.
    #[test]
    fn bytes_that_are_no_change_are_told_from_one(bytes: Vec<u8>, cut in 0usize..300) {
        prop_assert!(EntryChange::decode(&bytes).is_none());
        let dropped = EntryChange::decode(br#"{"subject":{"pod":1},"kept":null}"#).unwrap();
        let whole = dropped.encode().unwrap();
        let cut = cut.min(whole.len() - 1);
        prop_assert!(EntryChange::decode(&whole[..cut]).is_none());
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
            role: Some(ROLE.into()),
            digest: digest(&token),
            token: Token::new(token),
            asked,
        };
        leader.cache.insert(subject(7), fetched);
        let mut changes = leader.changes();
        let before = iter::from_fn(|| changes.take()).next().unwrap();
        let after = EntryChange::decode(&before.encode().unwrap()).unwrap();
        prop_assert_eq!(after.subject, before.subject);
        let (before, after) = (before.snapshot.unwrap(), after.snapshot.unwrap());
        prop_assert_eq!(after.body, before.body);
        prop_assert_eq!(after.ages, before.ages);
        prop_assert_eq!(after.role, before.role);
        prop_assert_eq!(after.latest, before.latest);
        prop_assert_eq!(after.older, before.older);
        prop_assert_eq!(after.exchanged, before.exchanged);
        let exposed = |token: &Option<Token>| token.as_ref().map(|it| it.expose().to_owned());
        prop_assert_eq!(exposed(&after.renewing), exposed(&before.renewing));
        prop_assert_eq!((after.asked, after.failures), (before.asked, before.failures));
    }
}
