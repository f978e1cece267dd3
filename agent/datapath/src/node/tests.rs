//! On loopback.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::net::UnixStream,
    thread,
};

use prometheus::Registry;
use socket2::SockRef;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::*;

/// One that is alone.
fn start(
    address: SocketAddr,
    need: Need,
) -> (
    Result<NodePath, DatapathError>,
    mpsc::UnboundedReceiver<Accepted>,
) {
    start_with(address, need, &lending(None))
}

/// One that borrows from another.
fn lending(other: Option<Arc<Lending>>) -> Arc<Lending> {
    Arc::new(Lending::new(Box::new(move || {
        let other = other.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (ours, theirs) = UnixStream::pair()?;
        other.lend(&theirs)?;
        Ok(ours)
    })))
}

fn start_with(
    address: SocketAddr,
    need: Need,
    lending: &Arc<Lending>,
) -> (
    Result<NodePath, DatapathError>,
    mpsc::UnboundedReceiver<Accepted>,
) {
    let (sender, accepted) = mpsc::unbounded_channel();
    let on_accept: OnAccept = Arc::new(move |connection| {
        let _sent = sender.send(connection);
    });
    let path = start_for(address, need, lending, &on_accept, &Vitals::default());
    (path, accepted)
}

/// One that does something else with what it accepts.
fn start_for(
    address: SocketAddr,
    need: Need,
    lending: &Arc<Lending>,
    on_accept: &OnAccept,
    vitals: &Vitals,
) -> Result<NodePath, DatapathError> {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let handle = Handle::current();
    NodePath::start(
        &[address],
        need,
        lending,
        on_accept,
        &handle,
        vitals,
        &metrics,
    )
}

fn free_address(loopback: IpAddr) -> SocketAddr {
    let free = TcpListener::bind((loopback, 0)).unwrap();
    free.local_addr().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_taken_is_listened_on_once_it_is_free() {
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = other.local_addr().unwrap();
    assert!(matches!(
        start(address, Need::Now).0,
        Err(DatapathError::Bind(_))
    ));

    let (path, mut accepted) = start(address, Need::Whenever);
    sleep(10 * LONGEST_PAUSE).await;
    drop(other);
    sleep(2 * LONGEST_PAUSE).await;
    let client = TcpStream::connect(address).await.unwrap();
    let accepted = accepted.recv().await.unwrap();
    assert_eq!(
        accepted.stream.peer_addr().unwrap(),
        client.local_addr().unwrap()
    );
    path.unwrap().stop(false).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_waits_for_one_agent_is_accepted_by_the_next() {
    for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let address = free_address(loopback);
        let ours = lending(None);
        let (old, to_old) = start_with(address, Need::Now, &ours);
        let theirs = lending(Some(Arc::clone(&ours)));
        let (new, mut to_new) = start_with(address, Need::Now, &theirs);
        assert!(
            start(address, Need::Now).0.is_err(),
            "let in without a loan"
        );
        // Nothing runs in between, so all of them wait.
        let clients: Vec<_> = (0..64)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        old.unwrap().stop(true).await;
        let mut accepted = to_old.len() + to_new.len();
        while accepted < clients.len() {
            let next = timeout(Duration::from_secs(60), to_new.recv()).await;
            next.expect("it was lost").unwrap();
            accepted += 1;
        }
        let _client = TcpStream::connect(address).await.unwrap();
        assert!(ours.borrow(address).is_err() && lending(Some(ours)).borrow(address).is_err());
        new.unwrap().stop(false).await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn a_backlog_that_never_empties_does_not_keep_the_agent() {
    let address = free_address(Ipv4Addr::LOCALHOST.into());
    // For each connection that is accepted another one comes, as from a client that floods.
    let (count, mut counted) = watch::channel(0);
    let on_accept: OnAccept = Arc::new(move |accepted| {
        drop(accepted);
        count.send_modify(|count| *count += 1);
        if let Ok(next) = std::net::TcpStream::connect(address) {
            // Its port is free at once: otherwise the flood would end for want of ports.
            SockRef::from(&next)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    });
    let vitals = Vitals::default();
    let lending = lending(None);
    let path = start_for(address, Need::Now, &lending, &on_accept, &vitals).unwrap();
    // Nobody is ignored at the end of a listener that another agent may have too.
    let other = UnixStream::pair().unwrap();
    lending.lend(&other.0).unwrap();
    for _ in 0..3 {
        drop(std::net::TcpStream::connect(address).unwrap());
    }
    // The flood is on.
    let floods = counted.wait_for(|count| *count > 100).await.is_ok();
    assert!(floods);
    let stopped = timeout(Duration::from_secs(60), path.stop(true)).await;
    stopped.expect("the end of the node path");
    assert_eq!(vitals.failed(), Vec::<String>::new());
    drop(other);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_waits_is_accepted_before_the_end() {
    let address = free_address(Ipv4Addr::LOCALHOST.into());
    let (path, accepted) = start(address, Need::Now);
    let _clients: Vec<_> = (0..64)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    // The task has not run yet: nothing has been awaited.
    assert_eq!(accepted.len(), 0);
    path.unwrap().stop(false).await;
    assert_eq!(accepted.len(), 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_let_in_before_the_end_is_accepted() {
    for _ in 0..20 {
        let address = free_address(Ipv4Addr::LOCALHOST.into());
        let lending = lending(None);
        let (path, mut accepted) = start_with(address, Need::Now, &lending);
        // To an agent that has gone since.
        let (stream, _) = UnixStream::pair().unwrap();
        let _lent = lending.lend(&stream);
        let client = thread::spawn(move || {
            let patience = Duration::from_millis(50);
            let connect = || std::net::TcpStream::connect_timeout(&address, patience).ok();
            std::iter::from_fn(connect).count()
        });
        for _ in 0..10 {
            accepted.recv().await.unwrap();
        }
        path.unwrap().stop(false).await;
        let let_in = client.join().unwrap();
        assert_eq!(accepted.len() + 10, let_in);
    }
}
