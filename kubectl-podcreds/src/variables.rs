//! The environment variables of a pod that matter, and which of them may be shown.

use podcreds_types::sdk::{NO_PROXY, PROXIES, TOKEN_FILE, URI, WINNERS};

/// The role of a web identity. Alone it has no effect.
pub(crate) const ROLE_ARN: &str = "AWS_ROLE_ARN";

/// The variables whose values are looked at. They are addresses and paths.
const WITH_VALUE: [&str; 4] = [URI, TOKEN_FILE, NO_PROXY[0], NO_PROXY[1]];

/// Whether a variable matters, and whether its value may be kept: keys and a proxy's password are
/// not.
pub(crate) fn matters(name: &str) -> Option<bool> {
    let wins = WINNERS.iter().any(|(winner, _)| *winner == name);
    let is_other = wins || name == ROLE_ARN || PROXIES.contains(&name);
    match WITH_VALUE.contains(&name) {
        true => Some(true),
        false => is_other.then_some(false),
    }
}
