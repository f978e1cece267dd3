//! On addresses of this machine: what makes them listeners of pods is nothing that accepting
//! depends on.

use std::{
    fs,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    sync::atomic::{AtomicU16, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use prometheus::Registry;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::{sync::mpsc, time::timeout};

use super::*;

/// More than epoll reports at once.
const LISTENERS: u64 = 40;
/// How many wait for each listener.
const WAITING: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// Listeners on addresses of this machine, numbered by what stands for their namespaces' cookies.
fn serve(listeners: &Listeners, count: u64) -> Vec<(ListenerGuard, TcpListener)> {
    let serve = |netns| {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let copy = socket.try_clone().unwrap();
        let port = socket.local_addr().unwrap().port();
        let listener = Listener {
            socket,
            port,
            netns,
            held: None,
        };
        (listeners.serve(listener).unwrap(), copy)
    };
    (0..count).map(serve).collect()
}

fn connect(listener: &TcpListener, count: usize) -> Vec<std::net::TcpStream> {
    let address: SocketAddr = listener.local_addr().unwrap();
    let connect = |_| std::net::TcpStream::connect(address).unwrap();
    let clients = (0..count).map(connect).collect();
    wait_for(listener, count);
    clients
}

/// Waits until so many wait for a listener. The end of a handshake may be late.
fn wait_for(listener: &TcpListener, count: usize) {
    let port = format!(":{:04X}", listener.local_addr().unwrap().port());
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The fifth field of one that listens (0A) ends with how many wait.
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let waiting = table.lines().find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let is_it = fields[1].ends_with(&port) && fields[3] == "0A";
            is_it.then(|| usize::from_str_radix(&fields[4][9..], 16).unwrap())
        });
        if waiting == Some(count) {
            return;
        }
        assert!(Instant::now() < deadline, "{waiting:?} wait, not {count}");
    }
}

fn start(accept: OnStream) -> (Listeners, Metrics) {
    let (listeners, metrics, _) = start_with(Box::new(take), accept);
    (listeners, metrics)
}

/// With another way to accept.
fn start_with(take: Take, accept: OnStream) -> (Listeners, Metrics, Vitals) {
    let (metrics, vitals) = (
        Metrics::register(&Registry::new()).unwrap(),
        Vitals::default(),
    );
    let handle = Handle::current();
    let listeners =
        Listeners::start(take, accept, Box::new(drop), &metrics, &handle, &vitals).unwrap();
    (listeners, metrics, vitals)
}

/// A way to accept that fails with `errno` at the listener with this port, as long as `fails` says
/// so.
fn failing(
    errno: Errno,
    port: &Arc<AtomicU16>,
    fails: impl Fn() -> bool + Send + Sync + 'static,
) -> Take {
    let port = Arc::clone(port);
    Box::new(move |listener| {
        let here = listener.local_addr()?.port();
        if here == port.load(Ordering::Relaxed) && fails() {
            return Err(errno.into());
        }
        take(listener)
    })
}

/// Sends what is accepted to the test.
fn collect() -> (OnStream, mpsc::UnboundedReceiver<u64>) {
    let (sender, accepted) = mpsc::unbounded_channel();
    let accept = Box::new(move |_, netns| sender.send(netns).unwrap());
    (accept, accepted)
}

#[tokio::test]
async fn what_waits_is_accepted_before_the_end() {
    let (accept, accepted) = collect();
    let (mut listeners, metrics) = start(accept);
    let served = serve(&listeners, LISTENERS);
    let _clients: Vec<_> = served
        .iter()
        .map(|(_, listener)| connect(listener, WAITING))
        .collect();
    assert_eq!(metrics.listeners.get(), LISTENERS.cast_signed());
    // The task has not run yet: nothing has been awaited.
    assert_eq!(accepted.len(), 0);
    timeout(PATIENCE, listeners.drain()).await.unwrap();
    assert_eq!(accepted.len(), LISTENERS as usize * WAITING);
    drop(served);
    assert_eq!(metrics.listeners.get(), 0);
}

#[tokio::test]
async fn a_flooding_pod_has_one_turn_at_a_time() {
    let (accept, mut accepted) = collect();
    let (listeners, _) = start(accept);
    let served = serve(&listeners, 3);
    let _flood = connect(&served[0].1, 50);
    let _quiet = [1, 2].map(|quiet| connect(&served[quiet].1, 1));
    let mut first = Vec::new();
    for _ in 0..3 {
        let next = timeout(PATIENCE, accepted.recv()).await.unwrap();
        first.push(next.unwrap());
    }
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2]);
}

#[tokio::test]
async fn a_connection_that_makes_us_panic_costs_nobody_else() {
    let passed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&passed);
    let (mut listeners, metrics) = start(Box::new(move |_, netns| {
        assert_ne!(netns, 0, "the mistake");
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let served = serve(&listeners, 2);
    let _clients = [0, 1].map(|of| connect(&served[of].1, WAITING));
    timeout(PATIENCE, listeners.drain()).await.unwrap();
    assert_eq!(passed.load(Ordering::Relaxed), WAITING);
    assert_eq!(metrics.errors.get(), WAITING as u64);
}

#[tokio::test]
async fn a_listener_that_is_dead_is_closed() {
    let (accept, mut accepted) = collect();
    let (listeners, metrics) = start(accept);
    let served = serve(&listeners, 2);
    SockRef::from(&served[0].1)
        .shutdown(Shutdown::Both)
        .unwrap();
    let _client = connect(&served[1].1, 1);
    let accepted = timeout(PATIENCE, accepted.recv()).await.unwrap();
    assert_eq!(accepted, Some(1));
    let dies = async {
        while !served[0].0.is_dead() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, dies).await.unwrap();
    assert!(!served[1].0.is_dead());
    assert_eq!((metrics.listeners.get(), metrics.errors.get()), (1, 1));
}

#[tokio::test]
async fn a_listener_that_nothing_can_be_accepted_from_holds_up_no_other() {
    for errno in [Errno::PERM, Errno::MFILE] {
        let (port, calls) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&calls);
        let fails = failing(errno, &port, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            true
        });
        let (accept, mut accepted) = collect();
        let (mut listeners, metrics, _) = start_with(fails, accept);
        let served = serve(&listeners, 3);
        port.store(served[0].1.local_addr().unwrap().port(), Ordering::Relaxed);
        let _clients = [0, 1, 2].map(|of| connect(&served[of].1, 50));
        for _ in 0..100 {
            timeout(PATIENCE, accepted.recv()).await.unwrap().unwrap();
        }
        // Once each 50 ms, and not in each turn.
        let calls = calls.load(Ordering::Relaxed);
        assert!((1..50).contains(&calls), "{calls}");
        assert!(metrics.errors.get() > 0);
        let _last = [1, 2].map(|of| connect(&served[of].1, WAITING));
        timeout(PATIENCE, listeners.drain()).await.unwrap();
        assert_eq!(accepted.len(), 2 * WAITING);
    }
}

#[tokio::test]
async fn accepting_goes_on_when_descriptors_are_free_again() {
    let (port, lacking) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicUsize::new(3)));
    let fails = failing(Errno::NFILE, &port, move || {
        let before = lacking.load(Ordering::Relaxed);
        lacking.store(before.saturating_sub(1), Ordering::Relaxed);
        before > 0
    });
    let (accept, mut accepted) = collect();
    let (listeners, metrics, _) = start_with(fails, accept);
    let served = serve(&listeners, 1);
    port.store(served[0].1.local_addr().unwrap().port(), Ordering::Relaxed);
    let _clients = connect(&served[0].1, WAITING);
    for _ in 0..WAITING {
        timeout(PATIENCE, accepted.recv()).await.unwrap().unwrap();
    }
    assert_eq!(metrics.errors.get(), 3);
}

#[tokio::test]
async fn a_dead_listener_is_noticed_though_descriptors_have_run_out() {
    let port = Arc::new(AtomicU16::new(0));
    let fails = failing(Errno::MFILE, &port, || true);
    let (listeners, _, _) = start_with(fails, collect().0);
    let served = serve(&listeners, 1);
    port.store(served[0].1.local_addr().unwrap().port(), Ordering::Relaxed);
    SockRef::from(&served[0].1)
        .shutdown(Shutdown::Both)
        .unwrap();
    let dies = async {
        while !served[0].0.is_dead() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, dies).await.unwrap();
}

#[tokio::test]
async fn accepting_goes_on_after_a_panic() {
    let calls = AtomicUsize::new(0);
    let panics_at_first = Box::new(move |listener: &TcpListener| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) > 1, "the mistake");
        take(listener)
    });
    let (accept, mut accepted) = collect();
    let (listeners, _, vitals) = start_with(panics_at_first, accept);
    let served = serve(&listeners, 1);
    let _clients = connect(&served[0].1, WAITING);
    for _ in 0..WAITING {
        timeout(PATIENCE, accepted.recv()).await.unwrap().unwrap();
    }
    assert_eq!(vitals.failed(), Vec::<String>::new());
}

#[tokio::test]
async fn accepting_that_panics_again_and_again_is_told() {
    let panics = Box::new(|_: &TcpListener| panic!("the mistake"));
    let (listeners, _, vitals) = start_with(panics, collect().0);
    let served = serve(&listeners, 1);
    let _client = connect(&served[0].1, 1);
    let told = async {
        while vitals.failed().is_empty() {
            sleep(EXHAUSTED_PAUSE).await;
        }
    };
    timeout(PATIENCE, told).await.unwrap();
    assert_eq!(vitals.failed(), [ACCEPTING]);
}

#[tokio::test]
async fn open_connections_have_turns_while_a_pod_floods() {
    let (accept, accepted) = collect();
    let (listeners, _) = start(accept);
    let served = serve(&listeners, 1);
    let flood = 3 * TURN + 1;
    let _clients = connect(&served[0].1, flood);
    let (mut most, mut before) = (0, 0);
    while before < flood {
        yield_now().await;
        let now = accepted.len();
        most = most.max(now - before);
        before = now;
    }
    assert!(most <= TURN, "{most} at once");
}

#[tokio::test]
async fn a_backlog_that_never_empties_does_not_keep_the_agent() {
    let address: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    let again = Arc::clone(&address);
    let (mut listeners, _) = start(Box::new(move |stream, _| {
        drop(stream);
        // For each connection that is accepted another one comes.
        let address = again.lock().unwrap().unwrap();
        drop(std::net::TcpStream::connect(address).unwrap());
    }));
    let served = serve(&listeners, 1);
    *address.lock().unwrap() = Some(served[0].1.local_addr().unwrap());
    let _clients = connect(&served[0].1, 3);
    timeout(PATIENCE, listeners.drain()).await.unwrap();
}
