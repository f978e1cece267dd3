//! What EKS Auth knows of a cluster: its keys, its word on tokens, and its associations.

use std::sync::{Mutex, PoisonError};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{Jwk, JwkSet},
};
use serde_json::json;

use super::{api::Api, associations::Associations};
use crate::{
    eks_auth::{Authority, Rejected},
    token::{AUDIENCE, Claims},
};

/// A real API server's.
pub(super) struct ApiServer {
    api: Api,
    associations: Associations,
    known: Mutex<Option<Known>>,
}

/// What the API server publishes of its tokens.
#[derive(Clone)]
struct Known {
    issuer: String,
    keys: JwkSet,
}

impl ApiServer {
    pub(super) fn new(api: Api) -> Self {
        Self {
            associations: Associations::of(&api),
            api,
            known: Mutex::new(None),
        }
    }

    /// Checks the signature as EKS Auth does, from afar: with what is published.
    fn check_signature(&self, token: &str) -> Result<Claims, Rejected> {
        let Known { issuer, keys } = self.known()?;
        let key = key_of(token, &keys)?;
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[issuer]);
        rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        rules.validate_nbf = true;
        rules.leeway = 0;
        let key = DecodingKey::from_jwk(key).map_err(|why| Rejected::Invalid(why.to_string()))?;
        match decode(token, &key, &rules) {
            Ok(decoded) => Ok(decoded.claims),
            Err(why) if matches!(why.kind(), ErrorKind::ExpiredSignature) => {
                Err(Rejected::Expired(why.to_string()))
            }
            Err(why) => Err(Rejected::Invalid(why.to_string())),
        }
    }

    /// Asks whether what the token is bound to still exists.
    fn review(&self, token: &str) -> Result<(), Rejected> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [AUDIENCE] },
        });
        let answer = self
            .api
            .create("/apis/authentication.k8s.io/v1/tokenreviews", &review)
            .map_err(unavailable)?;
        match &answer["status"]["authenticated"] {
            serde_json::Value::Bool(true) => Ok(()),
            _ => Err(Rejected::Invalid(answer["status"]["error"].to_string())),
        }
    }

    fn known(&self) -> Result<Known, Rejected> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = Some(self.fetch()?);
        }
        known
            .clone()
            .ok_or_else(|| Rejected::Unavailable("no keys".to_owned()))
    }

    fn fetch(&self) -> Result<Known, Rejected> {
        let discovery = self.api.get("/.well-known/openid-configuration");
        let keys = self.api.get("/openid/v1/jwks").map_err(unavailable)?;
        let issuer = discovery.map_err(unavailable)?["issuer"].clone();
        Ok(Known {
            issuer: issuer.as_str().unwrap_or_default().to_owned(),
            keys: serde_json::from_value(keys).map_err(unavailable)?,
        })
    }
}

impl Authority for ApiServer {
    fn verify(&self, token: &str) -> Result<Claims, Rejected> {
        let claims = self.check_signature(token)?;
        self.review(token)?;
        Ok(claims)
    }

    fn role(&self, namespace: &str, account: &str) -> Result<Option<String>, Rejected> {
        let role = self.associations.role(namespace, account);
        role.map_err(unavailable)
    }
}

fn key_of<'a>(token: &str, keys: &'a JwkSet) -> Result<&'a Jwk, Rejected> {
    let header = decode_header(token).map_err(|why| Rejected::Invalid(why.to_string()))?;
    let id = header.kid.unwrap_or_default();
    keys.find(&id)
        .ok_or_else(|| Rejected::Invalid(format!("no key of the cluster is named {id}")))
}

fn unavailable(why: impl ToString) -> Rejected {
    Rejected::Unavailable(why.to_string())
}
