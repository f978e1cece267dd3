//! A pod that misbehaves.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use clap::ValueEnum;
use podcreds_tests::http::client::read_answer;
use serde_json::json;

use crate::{
    cpu_ms, print,
    request::RequestOptions,
    socket::{CREDENTIALS, SocketOptions, error_name, raise_descriptor_limit},
    wait_for_end_of_input,
};

/// The kernel doubles it, and has a minimum.
const SMALL: usize = 2048;

#[derive(clap::Args)]
pub(crate) struct Hold {
    /// Where to connect to.
    #[arg(long, default_value = CREDENTIALS)]
    dst: SocketAddr,
    #[command(flatten)]
    socket: SocketOptions,
    #[command(flatten)]
    request: RequestOptions,
    /// What to do with the connections.
    #[arg(long)]
    mode: Mode,
    /// How many connections to hold, or how many threads to loop.
    #[arg(long, default_value_t = 100)]
    connections: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// Connects and says nothing.
    Idle,
    /// Sends half a request.
    HalfRequest,
    /// Sends requests for as long as the peer takes them, and never reads.
    NeverRead,
    /// Connects and closes, again and again.
    Churn,
    /// Starts to connect and closes without waiting, again and again.
    Abandon,
    /// Asks with one forged token after the other: its own, with signatures that nobody has made.
    Forge,
}

impl Hold {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        raise_descriptor_limit()?;
        match self.mode {
            Mode::Idle | Mode::HalfRequest | Mode::NeverRead => self.hold(),
            Mode::Churn | Mode::Abandon | Mode::Forge => self.repeat(),
        }
    }

    /// Opens the connections, says how many there are, and keeps them until the input ends.
    fn hold(&self) -> anyhow::Result<()> {
        let request = self.request.bytes(false)?;
        let mut held = Vec::new();
        let mut failed = BTreeMap::<String, u64>::new();
        for _ in 0..self.connections {
            match self.open(&request) {
                Ok(stream) => held.push(stream),
                Err(why) => *failed.entry(error_name(&why)).or_default() += 1,
            }
        }
        print(&json!({ "held": held.len(), "failed": failed }))?;
        Ok(wait_for_end_of_input()?)
    }

    fn open(&self, request: &[u8]) -> io::Result<TcpStream> {
        let socket = self.socket.make(self.dst)?;
        if self.mode == Mode::NeverRead {
            // Small buffers are full soon.
            socket.set_recv_buffer_size(SMALL)?;
            socket.set_send_buffer_size(SMALL)?;
        }
        self.socket.connect(&socket, self.dst)?;
        let mut stream = TcpStream::from(socket);
        match self.mode {
            Mode::HalfRequest => stream.write_all(&request[..request.len() / 2])?,
            Mode::NeverRead => send_until_full(&mut stream, request)?,
            _ => {}
        }
        Ok(stream)
    }

    /// Loops on so many threads until the input ends, and says how often each step went well.
    fn repeat(&self) -> anyhow::Result<()> {
        let stop = AtomicBool::new(false);
        let (begun, rounds) = (AtomicU64::new(0), AtomicU64::new(0));
        print(&json!({ "started": true }))?;
        thread::scope(|scope| {
            for _ in 0..self.connections {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        if self.round(begun.fetch_add(1, Ordering::Relaxed)).is_ok() {
                            rounds.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let ended = wait_for_end_of_input();
            stop.store(true, Ordering::Relaxed);
            ended
        })?;
        Ok(print(
            &json!({ "rounds": rounds.into_inner(), "cpu_ms": cpu_ms()? }),
        )?)
    }

    fn round(&self, number: u64) -> anyhow::Result<()> {
        match self.mode {
            Mode::Forge => self.forge(number),
            Mode::Abandon => Ok(self.abandon()?),
            _ => Ok(self.socket.open(self.dst).map(drop)?),
        }
    }

    fn forge(&self, number: u64) -> anyhow::Result<()> {
        let token = self.request.token()?.unwrap_or_default();
        let claims = token.rsplit_once('.').map_or("", |(claims, _)| claims);
        let request = self.request.with_token(format!("{claims}.{number:0342}"));
        let mut stream = self.socket.open(self.dst)?;
        stream.write_all(&request.bytes(true)?)?;
        read_answer(&mut stream)?;
        Ok(())
    }

    fn abandon(&self) -> io::Result<()> {
        let socket = self.socket.make(self.dst)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.dst.into()) {
            Err(why) if why.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(why),
            _ => Ok(()),
        }
    }
}

fn send_until_full(stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(100)))?;
    loop {
        match stream.write_all(request) {
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            sent => sent?,
        }
    }
}
