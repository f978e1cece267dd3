//! What stands for the cluster's keys: every token here is genuine, and says whose it is.

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use podcreds_keys::{Verdict, VerifyToken};
use podcreds_types::{PodUid, Token};

/// Believes every token that has this simulation's form.
pub struct SimulatedKeys;

/// The token of a pod after so many rotations. Pods of one workload share a namespace.
pub fn token(pod: u64, workload: u64, rotation: u64) -> Token {
    Token::new(format!("{pod:032x}.{workload}.{rotation}"))
}

/// The UID of a pod.
pub fn uid(pod: u64) -> Option<PodUid> {
    format!("{pod:032x}").parse().ok()
}

impl VerifyToken for SimulatedKeys {
    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        ready(verdict(&token)).boxed()
    }

    fn verify_now(&self, token: &Token) -> Verdict {
        verdict(token)
    }
}

fn verdict(token: &Token) -> Verdict {
    let mut parts = token.expose().split('.');
    match (parts.next().map(str::parse), parts.next()) {
        (Some(Ok(pod)), Some(workload)) => Verdict::Genuine {
            pod,
            namespace: workload.to_owned(),
        },
        _ => Verdict::Unknown,
    }
}
