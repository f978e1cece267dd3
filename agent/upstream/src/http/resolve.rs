//! Looking names up, once for all who wait for a name.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;

/// How long an answer is good for new connections: EKS Auth's own answers are good for a minute.
const KEEP: Duration = Duration::from_secs(30);

/// The addresses of a name, or why there are none.
type Addresses = Result<Arc<[IpAddr]>, Arc<str>>;
type LookUp = Shared<BoxFuture<'static, Addresses>>;
/// Asks the system.
type AskSystem = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Looks names up. A look-up goes on when those who asked have gone, and its answer is kept for a
/// moment, so that a slow resolver costs its time once and not with every attempt. Clones share
/// what they know.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Inner>);

struct Inner {
    ask: AskSystem,
    names: Mutex<HashMap<String, Name>>,
}

struct Name {
    look_up: LookUp,
    /// When the answer came.
    answered: Option<Instant>,
}

impl Resolver {
    /// Asks the system's resolver.
    pub(super) fn system() -> Self {
        Self::new(Arc::new(|name| {
            async move {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            }
            .boxed()
        }))
    }

    pub(super) fn new(ask: AskSystem) -> Self {
        Self(Arc::new(Inner {
            ask,
            names: Mutex::default(),
        }))
    }

    /// The addresses of a name, with port 0.
    pub(super) async fn look_up(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let answer = self.join(name).await;
        let addresses = answer.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(addresses.iter().map(|ip| SocketAddr::new(*ip, 0)).collect())
    }

    /// Has the next one look a name up again: nobody answers at its addresses.
    pub(super) fn forget(&self, name: &str) {
        let mut names = self.names();
        if names.get(name).is_some_and(|name| name.answered.is_some()) {
            names.remove(name);
        }
    }

    fn join(&self, name: &str) -> LookUp {
        let mut names = self.names();
        names.retain(|_, name| name.answered.is_none_or(|at| at.elapsed() < KEEP));
        if let Some(name) = names.get(name) {
            return name.look_up.clone();
        }
        let (this, owned) = (self.clone(), name.to_owned());
        let ask = (self.0.ask)(owned.clone());
        // A task of its own, which goes on when nobody waits any more.
        let task = tokio::spawn(async move {
            // It panics where the machine has no thread left for it.
            let answer = AssertUnwindSafe(ask).catch_unwind().await;
            let answer = answer.unwrap_or_else(|_| Err(io::Error::other("the look-up panicked")));
            this.note(&owned, answer.is_ok());
            answer
        });
        let answer = task.map(|done| match done {
            Ok(Ok(addresses)) => Ok(Arc::from(addresses)),
            Ok(Err(error)) => Err(Arc::from(error.to_string())),
            Err(_) => Err(Arc::from("the agent ends")),
        });
        let look_up = answer.boxed().shared();
        let entry = Name {
            look_up: look_up.clone(),
            answered: None,
        };
        names.insert(name.to_owned(), entry);
        look_up
    }

    /// Keeps an answer from now on. A failure is not kept.
    fn note(&self, name: &str, has_worked: bool) {
        let mut names = self.names();
        match names.get_mut(name) {
            Some(entry) if has_worked => entry.answered = Some(Instant::now()),
            _ => drop(names.remove(name)),
        }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::time::{sleep, timeout};

    use super::*;

    /// Takes its time, and then says 127.0.0.1.
    pub(in super::super) fn slow(takes: Duration) -> (Resolver, Arc<AtomicUsize>) {
        let asked = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&asked);
        let resolver = Resolver::new(Arc::new(move |_| {
            counter.fetch_add(1, Relaxed);
            async move {
                sleep(takes).await;
                Ok(vec![IpAddr::from([127, 0, 0, 1])])
            }
            .boxed()
        }));
        (resolver, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_goes_on_without_its_askers_and_serves_the_next() {
        let second = Duration::from_secs(1);
        let (resolver, asked) = slow(3 * second);
        for _ in 0..3 {
            let given_up = timeout(second / 2, resolver.look_up("a")).await;
            assert!(given_up.is_err());
        }
        assert_eq!(resolver.look_up("a").await.unwrap().len(), 1);
        sleep(KEEP - second).await;
        let at_once = timeout(second / 10, resolver.look_up("a")).await;
        assert_eq!(at_once.unwrap().unwrap().len(), 1);
        assert_eq!(asked.load(Relaxed), 1);
        sleep(2 * second).await;
        resolver.look_up("a").await.unwrap();
        assert_eq!(asked.load(Relaxed), 2);
        resolver.forget("a");
        resolver.look_up("a").await.unwrap();
        assert_eq!(asked.load(Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_kept() {
        let asked = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&asked);
        let resolver = Resolver::new(Arc::new(move |_| {
            counter.fetch_add(1, Relaxed);
            async { Err(io::Error::other("no such name")) }.boxed()
        }));
        for times in 1..4 {
            let error = resolver.look_up("a").await.unwrap_err();
            assert!(error.to_string().contains("no such name"), "{error}");
            assert_eq!(asked.load(Relaxed), times);
        }
    }
    #[test]
    fn a_machine_without_threads_costs_one_look_up_and_not_the_next() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            // More than there are addresses, so that no thread can be made.
            .thread_stack_size(1 << 50)
            .build()
            .unwrap();
        let resolver = Resolver::system();
        let error = runtime.block_on(resolver.look_up("a")).unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        assert!(resolver.names().is_empty());
    }
}
