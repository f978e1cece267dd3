//! Where listeners are, and what is heard of it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::namespaces::netns::NetnsId;

/// Where listeners are: in a namespace, for all of its pods or for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Location {
    pub(crate) netns: NetnsId,
    /// A pod's cgroup id, in a namespace whose pods must not wait in one queue.
    pub(crate) only: Option<u64>,
}

/// News of a location.
pub(crate) enum News {
    /// Links or addresses there have changed.
    Changed(Location),
    /// A listener has died in the namespace with this cookie.
    Died(u64),
    /// The agent has tried whether one of its listeners can be reached.
    Tried(ReachabilityResult),
}

/// The result of such a try.
pub(crate) struct ReachabilityResult {
    pub(crate) location: Location,
    pub(crate) address: SocketAddr,
    pub(crate) is_reached: bool,
}

/// Sends news. Clones send to the same [`NewsReceiver`].
#[derive(Clone)]
pub(crate) struct NewsSender {
    sender: mpsc::UnboundedSender<News>,
    changed: Changed,
}

/// Where news arrive.
pub(crate) struct NewsReceiver {
    receiver: mpsc::UnboundedReceiver<News>,
    changed: Changed,
}

/// The locations of which it waits in the queue already that they have changed. A pod can change
/// its addresses faster than they are looked at, and must not fill the queue with that.
#[derive(Clone, Default)]
struct Changed(Arc<Mutex<HashSet<Location>>>);

/// A queue of news.
pub(crate) fn news() -> (NewsSender, NewsReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let changed = Changed::default();
    let sender = NewsSender {
        sender,
        changed: changed.clone(),
    };
    (sender, NewsReceiver { receiver, changed })
}

impl NewsSender {
    /// False if nobody hears them any more: the agent is ending.
    pub(crate) fn send(&self, news: News) -> bool {
        if let News::Changed(location) = news
            && !self.changed.lock().insert(location)
        {
            return !self.sender.is_closed();
        }
        self.sender.send(news).is_ok()
    }
}

impl NewsReceiver {
    /// Waits for the next news. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<News> {
        let news = self.receiver.recv().await;
        if let Some(News::Changed(location)) = &news {
            // What happens from now on is news again: it may be missed by the look that comes.
            self.changed.lock().remove(location);
        }
        news
    }
}

impl Changed {
    fn lock(&self) -> MutexGuard<'_, HashSet<Location>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::netns::Netns;

    #[tokio::test]
    async fn a_location_that_never_stops_changing_waits_in_the_queue_once() {
        let netns = Netns::of_agent().unwrap().id();
        let at = |only| Location { netns, only };
        let (sender, mut receiver) = news();
        for _ in 0..1000 {
            assert!(sender.send(News::Changed(at(Some(1)))));
        }
        sender.send(News::Changed(at(None)));
        let first = receiver.next().await;
        assert!(matches!(first, Some(News::Changed(location)) if location == at(Some(1))));
        sender.send(News::Changed(at(Some(1))));
        let mut rest = Vec::new();
        drop(sender);
        while let Some(News::Changed(location)) = receiver.next().await {
            rest.push(location.only);
        }
        assert_eq!(rest, [None, Some(1)]);
        let (sender, receiver) = news();
        drop(receiver);
        for _ in 0..2 {
            assert!(!sender.send(News::Changed(at(None))));
        }
    }
}
