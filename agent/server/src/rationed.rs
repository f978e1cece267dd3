//! One answer a turn, and no more refusals on one connection than a client has use for.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, header};
use hyper::service::Service;

use super::progress::Progress;

/// A service whose connection gives one answer in each of its turns, however many requests wait on
/// it. After too many refusals in a row the connection is closed.
pub(super) struct Rationed<T> {
    inner: T,
    progress: Arc<Progress>,
}

/// An answer in the making.
pub(super) struct Answer<F> {
    inner: F,
    progress: Arc<Progress>,
}

impl<T> Rationed<T> {
    pub(super) fn new(inner: T, progress: Arc<Progress>) -> Self {
        Self { inner, progress }
    }
}

impl<T, A, B> Service<Request<A>> for Rationed<T>
where
    T: Service<Request<A>, Response = Response<B>, Error = Infallible>,
    T::Future: Unpin,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Answer<T::Future>;

    fn call(&self, request: Request<A>) -> Self::Future {
        self.progress.begin_answer();
        Answer {
            inner: self.inner.call(request),
            progress: Arc::clone(&self.progress),
        }
    }
}

impl<F, B> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, Infallible>> + Unpin,
{
    type Output = Result<Response<B>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.progress.has_answered() {
            // There is more to do as soon as it is this connection's turn again.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Answers that nobody reads would only take memory. The stream wakes the connection once
        // they are read.
        if self.progress.holds_back() {
            return Poll::Pending;
        }
        let Ok(mut answer) = ready!(Pin::new(&mut self.inner).poll(context));
        self.progress.answered(answer.status());
        if self.progress.is_refused_too_often() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
            self.progress.end();
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
    use crate::progress::REFUSALS;

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

    fn service() -> (Rationed<Echo>, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        (Rationed::new(Echo, Arc::clone(&progress)), progress)
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_connection_gives_one_answer_a_turn() {
        let (service, progress) = service();
        let mut first = service.call(Request::new(StatusCode::OK));
        assert!(poll(&mut first).is_ready());
        let mut second = service.call(Request::new(StatusCode::OK));
        assert!(poll(&mut second).is_pending());
        progress.begin_turn();
        assert!(poll(&mut second).is_ready());
    }

    #[test]
    fn an_answer_waits_until_the_last_one_is_read() {
        let (service, progress) = service();
        let mut answer = service.call(Request::new(StatusCode::OK));
        progress.stall();
        assert!(poll(&mut answer).is_pending());
        assert!(progress.flushed());
        assert!(poll(&mut answer).is_ready());
        assert!(!progress.flushed());
    }

    #[test]
    fn who_is_refused_again_and_again_is_shown_out() {
        let (service, progress) = service();
        let closes = |status| {
            progress.begin_turn();
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
        assert!(progress.is_ending());
    }
}
