//! A pod that takes all it can get: it keeps many connections busy, and opens each again that it
//! loses.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::anyhow;
use clap::ValueEnum;
use serde_json::json;

use crate::{
    cpu_ms, print,
    request::RequestOptions,
    socket::{CREDENTIALS, SocketOptions, raise_descriptor_limit},
    wait_for_end_of_input,
};

/// How long a thread rests when none of its connections had anything to do.
const PAUSE: Duration = Duration::from_millis(1);
/// How much of the answers is read at once.
const SCRATCH: usize = 64 * 1024;

#[derive(clap::Args)]
pub(crate) struct Flood {
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
    /// How many connections to keep.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// How many threads work on them.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Adds an Accept header of so many bytes, with media types that nobody has heard of.
    #[arg(long, default_value_t = 0)]
    accept: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// Sends request after request without waiting for answers, which it reads.
    Pipeline,
    /// The same, and never reads.
    NeverRead,
    /// Sends all of a request but the end.
    HalfRequest,
    /// Sends nothing.
    Idle,
}

/// What was done.
#[derive(Clone, Copy, Default)]
struct Done {
    opened: u64,
    requests: u64,
}

impl Flood {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        raise_descriptor_limit()?;
        let mut request = self.request.clone();
        if self.accept > 0 {
            let list = "text/x-nobody, ".repeat(self.accept / 15);
            request.add_header(format!("Accept: {list}text/plain"));
        }
        let request = request.bytes(false)?;
        let stop = AtomicBool::new(false);
        print(&json!({ "started": true }))?;
        let done = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads.max(1))
                .map(|_| scope.spawn(|| self.work(&request, &stop)))
                .collect();
            let ended = wait_for_end_of_input();
            stop.store(true, Ordering::Relaxed);
            ended?;
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked")))
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        Ok(print(&json!({
            "opened": done.iter().map(|done| done.opened).sum::<u64>(),
            "requests": done.iter().map(|done| done.requests).sum::<u64>(),
            "cpu_ms": cpu_ms()?,
        }))?)
    }

    /// One thread's part of the connections.
    fn work(&self, request: &[u8], stop: &AtomicBool) -> Done {
        let mut done = Done::default();
        let mut scratch = vec![0; SCRATCH];
        let count = self.connections.div_ceil(self.threads.max(1));
        let mut connections: Vec<_> = (0..count).map(|_| None).collect();
        while !stop.load(Ordering::Relaxed) {
            let mut is_busy = false;
            for connection in &mut connections {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                is_busy |= self.step(connection, request, &mut scratch, &mut done);
            }
            if !is_busy {
                thread::sleep(PAUSE);
            }
        }
        done
    }

    /// Does with a connection what can be done now, and says whether that was anything.
    fn step(
        &self,
        connection: &mut Option<Connection>,
        request: &[u8],
        scratch: &mut [u8],
        done: &mut Done,
    ) -> bool {
        let Some(open) = connection else {
            *connection = self.open();
            done.opened += u64::from(connection.is_some());
            return connection.is_some();
        };
        let heard = match self.mode {
            Mode::NeverRead => Ok(false),
            _ => open.hear(scratch),
        };
        let said = match self.mode {
            Mode::Pipeline | Mode::NeverRead => open.say(request, &mut done.requests),
            Mode::HalfRequest => open.say_once(&request[..request.len() - 2]),
            Mode::Idle => Ok(false),
        };
        match (heard, said) {
            (Ok(heard), Ok(said)) => heard || said,
            _ => {
                *connection = None;
                true
            }
        }
    }

    fn open(&self) -> Option<Connection> {
        let stream = self.socket.open(self.dst).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(Connection { stream, sent: 0 })
    }
}

struct Connection {
    stream: TcpStream,
    /// How much of the current request has been sent.
    sent: usize,
}

impl Connection {
    /// Reads what has come, and says whether it was anything.
    fn hear(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        let mut is_any = false;
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => is_any = true,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(is_any),
                Err(why) => return Err(why),
            }
        }
    }

    /// Sends the request again and again for as long as there is room, but not for ever.
    fn say(&mut self, request: &[u8], requests: &mut u64) -> io::Result<bool> {
        const AT_ONCE: u32 = 16;
        for number in 0..AT_ONCE {
            if !self.say_once(request)? && self.sent < request.len() {
                return Ok(number > 0);
            }
            if self.sent == request.len() {
                *requests += 1;
                self.sent = 0;
            }
        }
        Ok(true)
    }

    /// Sends the rest of these bytes, as far as there is room, and says whether that was anything.
    fn say_once(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if self.sent == bytes.len() {
            return Ok(false);
        }
        match self.stream.write(&bytes[self.sent..]) {
            Ok(sent) => {
                self.sent += sent;
                Ok(true)
            }
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(why) => Err(why),
        }
    }
}
