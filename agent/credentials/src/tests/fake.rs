//! An EKS Auth for the tests of this stage, on tokio's paused clock.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use podcreds_types::{Credentials, EksRefusal, RefusalKind, Token};
use podcreds_upstream::{AssumeRole, UpstreamError};
use tokio::{runtime::Handle, time::sleep};
use zeroize::Zeroizing;

use super::TestStore;
use crate::{Clock, Config};

/// What EKS Auth says to a token.
pub(super) type Answer = Result<Credentials, UpstreamError>;

/// Says what to answer to a token.
type Script = Box<dyn FnMut(&str) -> Answer + Send>;

/// Answers after `delay` as a closure says, and notes what it was asked.
#[derive(Clone)]
pub(super) struct Fake(Arc<State>);

struct State {
    delay: Mutex<Duration>,
    answer: Mutex<Script>,
    calls: Mutex<Vec<String>>,
    in_air: AtomicUsize,
}

impl Fake {
    pub(super) fn new(
        delay: Duration,
        answer: impl FnMut(&str) -> Answer + Send + 'static,
    ) -> Self {
        Self(Arc::new(State {
            delay: Mutex::new(delay),
            answer: Mutex::new(Box::new(answer)),
            calls: Mutex::default(),
            in_air: AtomicUsize::new(0),
        }))
    }

    /// Answers otherwise from now on.
    pub(super) fn now(&self, answer: impl FnMut(&str) -> Answer + Send + 'static) {
        *self.0.answer.lock().unwrap() = Box::new(answer);
    }

    /// Answers after `delay` from now on.
    pub(super) fn slow(&self, delay: Duration) {
        *self.0.delay.lock().unwrap() = delay;
    }

    /// The tokens that it was asked about, in order.
    pub(super) fn calls(&self) -> Vec<String> {
        self.0.calls.lock().unwrap().clone()
    }

    /// Calls that are not answered and that nobody has given up.
    pub(super) fn in_air(&self) -> usize {
        self.0.in_air.load(Ordering::SeqCst)
    }

    /// A store that asks it.
    pub(super) fn store(&self, config: Config, clock: Clock) -> TestStore {
        TestStore::start(
            config,
            Arc::new(self.clone()),
            None,
            clock,
            &Handle::current(),
        )
    }
}

/// Counts a call until it is answered or given up.
struct InAir(Arc<State>);

impl Drop for InAir {
    fn drop(&mut self) {
        self.0.in_air.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AssumeRole for Fake {
    fn assume_role(&self, token: Token) -> BoxFuture<'static, Answer> {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            state.in_air.fetch_add(1, Ordering::SeqCst);
            let in_air = InAir(state);
            let state = &in_air.0;
            state.calls.lock().unwrap().push(token.expose().to_owned());
            let delay = *state.delay.lock().unwrap();
            sleep(delay).await;
            let mut answer = state.answer.lock().unwrap_or_else(PoisonError::into_inner);
            answer(token.expose())
        })
    }
}

/// Credentials that name the token that they were given for.
pub(super) fn credentials(token: &str, expiration: SystemTime) -> Credentials {
    Credentials {
        access_key_id: token.to_owned(),
        secret_access_key: Zeroizing::new("secret".to_owned()),
        session_token: Zeroizing::new("session".to_owned()),
        account_id: "123456789012".to_owned(),
        role: "arn:aws:sts::123456789012:assumed-role/app".to_owned(),
        expiration,
    }
}

pub(super) fn refused() -> UpstreamError {
    UpstreamError::Refused(EksRefusal {
        kind: RefusalKind::NotFound,
        code: "ResourceNotFoundException".to_owned(),
        message: "no association".to_owned(),
    })
}
