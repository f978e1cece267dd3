//! The keys with which the cluster signs tokens.

use std::{error::Error, fmt::Display};

use podcreds_keys::FetchKeys;
use podcreds_upstream::{KeyFetcher, KeyServer, Outbound};
use serde_json::Value;

use crate::report::Finding;

const NAME: &str = "keys";

pub(super) async fn check(server: Option<KeyServer>) -> Finding {
    let Some(server) = server else {
        return judge("", None::<Result<usize, &str>>);
    };
    let url = server.url.clone();
    judge(&host_of(&url), Some(fetch(server).await))
}

/// How many keys are there.
async fn fetch(server: KeyServer) -> Result<usize, Box<dyn Error>> {
    let outbound = Outbound::from_environment().await?;
    Ok(count(&KeyFetcher::new(server, outbound).fetch().await?))
}

/// What may be shown of a URL.
fn host_of(url: &str) -> String {
    let uri: Option<http::Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(http::Uri::host);
    host.unwrap_or_default().to_owned()
}

fn count(set: &[u8]) -> usize {
    let set: Value = serde_json::from_slice(set).unwrap_or_default();
    let keys = set.get("keys").and_then(Value::as_array);
    keys.map_or(0, Vec::len)
}

fn judge(host: &str, fetched: Option<Result<usize, impl Display>>) -> Finding {
    const REMEDY: &str = "see whether the API server is reachable, and whether RBAC lets the \
                          agent's account read /openid/v1/jwks (the chart does), or name the \
                          issuer's keys with --jwks-url";
    match fetched {
        None => Finding::warn(
            NAME,
            "not known where they are: outside of a cluster, and without --jwks-url",
            "name them with --jwks-url; without them every rotated token waits for EKS Auth",
        ),
        Some(Ok(0)) => Finding::warn(NAME, format!("{host} publishes no key"), REMEDY),
        Some(Ok(count)) => Finding::pass(NAME, format!("{count} from {host}")),
        Some(Err(why)) => Finding::warn(NAME, why.to_string(), REMEDY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn keys_are_counted_and_their_absence_is_a_warning() {
        assert_eq!(count(br#"{"keys":[{},{}]}"#), 2);
        assert_eq!(count(b"<html>"), 0);
        assert_eq!(judge("host", Some(Ok::<_, &str>(2))).status, Status::Pass);
        for without in [None, Some(Ok(0)), Some(Err("refused"))] {
            assert_eq!(judge("host", without).status, Status::Warn);
        }
        assert_eq!(host_of("https://user:secret@issuer/keys"), "issuer");
    }
}
