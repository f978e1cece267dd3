//! Which service account has which role.
//!
//! The table is a ConfigMap, from namespace and service account to the role's name, so that the
//! admission policy that stands for EKS' webhook and the stand-in for EKS Auth read the same.

use serde_json::{Value, json};

use super::api::{Api, ApiError};

const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/pod-identity-associations";

/// The table of a cluster.
#[derive(Clone, Debug)]
pub struct Associations {
    api: Api,
}

impl Associations {
    /// That of this cluster.
    pub fn of(api: &Api) -> Self {
        Self { api: api.clone() }
    }

    /// Gives a service account a role, or another one.
    ///
    /// # Errors
    ///
    /// Why the API server did not take it.
    pub fn associate(&self, namespace: &str, account: &str, role: &str) -> Result<(), ApiError> {
        self.set(namespace, account, &role.into())
    }

    /// Takes a service account's role away.
    ///
    /// # Errors
    ///
    /// Why the API server did not take it.
    pub fn dissociate(&self, namespace: &str, account: &str) -> Result<(), ApiError> {
        self.set(namespace, account, &Value::Null)
    }

    /// The role of a service account, if it has one.
    ///
    /// # Errors
    ///
    /// Why it cannot be told.
    pub fn role(&self, namespace: &str, account: &str) -> Result<Option<String>, ApiError> {
        let table = self.api.get(PATH)?;
        let role = &table["data"][key(namespace, account)];
        Ok(role.as_str().map(str::to_owned))
    }

    fn set(&self, namespace: &str, account: &str, role: &Value) -> Result<(), ApiError> {
        let fields = json!({ "data": { key(namespace, account): role } });
        self.api.patch(PATH, &fields).map(drop)
    }
}

/// A namespace has no dots in its name, so no two accounts share a key.
fn key(namespace: &str, account: &str) -> String {
    format!("{namespace}.{account}")
}
