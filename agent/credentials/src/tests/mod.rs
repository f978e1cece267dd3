//! The store as a whole, with a fake EKS Auth on tokio's paused clock.

use std::time::Duration;

use bytes::Bytes;
use podcreds_keys::{Verdict, VerifyToken};
use podcreds_types::{Claimant, Origin, PodUid, Token};
use podcreds_upstream::UpstreamError;
use tokio::time::{Instant, sleep};

use self::fake::{Fake, credentials, refused};
use super::{line::Outcome, *};

mod bearers;
mod bounds;
mod clocks;
mod days;
mod fake;
mod flights;
mod freshness;
mod lookup;
mod model;
mod refusals;
mod rejections;
mod rotation;
mod starts;
mod succession;
mod threads;
mod told;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// What EKS Auth takes to answer.
const SOON: Duration = Duration::from_millis(50);

fn uid(number: u16) -> PodUid {
    format!("{number:032x}").parse().unwrap()
}

fn pod(number: u16) -> Claimant {
    Claimant::Pod(uid(number))
}

/// Somebody at `10.0.0.HOST` whose token says that he is a pod.
fn bearer(host: u8, claims: Option<u16>) -> Claimant {
    Claimant::Bearer {
        claims: claims.map(uid),
        origin: Origin::Address([10, 0, 0, host].into()),
    }
}

/// An EKS Auth that answers after `delay` and gives every token six hours, but calls tokens that
/// begin with "bad" unknown.
fn generous(delay: Duration) -> (Fake, Store, Clock) {
    with_config(delay, Config::default())
}

fn with_config(delay: Duration, config: Config) -> (Fake, Store, Clock) {
    let clock = Clock::paused();
    let fake = Fake::new(delay, move |token| {
        if token.starts_with("bad") {
            return Err(refused());
        }
        Ok(credentials(token, clock.now() + 6 * HOUR))
    });
    let store = fake.store(config, clock);
    (fake, store, clock)
}

/// What a pod does that needs credentials.
async fn ask(store: &Store, claimant: Claimant, token: &str) -> Outcome {
    let token = Token::new(token);
    match store.cached(&claimant, &token.digest()) {
        Some(body) => Ok(body),
        None => store.fetch(claimant, token).await,
    }
}

fn is_for(body: &Bytes, token: &str) -> bool {
    let start = format!(r#"{{"AccessKeyId":"{token}","#);
    body.starts_with(start.as_bytes())
}

fn not_ready(outcome: &Outcome) -> bool {
    matches!(outcome, Err(CredentialError::NotReady { .. }))
}

fn was_refused(outcome: &Outcome) -> bool {
    matches!(outcome, Err(CredentialError::Refused(_)))
}
