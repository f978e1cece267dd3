//! Many sockets, waited for as one.
//!
//! A node has three sockets for each pod, and hardly any of them has news. With a task for each,
//! tokio would keep more of a pod in memory than the pod's credentials are. Here the kernel keeps
//! them, in an epoll instance of their own, and all that tokio knows of is that instance.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::mapref::one::Ref;
use podcreds_types::SharedMap;
use rustix::event::{
    Timespec,
    epoll::{self, CreateFlags, Event, EventData, EventFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

/// What names a member, and no other one ever.
pub(super) type Key = u64;

/// How many members are reported at once. The others come first the next time.
const BATCH: usize = 32;

/// Sockets that are waited for together. Any thread may add and remove some meanwhile.
///
/// Only one thread may ask for news: while the kernel reports it to one, another may see none.
pub(super) struct PollSet<T> {
    epoll: AsyncFd<Instance>,
    members: SharedMap<Key, T>,
    next: AtomicU64,
}

/// Keeps a socket in its set. Dropping it removes and closes the socket.
pub(super) struct PolledSocket<T: AsFd> {
    set: Arc<PollSet<T>>,
    key: Key,
}

/// Members that have news.
pub(super) struct Batch {
    keys: [Key; BATCH],
    count: usize,
}

struct Instance(OwnedFd);

impl<T: AsFd> PollSet<T> {
    /// An empty set, for the runtime in whose context it is made.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Instance(epoll::create(CreateFlags::CLOEXEC)?);
        // SAFETY: an instance keeps its descriptor open, and the same one, until it is dropped.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Self {
            epoll,
            members: SharedMap::default(),
            next: AtomicU64::new(0),
        })
    }

    /// Waits for this socket as well from now on.
    pub(super) fn add(self: &Arc<Self>, member: T) -> io::Result<PolledSocket<T>> {
        let instance = &self.epoll.get_ref().0;
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        // For nothing yet. Adding to an instance that is itself waited for takes a lock that all
        // processes of the machine share, so nothing of ours may be locked meanwhile.
        epoll::add(
            instance,
            &member,
            EventData::new_u64(key),
            EventFlags::empty(),
        )?;
        self.members.insert(key, member);
        let membership = PolledSocket {
            set: Arc::clone(self),
            key,
        };
        if let Some(member) = self.members.get(&key) {
            // It is reported again and again as long as there is something to read: nothing needs
            // to be read to its end.
            epoll::modify(instance, &*member, EventData::new_u64(key), EventFlags::IN)?;
        }
        Ok(membership)
    }

    /// The members.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.members.iter().map(|member| *member.key()).collect()
    }

    /// A member, unless it has been removed.
    pub(super) fn get(&self, key: Key) -> Option<Ref<'_, Key, T>> {
        self.members.get(&key)
    }

    /// Does not wait for a member any more, until [`Self::resume`].
    pub(super) fn pause(&self, key: Key) {
        self.set_events(key, EventFlags::empty());
    }

    /// Waits for a member again.
    pub(super) fn resume(&self, key: Key) {
        self.set_events(key, EventFlags::IN);
    }

    fn set_events(&self, key: Key, events: EventFlags) {
        if let Some(member) = self.members.get(&key) {
            let instance = &self.epoll.get_ref().0;
            // An error means that it is being removed.
            let _set = epoll::modify(instance, &*member, EventData::new_u64(key), events);
        }
    }

    /// Removes and closes a member, if it is there.
    pub(super) fn remove(&self, key: Key) {
        if let Some(member) = self.members.get(&key) {
            // First, so that no member is reported that is none. An error means that another thread
            // removes it.
            let _removed = epoll::delete(&self.epoll.get_ref().0, &*member);
        }
        self.members.remove(&key);
    }

    /// Waits until there are members with news. Cancel-safe.
    pub(super) async fn ready(&self) -> io::Result<Batch> {
        loop {
            let mut guard = self.epoll.readable().await?;
            let poll = guard.try_io(|epoll| match epoll.get_ref().poll()? {
                batch if batch.count == 0 => Err(io::ErrorKind::WouldBlock.into()),
                batch => Ok(batch),
            });
            if let Ok(result) = poll {
                return result;
            }
        }
    }

    /// The members with news, which may be none, without waiting.
    pub(super) fn poll(&self) -> io::Result<Batch> {
        self.epoll.get_ref().poll()
    }
}

impl Instance {
    fn poll(&self) -> io::Result<Batch> {
        let none = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [none; BATCH];
        let count = epoll::wait(&self.0, &mut events[..], Some(&Timespec::default()))?;
        let keys = events.map(|event| event.data.u64());
        Ok(Batch { keys, count })
    }
}

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Batch {
    /// Their keys. Some may have been removed meanwhile.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.keys.iter().take(self.count).copied()
    }
}

impl<T: AsFd> PolledSocket<T> {
    /// The member's key.
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Whether the socket is still a member: it may have been removed by its key.
    pub(super) fn is_valid(&self) -> bool {
        self.set.members.contains_key(&self.key)
    }
}

impl<T: AsFd> Drop for PolledSocket<T> {
    fn drop(&mut self) {
        self.set.remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    /// How long nothing must come.
    const SILENCE: Duration = Duration::from_secs(60);

    /// A set with a number of sockets, and the other ends of those.
    fn set_of(
        count: usize,
    ) -> (
        Arc<PollSet<UnixStream>>,
        Vec<PolledSocket<UnixStream>>,
        Vec<UnixStream>,
    ) {
        let set = Arc::new(PollSet::new().unwrap());
        let (mut members, mut others) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (ours, other) = UnixStream::pair().unwrap();
            members.push(set.add(ours).unwrap());
            others.push(other);
        }
        (set, members, others)
    }

    /// The members that have news, sooner or later.
    async fn reported(set: &PollSet<UnixStream>) -> Vec<Key> {
        let batch = timeout(SILENCE, set.ready()).await.expect("no news");
        batch.unwrap().keys().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_is_reported_until_its_news_is_read() {
        let (set, _members, mut others) = set_of(3);
        assert!(timeout(SILENCE, set.ready()).await.is_err());
        others[1].write_all(b"x").unwrap();
        for _ in 0..2 {
            assert_eq!(reported(&set).await, [1]);
        }
        set.get(1).unwrap().value().read_exact(&mut [0]).unwrap();
        assert!(timeout(SILENCE, set.ready()).await.is_err());
        others[2].write_all(b"x").unwrap();
        assert_eq!(reported(&set).await, [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn news_from_before_is_reported() {
        let (set, _members, _others) = set_of(1);
        let (ours, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"x").unwrap();
        let _member = set.add(ours).unwrap();
        assert_eq!(reported(&set).await, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_member_is_closed_and_not_reported() {
        let (set, mut members, mut others) = set_of(2);
        // Another descriptor keeps the socket open.
        let copy = set.get(0).unwrap().try_clone().unwrap();
        others[0].write_all(b"x").unwrap();
        others[1].write_all(b"x").unwrap();
        set.remove(1);
        assert!(members[0].is_valid() && !members[1].is_valid());
        assert_eq!(
            others[1].write(b"x").unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        members.remove(0);
        assert!(set.get(0).is_none());
        assert!(timeout(SILENCE, set.ready()).await.is_err());
        drop(copy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_member_is_not_reported() {
        let (set, members, mut others) = set_of(2);
        others[0].write_all(b"x").unwrap();
        set.pause(0);
        assert!(timeout(SILENCE, set.ready()).await.is_err());
        others[1].write_all(b"x").unwrap();
        assert_eq!(reported(&set).await, [1]);
        set.resume(0);
        assert_eq!(reported(&set).await.len(), 2);
        assert!(members.iter().all(PolledSocket::is_valid));
        set.pause(7);
    }

    #[tokio::test]
    async fn each_of_many_has_its_turn() {
        let (set, _members, mut others) = set_of(3 * BATCH);
        for other in &mut others {
            other.write_all(b"x").unwrap();
        }
        let mut all = HashSet::new();
        // Nobody reads, so all of them always have news.
        for _ in 0..3 {
            all.extend(reported(&set).await);
        }
        assert_eq!(all.len(), others.len());
    }

    #[tokio::test]
    async fn a_member_added_on_another_thread_is_reported() {
        let (set, _members, _others) = set_of(1);
        let waiting = Arc::clone(&set);
        let ready = tokio::spawn(async move { waiting.ready().await.unwrap().keys().next() });
        // It waits from here on.
        tokio::task::yield_now().await;
        let (ours, mut other) = UnixStream::pair().unwrap();
        let member = std::thread::spawn(move || {
            let member = set.add(ours).unwrap();
            other.write_all(b"x").unwrap();
            (member, other)
        });
        let news = timeout(SILENCE, ready).await.unwrap();
        assert_eq!(news.unwrap(), Some(1));
        member.join().unwrap();
    }
}
