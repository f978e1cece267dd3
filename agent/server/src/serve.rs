//! Connections: admitted, served, and ended.

use std::{
    error::Error,
    io,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use podcreds_credentials::Store;
use podcreds_types::{PodRecords, Refusal, RefusedCallers};
use prometheus::Registry;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    Config, Identify, Metrics,
    accounts::Accounts,
    answer_limit::AnswerLimit,
    connection_state::ConnectionState,
    endpoint::{Endpoint, RequestHandler},
    limits::{ConnectionLimits, Slot},
    scheduler::Scheduler,
    stream::{TimedStream, Transport},
};

/// How long a client that has connected, and asked for nothing yet, is heard during a drain. Its
/// request is on the way, and no other agent can answer it.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// hyper's own floor, below which it would panic.
const MIN_HEAD: usize = 8 * 1024;

/// The credentials endpoint, for connections that others accept.
pub struct Server {
    endpoint: Arc<Endpoint>,
    http: http1::Builder,
    write_timeout: Duration,
    limits: ConnectionLimits,
    scheduler: Scheduler,
    connections: TaskTracker,
}

/// When a connection came about.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it was accepted.
    pub accepted: Instant,
    /// When the pod called `connect()`, where the kernel has told.
    pub connected: Option<Instant>,
}

type Connection<S, I> = http1::Connection<TokioIo<TimedStream<S>>, AnswerLimit<RequestHandler<I>>>;

impl Server {
    /// An endpoint that hands out what is in `store`, and notes in `pods` which pods have got it,
    /// in `refused` who has got nothing.
    ///
    /// # Errors
    ///
    /// When metrics by service account are wanted and registered already.
    pub fn new(
        config: &Config,
        store: Store,
        pods: PodRecords,
        refused: RefusedCallers,
        metrics: Metrics,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_buf_size(config.max_head.max(MIN_HEAD))
            // A client may say that it has nothing more to ask and still wait for its answer.
            .half_close(true);
        let limits = ConnectionLimits::new(config, metrics.clone());
        let accounts = match config.service_account_metrics {
            0 => None,
            limit => Some(Accounts::register(limit, pods.clone(), registry)?),
        };
        Ok(Self {
            endpoint: Arc::new(Endpoint {
                store,
                pods,
                refused,
                metrics,
                accounts,
                draining: CancellationToken::new(),
            }),
            http,
            write_timeout: config.write_timeout,
            limits,
            scheduler: Scheduler::default(),
            connections: TaskTracker::new(),
        })
    }

    /// Serves a connection in a task of its own on the current runtime. One too many is closed.
    pub fn serve<S, I>(self: &Arc<Self>, stream: S, caller: I, times: Times)
    where
        S: Transport,
        I: Identify,
    {
        let state = Arc::new(ConnectionState::default());
        let Some(slot) = self.limits.admit(caller.origin(), &state) else {
            let refusal = Refusal::TooManyConnections;
            self.endpoint.refuse(caller.evidence(), refusal, None);
            return;
        };
        let (server, its_own) = (Arc::clone(self), Arc::clone(&state));
        let task = self.connections.spawn(async move {
            server.run(stream, caller, times, &its_own, &slot).await;
        });
        state.runs_in(task.abort_handle());
    }

    /// Closes idle connections, and every other one after its next answer, and waits for them.
    pub async fn drain(&self) {
        self.endpoint.draining.cancel();
        self.connections.close();
        self.connections.wait().await;
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.connections.len()
    }

    async fn run<S, I>(
        &self,
        stream: S,
        caller: I,
        times: Times,
        state: &Arc<ConnectionState>,
        slot: &Slot,
    ) where
        S: Transport,
        I: Identify,
    {
        let evidence = caller.evidence();
        let roads = self.endpoint.metrics.roads.clone();
        let stream = TimedStream::new(stream, Arc::clone(state), roads, self.write_timeout);
        let endpoint = Arc::clone(&self.endpoint);
        let handler = RequestHandler::new(endpoint, caller, times, Arc::clone(state));
        let service = AnswerLimit::new(handler, Arc::clone(state));
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let share = slot.share();
        let ended = tokio::select! {
            biased;
            ended = self.scheduler.run(connection.as_mut(), share, state) => ended,
            () = self.endpoint.draining.cancelled() => {
                self.finish(connection, state, slot).await
            }
        };
        let refuse = |refusal| self.endpoint.refuse(evidence, refusal, None);
        if state.is_refused_too_often() {
            refuse(Refusal::TooManyRefusals);
        }
        if let Err(error) = ended {
            debug!(%error, "a connection failed");
            if let Some(refusal) = fault(&error, state) {
                refuse(refusal);
            }
        }
    }

    /// Brings a connection to its end. Whatever it is answered from here on says so.
    async fn finish<S, I>(
        &self,
        mut connection: Pin<&mut Connection<S, I>>,
        state: &Arc<ConnectionState>,
        slot: &Slot,
    ) -> hyper::Result<()>
    where
        S: Transport,
        I: Identify,
    {
        let share = slot.share();
        if state.is_new() {
            let first = self.scheduler.run(connection.as_mut(), share, state);
            if let Ok(ended) = timeout(FIRST_REQUEST, first).await {
                return ended;
            }
        }
        connection.as_mut().graceful_shutdown();
        self.scheduler.run(connection, share, state).await
    }
}

/// What the client did wrong, if it was the client and not the network.
fn fault(error: &hyper::Error, state: &ConnectionState) -> Option<Refusal> {
    if error.is_parse_too_large() {
        Some(Refusal::HeadTooLarge)
    } else if error.is_parse() {
        Some(Refusal::MalformedRequest)
    } else if error.is_timeout() {
        // The time is also up for clients that kept their connection and had no more to ask.
        state.is_behind().then_some(Refusal::HeadTimeout)
    } else {
        let cause = error.source()?.downcast_ref::<io::Error>()?;
        (cause.kind() == io::ErrorKind::TimedOut).then_some(Refusal::WriteTimeout)
    }
}
