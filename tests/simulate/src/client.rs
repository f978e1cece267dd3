//! How a pod asks: as an AWS SDK does, in a program that does not give up.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fastrand::Rng;
use podcreds_credentials::Store;
use podcreds_types::{Claimant, PodUid, Token};
use serde::Deserialize;
use tokio::time::sleep;

use crate::MINUTE;

/// How often an SDK tries before it tells the program.
const TRIES: u32 = 3;
/// What it waits in between.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// What the program waits before it calls the SDK again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// With less than this left, SDKs ask for new credentials.
pub const TOO_LITTLE: Duration = MINUTE.saturating_mul(15);

/// Asks until there are credentials. Says when they expire.
pub async fn insist(store: &Store, pod: PodUid, token: &Token, dice: &mut Rng) -> SystemTime {
    let mut pause = FIRST_PAUSE;
    loop {
        for _ in 0..TRIES {
            if let Some(expiration) = ask(store, pod, token).await {
                return expiration;
            }
            sleep(BETWEEN_TRIES).await;
        }
        sleep(pause.mul_f64(0.5 + 0.5 * dice.f64())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Asks once, as one request does.
async fn ask(store: &Store, pod: PodUid, token: &Token) -> Option<SystemTime> {
    let claimant = Claimant::Pod(pod);
    let outcome = match store.look_up(&claimant, &token.digest()) {
        Some(outcome) => outcome,
        None => store.fetch(claimant, token.clone()).await,
    };
    outcome.ok().and_then(|body| expiration(&body))
}

fn expiration(body: &Bytes) -> Option<SystemTime> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        expiration: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let date = time::OffsetDateTime::parse(
        &answer.expiration,
        &time::format_description::well_known::Rfc3339,
    );
    Some(date.ok()?.into())
}
