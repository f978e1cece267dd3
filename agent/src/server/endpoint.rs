//! One request: is it one, whose is it, and what is the answer?

use std::{cell::RefCell, convert::Infallible, sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, FutureExt, Ready, ready};
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::Service};
use tokio_util::sync::CancellationToken;

use super::{
    Identify, Metrics, Refusal, Times,
    answer::{self, Denial, Format},
    host,
    metrics::Since,
    stream::Progress,
};
use crate::{
    credentials::{Claimant, Store},
    types::{Token, TokenDigest},
};

/// What the connections share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) metrics: Metrics,
    /// Cancelled when no further request is wanted.
    pub(super) draining: CancellationToken,
}

/// The service behind one connection.
pub(super) struct Endpoint<I> {
    shared: Arc<Shared>,
    caller: I,
    times: Times,
    progress: Arc<Progress>,
    last_token: LastToken,
}

type Answer = Response<Full<Bytes>>;

impl<I: Identify> Service<Request<Incoming>> for Endpoint<I> {
    type Response = Answer;
    type Error = Infallible;
    type Future =
        Either<Ready<Result<Answer, Infallible>>, BoxFuture<'static, Result<Answer, Infallible>>>;

    /// Answers at once what is at hand; only a wait for EKS Auth is worth a boxed future.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let since = self.since();
        if is_last(&request) {
            self.progress.end();
        }
        match self.find(&request) {
            Ok(Found::Here(body)) => {
                let answer = self.shared.finish(since, answer::credentials(body));
                Either::Left(ready(Ok(answer)))
            }
            Err(denial) => {
                let answer = self.shared.deny(&denial, Format::wanted_by(&request));
                let answer = self.shared.finish(since, answer);
                Either::Left(ready(Ok(answer)))
            }
            Ok(Found::Upstream(claimant, token)) => {
                let shared = Arc::clone(&self.shared);
                let format = Format::wanted_by(&request);
                let fetch = async move {
                    let answer = match shared.store.fetch(claimant, token).await {
                        Ok(body) => answer::credentials(body),
                        Err(error) => shared.deny(&error.into(), format),
                    };
                    Ok(shared.finish(since, answer))
                };
                Either::Right(fetch.boxed())
            }
        }
    }
}

/// Where a request's credentials are.
enum Found {
    Here(Bytes),
    Upstream(Claimant, Token),
}

impl<I: Identify> Endpoint<I> {
    pub(super) fn new(
        shared: Arc<Shared>,
        caller: I,
        times: Times,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            shared,
            caller,
            times,
            progress,
            last_token: LastToken::default(),
        }
    }

    /// The first request of a connection has waited since the connection was made; the others come
    /// whenever it pleases the client.
    fn since(&self) -> Since {
        if self.progress.head_arrived() {
            Since {
                begun: self.times.accepted,
                connected: self.times.connected,
            }
        } else {
            Since {
                begun: Instant::now(),
                connected: None,
            }
        }
    }

    fn find<B>(&self, request: &Request<B>) -> Result<Found, Denial> {
        if !host::is_address(request) {
            return Err(Denial::Host);
        }
        if request.uri().path() != answer::PATH {
            return Err(Denial::Path);
        }
        if request.method() != Method::GET {
            return Err(Denial::Method);
        }
        let (token, digest) = self.last_token.read(authorization(request)?);
        let store = &self.shared.store;
        let known = self.caller.pod().map(Claimant::Pod);
        if let Some(body) = known.and_then(|claimant| store.cached(&claimant, &digest)) {
            return Ok(Found::Here(body));
        }
        let claimant = self.caller.identify(&token)?;
        if known != Some(claimant)
            && let Some(body) = store.cached(&claimant, &digest)
        {
            return Ok(Found::Here(body));
        }
        Ok(Found::Upstream(claimant, token))
    }
}

/// Whether the client wants no more than this one answer on its connection.
fn is_last<B>(request: &Request<B>) -> bool {
    let says = |what: &str| {
        let said = request.headers().get(header::CONNECTION);
        said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(what.as_bytes()))
    };
    says("close") || (request.version() == Version::HTTP_10 && !says("keep-alive"))
}

fn authorization<B>(request: &Request<B>) -> Result<&str, Denial> {
    let value = request.headers().get(header::AUTHORIZATION);
    let token = value.ok_or(Denial::NoToken)?.as_bytes();
    // Control characters do not get this far. `HeaderValue::to_str` looks for them once more, byte by byte.
    let token = str::from_utf8(token).ok().filter(|token| token.is_ascii());
    let token = token.ok_or(Refusal::Malformed("it is not plain ASCII"))?;
    if token.is_empty() {
        return Err(Denial::NoToken);
    }
    Ok(token)
}

impl Shared {
    /// Counts a denial, and puts it into words.
    fn deny(&self, denial: &Denial, format: Format) -> Answer {
        if let Some(reason) = denial.reason() {
            self.metrics.refused(reason);
        }
        denial.response(format)
    }

    /// Counts an answer, and says on it whether the connection ends.
    fn finish(&self, since: Since, mut answer: Answer) -> Answer {
        if self.draining.is_cancelled() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        self.metrics.answered(since, answer.status());
        answer
    }
}

/// The token that a connection sent last. On a kept connection the next one is the same, and need
/// not be copied and hashed again.
#[derive(Default)]
struct LastToken(RefCell<Option<(Token, TokenDigest)>>);

impl LastToken {
    fn read(&self, raw: &str) -> (Token, TokenDigest) {
        let mut last = self.0.borrow_mut();
        match &*last {
            Some((token, digest)) if token.expose() == raw => (token.clone(), *digest),
            _ => {
                let token = Token::new(raw);
                let digest = token.digest();
                *last = Some((token.clone(), digest));
                (token, digest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_token_is_not_taken_for_the_last() {
        let last = LastToken::default();
        let (_, first) = last.read("first");
        assert_eq!(last.read("first").1, first);
        let (token, second) = last.read("second");
        assert_eq!(token.expose(), "second");
        assert_eq!(second, Token::new("second").digest());
        assert_eq!(last.read("first").1, first);
    }
}
