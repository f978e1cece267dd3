//! One answer a slice, and no more refusals on one connection than a client has use for.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, header};
use hyper::service::Service;

use super::connection_state::ConnectionState;

/// A service whose connection gives one answer in each of its slices, however many requests wait on
/// it. After too many refusals in a row the connection is closed.
pub(super) struct AnswerLimit<T> {
    inner: T,
    state: Arc<ConnectionState>,
}

/// An answer that waits for its slice.
pub(super) struct LimitedAnswer<F> {
    inner: F,
    state: Arc<ConnectionState>,
}

impl<T> AnswerLimit<T> {
    pub(super) fn new(inner: T, state: Arc<ConnectionState>) -> Self {
        Self { inner, state }
    }
}

impl<T, A, B> Service<Request<A>> for AnswerLimit<T>
where
    T: Service<Request<A>, Response = Response<B>, Error = Infallible>,
    T::Future: Unpin,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = LimitedAnswer<T::Future>;

    fn call(&self, request: Request<A>) -> Self::Future {
        self.state.begin_answer();
        LimitedAnswer {
            inner: self.inner.call(request),
            state: Arc::clone(&self.state),
        }
    }
}

impl<F, B> Future for LimitedAnswer<F>
where
    F: Future<Output = Result<Response<B>, Infallible>> + Unpin,
{
    type Output = Result<Response<B>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.state.has_answered() {
            // There is more to do in this connection's next slice.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Answers that nobody reads would only take memory. The stream wakes the connection once
        // they are read.
        if self.state.holds_back() {
            return Poll::Pending;
        }
        let Ok(mut answer) = ready!(Pin::new(&mut self.inner).poll(context));
        self.state.answered(answer.status());
        if self.state.is_refused_too_often() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
            self.state.end();
        }
        Poll::Ready(Ok(answer))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{self, Ready},
        task::Waker,
    };

    use http::StatusCode;

    use super::*;
    use crate::connection_state::REFUSALS;

    /// Answers with the status that is asked for.
    struct Echo;

    impl Service<Request<StatusCode>> for Echo {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = Ready<Result<Response<()>, Infallible>>;

        fn call(&self, request: Request<StatusCode>) -> Self::Future {
            let mut answer = Response::new(());
            *answer.status_mut() = request.into_body();
            future::ready(Ok(answer))
        }
    }

    fn service() -> (AnswerLimit<Echo>, Arc<ConnectionState>) {
        let state = Arc::new(ConnectionState::default());
        (AnswerLimit::new(Echo, Arc::clone(&state)), state)
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_connection_gives_one_answer_a_slice() {
        let (service, state) = service();
        let mut first = service.call(Request::new(StatusCode::OK));
        assert!(poll(&mut first).is_ready());
        let mut second = service.call(Request::new(StatusCode::OK));
        assert!(poll(&mut second).is_pending());
        state.begin_slice();
        assert!(poll(&mut second).is_ready());
    }

    #[test]
    fn an_answer_waits_until_the_last_one_is_read() {
        let (service, state) = service();
        let mut answer = service.call(Request::new(StatusCode::OK));
        state.stall();
        assert!(poll(&mut answer).is_pending());
        assert!(state.flushed());
        assert!(poll(&mut answer).is_ready());
        assert!(!state.flushed());
    }

    #[test]
    fn a_connection_is_closed_after_32_refusals_in_a_row() {
        let (service, state) = service();
        let closes = |status| {
            state.begin_slice();
            let mut answer = service.call(Request::new(status));
            let Poll::Ready(Ok(answer)) = poll(&mut answer) else {
                panic!("no answer")
            };
            answer.headers().contains_key(header::CONNECTION)
        };
        // Neither an answer in between nor what is the agent's own trouble counts.
        for _ in 0..10 {
            for _ in 0..REFUSALS - 1 {
                assert!(!closes(StatusCode::BAD_REQUEST));
            }
            assert!(!closes(StatusCode::OK));
            assert!(!closes(StatusCode::SERVICE_UNAVAILABLE));
        }
        for _ in 0..REFUSALS - 1 {
            assert!(!closes(StatusCode::NOT_FOUND));
        }
        assert!(closes(StatusCode::FORBIDDEN));
        assert!(state.is_ending());
    }
}
