//! Which namespace a token says that it is from.

use jsonwebtoken::dangerous::insecure_decode_claims;
use serde::Deserialize;

use crate::types::Token;

/// The longest name that a namespace can have.
const MAX_NAME: usize = 63;

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
}

/// The namespace in a token's claims, or an empty one. Nobody has verified it: it decides about
/// turns in the queue, and whoever lies about it has but one place there anyway.
pub(super) fn claimed_namespace(token: &Token) -> String {
    insecure_decode_claims::<Claims>(token.expose())
        .map(|claims| claims.kubernetes.namespace)
        .ok()
        .filter(|name| name.len() <= MAX_NAME)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_read_where_there_is_one() {
        // {"alg":"RS256"} . {"kubernetes.io":{"namespace":"shop"}} . x
        let token = "eyJhbGciOiJSUzI1NiJ9.\
                     eyJrdWJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6InNob3AifX0.eA";
        assert_eq!(claimed_namespace(&Token::new(token)), "shop");
        assert_eq!(claimed_namespace(&Token::new("garbage")), "");
    }
}
