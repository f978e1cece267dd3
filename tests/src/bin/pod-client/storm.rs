//! Many requests from many threads: a burst, or a load at a fixed rate.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use podcreds_tests::{
    aws::Owner,
    http::client::{Answer, read_answer},
};
use serde_json::json;

use crate::{
    print,
    request::RequestOptions,
    socket::{CREDENTIALS, SocketOptions, error_name},
    wait_for_end_of_input,
};

/// Of which parts of the requests it says how long they took.
const QUANTILES: [f64; 14] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0,
];

#[derive(clap::Args)]
pub(crate) struct Storm {
    /// Where to connect to; with several, connections take turns.
    #[arg(long, default_value = CREDENTIALS)]
    dst: Vec<SocketAddr>,
    #[command(flatten)]
    socket: SocketOptions,
    #[command(flatten)]
    request: RequestOptions,
    /// How many threads ask, each on a connection of its own.
    #[arg(long, default_value_t = 8)]
    threads: usize,
    /// How many requests there are in all.
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Asks until the input ends, however many requests that are.
    #[arg(long, conflicts_with = "requests")]
    until_end_of_input: bool,
    /// How many requests are made on one connection.
    #[arg(long, default_value_t = 1)]
    keepalive: u32,
    /// Shows another token each time: the pod's own, with a signature that is none.
    #[arg(long)]
    forge: bool,
    /// Requests per second, made on time however slow the answers are (as far as there are
    /// threads): latencies then count from when a request was due. Without it, as fast as answers
    /// come.
    #[arg(long)]
    rate: Option<f64>,
}

impl Storm {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        crate::socket::raise_descriptor_limit()?;
        let last = self.keepalive <= 1 && !self.request.http10;
        let request = self.request.bytes(last)?;
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let started = Instant::now();
        let tallies = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads.max(1))
                .map(|number| {
                    let worker = Worker {
                        storm: &self,
                        request: &request,
                        next: &next,
                        stop: &stop,
                        started,
                    };
                    scope.spawn(move || worker.run(number))
                })
                .collect();
            if self.until_end_of_input {
                wait_for_end_of_input()?;
                stop.store(true, Ordering::Relaxed);
            }
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked")))
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        let mut sum = Tally::default();
        for tally in tallies {
            sum.add(tally);
        }
        sum.print(started.elapsed())
    }
}

struct Worker<'a> {
    storm: &'a Storm,
    request: &'a [u8],
    next: &'a AtomicUsize,
    stop: &'a AtomicBool,
    started: Instant,
}

impl Worker<'_> {
    fn run(&self, number: usize) -> Tally {
        let mut tally = Tally::default();
        let mut connection = None;
        let mut opened = number;
        loop {
            let request = self.next.fetch_add(1, Ordering::Relaxed);
            if self.is_over(request) {
                return tally;
            }
            let due = self.wait_for_turn(request);
            let result = self.ask(&mut connection, &mut opened, request);
            tally.count(&result, due.elapsed());
        }
    }

    fn is_over(&self, request: usize) -> bool {
        if self.storm.until_end_of_input {
            self.stop.load(Ordering::Relaxed)
        } else {
            request >= self.storm.requests
        }
    }

    /// Waits until a request is due, and returns when that was.
    fn wait_for_turn(&self, request: usize) -> Instant {
        let Some(rate) = self.storm.rate else {
            return Instant::now();
        };
        let due = self.started + Duration::from_secs_f64(request as f64 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due
    }

    fn ask(
        &self,
        connection: &mut Option<(TcpStream, u32)>,
        opened: &mut usize,
        number: usize,
    ) -> io::Result<Answer> {
        let forged = self.storm.forge.then(|| self.forged(number)).transpose()?;
        let request = forged.as_deref().unwrap_or(self.request);
        let (mut stream, used) = match connection.take() {
            Some(kept) => kept,
            None => {
                let destination = self.storm.dst[*opened % self.storm.dst.len()];
                *opened += 1;
                (self.storm.socket.open(destination)?, 0)
            }
        };
        stream.write_all(request)?;
        let answer = read_answer(&mut stream)?;
        if answer.keep_alive && used + 1 < self.storm.keepalive {
            *connection = Some((stream, used + 1));
        }
        Ok(answer)
    }
}

impl Worker<'_> {
    /// A request with a token that nobody has shown before.
    fn forged(&self, number: usize) -> io::Result<Vec<u8>> {
        let options = &self.storm.request;
        let token = options.token().map_err(io::Error::other)?;
        let token = format!("{}{number}", token.unwrap_or_default());
        let last = self.storm.keepalive <= 1 && !options.http10;
        let request = options.with_token(token).bytes(last);
        request.map_err(io::Error::other)
    }
}

/// What came back.
#[derive(Default)]
struct Tally {
    /// By status, or by the error's name.
    outcomes: BTreeMap<String, u64>,
    /// By access key ID.
    keys: BTreeMap<String, u64>,
    /// By the UID of the pod that the credentials are of.
    owners: BTreeMap<String, u64>,
    latencies: Vec<Duration>,
}

impl Tally {
    fn count(&mut self, result: &io::Result<Answer>, latency: Duration) {
        self.latencies.push(latency);
        let outcome = match result {
            Ok(answer) => answer.status.to_string(),
            Err(why) => error_name(why),
        };
        *self.outcomes.entry(outcome).or_default() += 1;
        let body = result
            .as_ref()
            .ok()
            .and_then(Answer::json)
            .unwrap_or_default();
        if let Some(key) = body["AccessKeyId"].as_str() {
            *self.keys.entry(key.to_owned()).or_default() += 1;
        }
        if let Some(Ok(owner)) = body["Token"].as_str().map(str::parse::<Owner>) {
            *self.owners.entry(owner.uid).or_default() += 1;
        }
    }

    fn add(&mut self, other: Self) {
        let mine = [&mut self.outcomes, &mut self.keys, &mut self.owners];
        for (mine, theirs) in mine
            .into_iter()
            .zip([other.outcomes, other.keys, other.owners])
        {
            for (name, count) in theirs {
                *mine.entry(name).or_default() += count;
            }
        }
        self.latencies.extend(other.latencies);
    }

    fn print(mut self, elapsed: Duration) -> anyhow::Result<()> {
        self.latencies.sort_unstable();
        let at = |quantile: f64| {
            let last = self.latencies.len().saturating_sub(1) as f64;
            let latency = self.latencies.get((last * quantile).round() as usize);
            latency.map(Duration::as_micros)
        };
        let quantiles = QUANTILES.map(|quantile| (quantile, at(quantile)));
        let result = json!({
            "requests": self.latencies.len(),
            "outcomes": self.outcomes,
            "keys": self.keys,
            "owners": self.owners,
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "max_us": at(1.0),
            "quantiles_us": quantiles,
            "elapsed_ms": elapsed.as_millis(),
        });
        Ok(print(&result)?)
    }
}
