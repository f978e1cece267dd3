//! One request: is it one for credentials, which pod asks, and what is the answer?

use std::{cell::RefCell, convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, FutureExt, Ready, ready};
use http::{HeaderValue, Method, Request, Version, header};
use hyper::{body::Incoming, service::Service};
use podcreds_credentials::Store;
use podcreds_types::{
    Claimant, Claims, Evidence, PodRecords, PodUid, Refusal, RefusedCallers, Token, TokenDigest,
};
use tokio_util::sync::CancellationToken;

use super::{
    Identify, Metrics, Times,
    accounts::Accounts,
    answer::{self, Answer, Format, NoCredentials},
    connection_state::ConnectionState,
    host,
    metrics::RequestOutcome,
    road::{Road, Stage},
    target,
};

/// What the handlers of all connections share.
pub(super) struct Endpoint {
    pub(super) store: Store,
    pub(super) pods: PodRecords,
    pub(super) refused: RefusedCallers,
    pub(super) metrics: Metrics,
    /// Where somebody wants to know.
    pub(super) accounts: Option<Accounts>,
    /// Cancelled when no further request is wanted.
    pub(super) draining: CancellationToken,
}

/// Answers the requests of one connection.
pub(super) struct RequestHandler<I> {
    endpoint: Arc<Endpoint>,
    caller: I,
    times: Times,
    state: Arc<ConnectionState>,
    last_token: LastToken,
}

impl<I: Identify> Service<Request<Incoming>> for RequestHandler<I> {
    type Response = Answer;
    type Error = Infallible;
    type Future =
        Either<Ready<Result<Answer, Infallible>>, BoxFuture<'static, Result<Answer, Infallible>>>;

    /// Answers at once what is in memory; only a wait for EKS Auth is worth a boxed future.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut road = self.road();
        if is_last(&request) {
            self.state.end();
        }
        let (endpoint, state) = (&self.endpoint, &self.state);
        let caller = self.caller.evidence();
        match self.find(&request, &mut road) {
            Ok(FoundCredentials::Ready(claimant, body)) => {
                let pod = claimant.pod();
                let asked = PendingRequest {
                    road,
                    state,
                    caller,
                    pod,
                };
                let answer = endpoint.grant(asked, body);
                Either::Left(ready(Ok(answer)))
            }
            Err(why) => {
                let pod = self.caller.pod();
                let format = Format::wanted_by(&request);
                let asked = PendingRequest {
                    road,
                    state,
                    caller,
                    pod,
                };
                let answer = endpoint.deny(asked, &why, self.token_pod(&why), format);
                Either::Left(ready(Ok(answer)))
            }
            Ok(FoundCredentials::ToFetch(claimant, token)) => {
                road.enter(Stage::Exchange);
                if let Claimant::Pod(pod) = claimant {
                    endpoint.pods.asked(pod, road.start());
                }
                let (endpoint, state) = (Arc::clone(endpoint), Arc::clone(state));
                let format = Format::wanted_by(&request);
                let fetch = async move {
                    let fetched = endpoint.store.fetch(claimant, token.clone()).await;
                    let asked = |pod| PendingRequest {
                        road,
                        state: &state,
                        caller,
                        pod,
                    };
                    Ok(match (fetched, claimant) {
                        (Ok(body), _) => {
                            endpoint.served(claimant, &token);
                            endpoint.grant(asked(claimant.pod()), body)
                        }
                        (Err(error), Claimant::Pod(pod)) => {
                            endpoint.deny(asked(Some(pod)), &error.into(), None, format)
                        }
                        (Err(error), Claimant::Bearer { .. }) => {
                            endpoint.deny(asked(None), &error.into(), None, format)
                        }
                    })
                };
                Either::Right(fetch.boxed())
            }
        }
    }
}

/// A request that gets its answer.
struct PendingRequest<'a> {
    road: Road,
    state: &'a ConnectionState,
    /// Who has asked, as the datapath says.
    caller: Evidence,
    /// The pod that has asked, as far as that is certain.
    pod: Option<PodUid>,
}

/// Where a request's credentials are.
enum FoundCredentials {
    /// In memory, ready to be sent.
    Ready(Claimant, Bytes),
    /// At EKS Auth, or refused there.
    ToFetch(Claimant, Token),
}

impl<I: Identify> RequestHandler<I> {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        caller: I,
        times: Times,
        state: Arc<ConnectionState>,
    ) -> Self {
        Self {
            endpoint,
            caller,
            times,
            state,
            last_token: LastToken::default(),
        }
    }

    /// The first request of a connection has waited since the connection was made; a later one only
    /// since its head has arrived.
    fn road(&self) -> Road {
        match self.state.head_arrived() {
            true => Road::of_first(self.times),
            false => Road::of_later(),
        }
    }

    /// The pod that the token names, where that is why it is refused.
    fn token_pod(&self, why: &NoCredentials) -> Option<PodUid> {
        use Refusal::{Detour, ExpiredToken, OtherPod, ThroughProxy, Undecided};
        match why.refusal() {
            Some(Detour | ExpiredToken | OtherPod | ThroughProxy | Undecided(_)) => {
                self.last_token.pod()
            }
            Some(_) | None => None,
        }
    }

    /// Decides by the least: most of what is refused is refused before its token is looked at.
    fn find<B>(
        &self,
        request: &Request<B>,
        road: &mut Road,
    ) -> Result<FoundCredentials, NoCredentials> {
        if !host::is_address(request) {
            return Err(Refusal::BadHost.into());
        }
        if !target::is_credentials(request) {
            return Err(Refusal::NotFound.into());
        }
        // Like AWS's agent, answers whatever else is used in place of GET.
        if request.method() == Method::CONNECT {
            return Err(Refusal::Method.into());
        }
        let (token, digest) = self.last_token.read(authorization(request)?)?;
        let store = &self.endpoint.store;
        let known = self.caller.pod().map(Claimant::Pod);
        if let Some(known) = known {
            road.enter(Stage::Cache);
            if let Some(found) = store.look_up(&known, &digest) {
                let body = found?;
                self.endpoint.served(known, &token);
                return Ok(FoundCredentials::Ready(known, body));
            }
            road.enter(Stage::Identify);
        }
        let claimant = self.caller.identify(&token, target::route(request))?;
        road.enter(Stage::Cache);
        if known != Some(claimant)
            && let Some(found) = store.look_up(&claimant, &digest)
        {
            let body = found?;
            self.endpoint.served(claimant, &token);
            return Ok(FoundCredentials::Ready(claimant, body));
        }
        Ok(FoundCredentials::ToFetch(claimant, token))
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

/// The first one, as AWS's agent takes it.
fn authorization<B>(request: &Request<B>) -> Result<&[u8], NoCredentials> {
    let value = request.headers().get(header::AUTHORIZATION);
    match value.map(HeaderValue::as_bytes) {
        None | Some([]) => Err(Refusal::MissingToken.into()),
        Some(token) => Ok(token),
    }
}

impl Endpoint {
    /// Notes that a token has got credentials.
    fn served(&self, claimant: Claimant, token: &Token) {
        if let Some(pod) = claimant.pod()
            && let Some(waited) = self.pods.served(pod, token)
        {
            self.metrics.first_credentials.observe(waited.as_secs_f64());
        }
    }

    /// Gives a request what it has asked for.
    fn grant(&self, mut asked: PendingRequest<'_>, body: Bytes) -> Answer {
        asked.road.enter(Stage::Write);
        let outcome = RequestOutcome::of_served(&asked.road);
        self.finish(asked, answer::credentials(body), outcome)
    }

    /// Counts what is refused, and says why.
    fn deny(
        &self,
        mut asked: PendingRequest<'_>,
        why: &NoCredentials,
        token_pod: Option<PodUid>,
        format: Format,
    ) -> Answer {
        asked.road.enter(Stage::Write);
        if let Some(refusal) = why.refusal() {
            self.refuse(asked.caller, refusal, token_pod);
            self.report(asked.pod, refusal);
        }
        self.finish(asked, why.response(format), RequestOutcome::of_denied(why))
    }

    /// Counts a refusal, and notes who got it.
    pub(super) fn refuse(&self, caller: Evidence, refusal: Refusal, token_pod: Option<PodUid>) {
        self.metrics.refused(refusal);
        // What EKS Auth says of a token, the exchange remembers.
        if refusal != Refusal::EksAuth {
            self.refused
                .note(caller.into(), refusal.metric(), token_pod);
        }
    }

    /// Names the pod that asks in a way that no SDK does. What other stages refuse, they report.
    fn report(&self, pod: Option<PodUid>, refusal: Refusal) {
        let is_ours = matches!(
            refusal,
            Refusal::BadHost
                | Refusal::NotFound
                | Refusal::Method
                | Refusal::MissingToken
                | Refusal::MalformedToken(_)
                | Refusal::ExpiredToken
        );
        if let (Some(pod), true) = (pod, is_ours) {
            let names = self.pods.names(pod);
            tracing::info!(
                pod = names.as_deref().map(tracing::field::display),
                pod_uid = %pod,
                refusal = refusal.metric(),
                "a pod's request is refused: it is no request of an SDK's, or its token is none"
            );
        }
    }

    /// Counts an answer, and says on it whether the connection ends.
    fn finish(
        &self,
        asked: PendingRequest<'_>,
        mut answer: Answer,
        outcome: RequestOutcome,
    ) -> Answer {
        if self.draining.is_cancelled() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        let (road, status) = (asked.road, answer.status());
        self.metrics.answered(&road, status, outcome);
        if let Some(accounts) = &self.accounts {
            accounts.count(asked.pod, outcome);
        }
        if let Some((road, status)) = asked.state.keep_road(road, status) {
            self.metrics.roads.ended(road, status);
        }
        answer
    }
}

/// The token that a connection sent last. On a kept connection the next one is the same, and need
/// not be copied, hashed and decoded again, whether it is taken or refused.
#[derive(Default)]
struct LastToken(RefCell<Option<(Token, TokenDigest)>>);

impl LastToken {
    /// The pod that it names.
    fn pod(&self) -> Option<PodUid> {
        self.0.borrow().as_ref()?.0.claims().ok()?.pod
    }

    /// What is no token is not remembered: it is known by a glance.
    fn read(&self, raw: &[u8]) -> Result<(Token, TokenDigest), Refusal> {
        let mut last = self.0.borrow_mut();
        match &*last {
            Some((token, digest)) if token.expose().as_bytes() == raw => {
                Ok((token.clone(), *digest))
            }
            _ => {
                let raw = Claims::could_be_in(raw).map_err(Refusal::MalformedToken)?;
                let token = Token::new(raw);
                let digest = token.digest();
                *last = Some((token.clone(), digest));
                Ok((token, digest))
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
        let (_, first) = last.read(b"fi.r.st").unwrap();
        assert_eq!(last.read(b"fi.r.st").unwrap().1, first);
        let (token, second) = last.read(b"se.co.nd").unwrap();
        assert_eq!(token.expose(), "se.co.nd");
        assert_eq!(second, Token::new("se.co.nd").digest());
        assert_eq!(last.read(b"fi.r.st").unwrap().1, first);
    }

    #[test]
    fn a_text_that_cannot_be_a_token_is_not_kept() {
        let last = LastToken::default();
        let (_, first) = last.read(b"fi.r.st").unwrap();
        let long = format!("{}.x.y", "x".repeat(8 * 1024));
        for raw in ["first", "a.b", "a.b.c.d", "caf\u{e9}.x.y", &long] {
            assert!(last.read(raw.as_bytes()).is_err(), "{raw}");
        }
        let kept = last.0.borrow().as_ref().map(|(_, digest)| *digest);
        assert_eq!(kept, Some(first));
    }
}
