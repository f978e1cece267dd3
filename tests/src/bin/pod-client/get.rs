//! One connection, under a magnifying glass.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use podcreds_tests::http::client::{Answer, read_answer};
use serde_json::{Value, json};
use socket2::Socket;

use crate::{
    join::join_cgroup,
    print,
    request::RequestOptions,
    socket::{CREDENTIALS, SocketOptions, error_name},
};

#[derive(clap::Args)]
pub(crate) struct Get {
    /// Where to connect to.
    #[arg(long, default_value = CREDENTIALS)]
    dst: SocketAddr,
    #[command(flatten)]
    socket: SocketOptions,
    #[command(flatten)]
    request: RequestOptions,
    /// How many requests to make on the connection.
    #[arg(long, default_value_t = 1)]
    keepalive: u32,
    /// Sends one byte at a time, this far apart.
    #[arg(long)]
    trickle_ms: Option<u64>,
    /// Hangs up at this stage.
    #[arg(long)]
    hang_up: Option<Stage>,
    /// Moves to this cgroup on the way.
    #[arg(long)]
    move_to: Option<PathBuf>,
    /// When to move.
    #[arg(long, default_value = "before-connect")]
    move_when: Moment,
    /// Uses the socket that is this process' standard input.
    #[arg(long)]
    socket_on_stdin: bool,
    /// That socket is connected already.
    #[arg(long, requires = "socket_on_stdin")]
    connected: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Stage {
    /// Once connected.
    Connected,
    /// After half of the request.
    HalfRequest,
    /// After the request.
    Requested,
    /// After the first bytes of the answer.
    HalfAnswer,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Moment {
    /// The socket exists, and is not connected.
    BeforeConnect,
    /// The socket is connected, and nothing has been sent.
    AfterConnect,
}

impl Get {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let started = Instant::now();
        let socket = self.make_socket()?;
        self.maybe_move(Moment::BeforeConnect)?;
        if !self.connected
            && let Err(why) = self.socket.connect(&socket, self.dst)
        {
            return Ok(print(
                &json!({ "error": error_name(&why), "stage": "connect" }),
            )?);
        }
        let mut stream = TcpStream::from(socket);
        let connected = started.elapsed();
        self.maybe_move(Moment::AfterConnect)?;
        let ends = json!({
            "peer": stream.peer_addr().map(|peer| peer.to_string()).ok(),
            "local": stream.local_addr().map(|local| local.to_string()).ok(),
            "connect_us": micros(connected),
        });
        if let Some(stage) = self.hang_up {
            self.hang_up(stream, stage)?;
            return Ok(print(&merge(json!({ "hung_up": true }), &ends))?);
        }
        for remaining in (0..self.keepalive.max(1)).rev() {
            let asked = if remaining + 1 == self.keepalive {
                started
            } else {
                Instant::now()
            };
            let request = self.request.bytes(remaining == 0)?;
            let result = match self.exchange(&mut stream, &request) {
                Ok(answer) => describe(&answer, asked.elapsed()),
                Err(why) => json!({ "error": error_name(&why), "stage": "request" }),
            };
            let failed = result.get("error").is_some();
            print(&merge(result, &ends))?;
            if failed {
                break;
            }
        }
        Ok(())
    }

    fn make_socket(&self) -> io::Result<Socket> {
        if self.socket_on_stdin {
            return Ok(io::stdin().as_fd().try_clone_to_owned()?.into());
        }
        self.socket.make(self.dst)
    }

    fn maybe_move(&self, now: Moment) -> anyhow::Result<()> {
        match &self.move_to {
            Some(cgroup) if self.move_when == now => join_cgroup(cgroup),
            _ => Ok(()),
        }
    }

    fn exchange(&self, stream: &mut TcpStream, request: &[u8]) -> io::Result<Answer> {
        match self.trickle_ms {
            None => stream.write_all(request)?,
            Some(pause) => {
                for byte in request {
                    stream.write_all(&[*byte])?;
                    thread::sleep(Duration::from_millis(pause));
                }
            }
        }
        read_answer(stream)
    }

    fn hang_up(&self, mut stream: TcpStream, stage: Stage) -> anyhow::Result<()> {
        let request = self.request.bytes(true)?;
        match stage {
            Stage::Connected => {}
            Stage::HalfRequest => stream.write_all(&request[..request.len() / 2])?,
            Stage::Requested => stream.write_all(&request)?,
            Stage::HalfAnswer => {
                stream.write_all(&request)?;
                stream.read_exact(&mut [0; 16])?;
            }
        }
        Ok(())
    }
}

fn describe(answer: &Answer, latency: Duration) -> Value {
    json!({
        "status": answer.status,
        "headers": answer.headers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "body": answer.json().unwrap_or_else(|| answer.body.clone().into()),
        "keep_alive": answer.keep_alive,
        "latency_us": micros(latency),
    })
}

fn merge(mut into: Value, more: &Value) -> Value {
    if let (Some(into), Some(more)) = (into.as_object_mut(), more.as_object()) {
        into.extend(more.clone());
    }
    into
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
