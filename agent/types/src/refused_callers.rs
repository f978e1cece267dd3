//! Who was refused last, and why: for people to read. It decides about nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::{CallerId, PodUid};

/// Pods and reasons that are remembered: more than there are where all is well.
const MOST_PODS: usize = 1024;
/// The same of addresses on the node path.
const MOST_ADDRESSES: usize = 128;
/// The same of processes of no known pod.
const MOST_PROCESSES: usize = 64;
/// How long it is of use.
const LASTS: Duration = Duration::from_secs(60 * 60);

/// Who was refused within the last hour. Clones share it.
///
/// It takes bounded memory: where there are too many callers of one kind, those go that were
/// refused the longest ago.
#[derive(Clone, Debug, Default)]
pub struct RefusedCallers(Arc<Mutex<HashMap<Key, Noted>>>);

/// Somebody who was refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCaller {
    /// Who it was.
    pub caller: CallerId,
    /// Why, as metrics name it.
    pub reason: &'static str,
    /// The pod that the last refused token names, if the refusal is about a token. Nobody may have
    /// verified that.
    pub token_pod: Option<PodUid>,
    /// What else is known of the caller: the program and the cgroup of a process.
    pub about: Option<Arc<str>>,
    /// How often.
    pub count: u64,
    /// When last.
    pub last: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    caller: CallerId,
    reason: &'static str,
}

/// The kinds of callers, each of which has room of its own.
#[derive(PartialEq, Eq)]
enum Kind {
    Pod,
    Address,
    Process,
}

#[derive(Debug)]
struct Noted {
    token_pod: Option<PodUid>,
    about: Option<Arc<str>>,
    count: u64,
    last: SystemTime,
}

impl RefusedCallers {
    /// Notes that a caller was refused now.
    pub fn note(&self, caller: CallerId, reason: &'static str, token_pod: Option<PodUid>) {
        self.note_at(SystemTime::now(), caller, reason, token_pod, None);
    }

    /// Notes a caller that no listener has seen, and what else is known of it.
    pub fn note_unseen(&self, caller: CallerId, reason: &'static str, about: Option<Arc<str>>) {
        self.note_at(SystemTime::now(), caller, reason, None, about);
    }

    fn note_at(
        &self,
        now: SystemTime,
        caller: CallerId,
        reason: &'static str,
        token_pod: Option<PodUid>,
        about: Option<Arc<str>>,
    ) {
        let key = Key { caller, reason };
        let mut noted = self.lock();
        if !noted.contains_key(&key) {
            make_room(&mut noted, Kind::of(caller));
        }
        let noted = noted.entry(key).or_insert(Noted {
            token_pod,
            about: None,
            count: 0,
            last: now,
        });
        noted.count += 1;
        noted.last = now;
        noted.token_pod = token_pod.or(noted.token_pod);
        noted.about = about.or_else(|| noted.about.take());
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, pod: PodUid) {
        self.lock()
            .retain(|key, _| key.caller != CallerId::Pod(pod));
    }

    /// Those of the last hour, the latest first.
    pub fn all(&self) -> Vec<RefusedCaller> {
        self.all_at(SystemTime::now())
    }

    fn all_at(&self, now: SystemTime) -> Vec<RefusedCaller> {
        let mut noted = self.lock();
        noted.retain(|_, noted| now.duration_since(noted.last).unwrap_or_default() < LASTS);
        let all = noted.iter().map(|(key, noted)| RefusedCaller {
            caller: key.caller,
            reason: key.reason,
            token_pod: noted.token_pod,
            about: noted.about.clone(),
            count: noted.count,
            last: noted.last,
        });
        let mut all: Vec<_> = all.collect();
        drop(noted);
        all.sort_by_key(|refused| std::cmp::Reverse(refused.last));
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Noted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets who was refused the longest ago, if there are as many of a kind as there may be.
fn make_room(noted: &mut HashMap<Key, Noted>, kind: Kind) {
    let most = match kind {
        Kind::Pod => MOST_PODS,
        Kind::Address => MOST_ADDRESSES,
        Kind::Process => MOST_PROCESSES,
    };
    if noted.len() < most {
        return;
    }
    let of_kind = noted.iter().filter(|(key, _)| Kind::of(key.caller) == kind);
    let (mut count, mut oldest) = (0, None);
    for (key, noted) in of_kind {
        count += 1;
        if oldest.is_none_or(|(_, last)| noted.last < last) {
            oldest = Some((*key, noted.last));
        }
    }
    if let Some((key, _)) = oldest.filter(|_| count >= most) {
        noted.remove(&key);
    }
}

impl Kind {
    fn of(caller: CallerId) -> Self {
        match caller {
            CallerId::Pod(_) => Self::Pod,
            CallerId::Address(_) => Self::Address,
            CallerId::Process(_) | CallerId::Unknown => Self::Process,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn pod(number: u32) -> CallerId {
        CallerId::Pod(uid(number))
    }

    fn uid(number: u32) -> PodUid {
        format!("{number:032x}").parse().unwrap()
    }

    fn after(seconds: u64) -> SystemTime {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_caller_is_listed_once_for_each_reason_with_a_count_the_latest_first() {
        let refused = RefusedCallers::default();
        for second in 0..3 {
            refused.note_at(after(second), pod(1), "missing_token", None, None);
        }
        refused.note_at(after(1), pod(1), "other_pod", Some(uid(2)), None);
        let all = refused.all_at(after(3));
        let shown: Vec<_> = all.iter().map(|it| (it.reason, it.count)).collect();
        assert_eq!(shown, [("missing_token", 3), ("other_pod", 1)]);
        assert_eq!(all[1].token_pod, Some(uid(2)));
        refused.forget(uid(1));
        assert!(refused.all_at(after(3)).is_empty());
    }

    #[test]
    fn what_is_an_hour_old_is_of_no_use() {
        let refused = RefusedCallers::default();
        refused.note_at(START, pod(1), "detour", None, None);
        assert_eq!(refused.all_at(after(3599)).len(), 1);
        assert!(refused.all_at(after(3600)).is_empty());
    }

    #[test]
    fn neither_processes_nor_addresses_push_out_pods_and_the_oldest_goes_first() {
        let refused = RefusedCallers::default();
        refused.note_at(START, pod(1), "detour", None, None);
        for number in 0..2000 {
            let second = after(number.into());
            let process = CallerId::Process(number);
            let address = CallerId::Address(IpAddr::from(number.to_be_bytes()));
            refused.note_at(second, process, "unknown_caller", None, None);
            refused.note_at(second, address, "detour", None, None);
        }
        let all = refused.all_at(after(2000));
        assert_eq!(all.len(), 1 + MOST_ADDRESSES + MOST_PROCESSES);
        assert!(all.iter().any(|it| it.caller == pod(1)));
        let newest = CallerId::Process(1999);
        assert!(all.iter().any(|it| it.caller == newest));
        for number in 0..3 * MOST_PODS as u32 {
            refused.note_at(after(2000), pod(number), "detour", None, None);
        }
        let pods = refused.all_at(after(2000));
        let pods = pods
            .iter()
            .filter(|it| matches!(it.caller, CallerId::Pod(_)));
        assert_eq!(pods.count(), MOST_PODS);
    }

    #[test]
    fn what_is_known_of_a_process_stays_when_it_is_refused_again() {
        let refused = RefusedCallers::default();
        let process = CallerId::Process(7);
        refused.note_unseen(process, "unknown_pod", Some("curl".into()));
        refused.note_unseen(process, "unknown_pod", None);
        let all = refused.all();
        assert_eq!((all[0].about.as_deref(), all[0].count), (Some("curl"), 2));
    }
}
