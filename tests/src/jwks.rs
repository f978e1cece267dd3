//! A stand-in for the API server's key set: `/openid/v1/jwks`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode};

use crate::{
    http::server::{Action, Handler, Server, full},
    token::Issuer,
};

const PATH: &str = "/openid/v1/jwks";

/// A running stand-in, on a thread of its own. It stops when it is dropped.
pub struct Jwks {
    server: Server,
    service: Arc<Service>,
}

struct Service {
    keys: String,
    down: AtomicBool,
    fetches: AtomicUsize,
}

impl Jwks {
    /// Publishes the keys of `issuer`.
    pub fn start(issuer: &Issuer) -> Self {
        let service = Arc::new(Service {
            keys: issuer.jwks(),
            down: AtomicBool::new(false),
            fetches: AtomicUsize::new(0),
        });
        let server = Server::start("jwks", Arc::clone(&service) as Arc<dyn Handler>);
        Self { server, service }
    }

    /// The URL of the key set.
    pub fn url(&self) -> String {
        self.server.url() + PATH
    }

    /// From now on answers 503, or no longer.
    pub fn set_down(&self, down: bool) {
        self.service.down.store(down, Ordering::Relaxed);
    }

    /// How often it was asked.
    pub fn fetches(&self) -> usize {
        self.service.fetches.load(Ordering::Relaxed)
    }
}

impl Handler for Service {
    fn handle(self: Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Action> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let (status, body) = if self.down.load(Ordering::Relaxed) {
            (StatusCode::SERVICE_UNAVAILABLE, String::new())
        } else if request.uri().path() == PATH {
            (StatusCode::OK, self.keys.clone())
        } else {
            (StatusCode::NOT_FOUND, String::new())
        };
        let mut response = Response::new(full(body));
        *response.status_mut() = status;
        async move { Action::Answer(response) }.boxed()
    }
}
