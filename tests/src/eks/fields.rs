//! What callers send: the body of a change, and the parameters of a list.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Uri;
use serde::Deserialize;

use super::{PAGE, answer::Refusal};
use crate::{
    associations::{Account, Association},
    http::query::parameter,
    token::new_uid,
};

/// The body of a call that creates or updates an association.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fields {
    namespace: Option<String>,
    service_account: Option<String>,
    role_arn: Option<String>,
    target_role_arn: Option<String>,
    disable_session_tags: Option<bool>,
    policy: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

impl Fields {
    pub(super) fn read(body: &Bytes) -> Result<Self, Refusal> {
        let fields: Self =
            serde_json::from_slice(body).map_err(|why| Refusal::parameter(why.to_string()))?;
        for role in [&fields.role_arn, &fields.target_role_arn]
            .into_iter()
            .flatten()
        {
            if !role.starts_with("arn:aws:iam::") {
                return Err(Refusal::parameter(format!("{role} is no ARN of a role")));
            }
        }
        Ok(fields)
    }

    /// A new association.
    pub(super) fn create(self) -> Result<Association, Refusal> {
        let missing = |name| Refusal::parameter(format!("{name} is missing"));
        let namespace = self
            .namespace
            .as_ref()
            .ok_or_else(|| missing("namespace"))?;
        let account = self.service_account.as_ref();
        let account = account.ok_or_else(|| missing("serviceAccount"))?;
        let role = self.role_arn.as_ref().ok_or_else(|| missing("roleArn"))?;
        let mut association = Association::new(namespace, account, role);
        self.change(&mut association)?;
        Ok(association)
    }

    /// Changes what is named.
    pub(super) fn change(self, association: &mut Association) -> Result<(), Refusal> {
        let untagged = self.disable_session_tags;
        if self.policy.is_some() && !untagged.unwrap_or(association.disable_session_tags) {
            let reason = "a policy needs disableSessionTags to be true";
            return Err(Refusal::parameter(reason));
        }
        if let Some(role) = self.role_arn {
            association.role_arn = role;
        }
        if let Some(target) = self.target_role_arn {
            association.target_role_arn = Some(target);
            association.external_id.get_or_insert_with(new_uid);
        }
        if let Some(untagged) = untagged {
            association.disable_session_tags = untagged;
        }
        if let Some(policy) = self.policy {
            association.policy = Some(policy);
        }
        if let Some(tags) = self.tags {
            association.tags = tags;
        }
        Ok(())
    }
}

/// The parameters of a list.
pub(super) struct Filter {
    namespace: Option<String>,
    service_account: Option<String>,
    /// The most associations that the caller wants.
    pub(super) most: usize,
    /// The last service account of the page before.
    pub(super) after: Option<Account>,
}

impl Filter {
    pub(super) fn read(uri: &Uri) -> Result<Self, Refusal> {
        let most = match parameter(uri, "maxResults") {
            None => PAGE,
            Some(text) => {
                let number = text.parse().ok().filter(|most| (1..=PAGE).contains(most));
                let reason = format!("maxResults must be 1 to {PAGE}");
                number.ok_or_else(|| Refusal::parameter(reason))?
            }
        };
        let after = match parameter(uri, "nextToken") {
            None => None,
            Some(token) => {
                let account = account_of(&token);
                Some(account.ok_or_else(|| Refusal::parameter("nextToken is none of ours"))?)
            }
        };
        Ok(Self {
            namespace: parameter(uri, "namespace"),
            service_account: parameter(uri, "serviceAccount"),
            most,
            after,
        })
    }

    pub(super) fn wants(&self, association: &Association) -> bool {
        let fits =
            |wanted: &Option<String>, held: &str| wanted.as_ref().is_none_or(|it| it == held);
        fits(&self.namespace, &association.namespace)
            && fits(&self.service_account, &association.service_account)
    }
}

/// What continues a list behind this association. Callers are not to read it.
pub(super) fn token_after(association: &Association) -> String {
    let account = format!("{}/{}", association.namespace, association.service_account);
    account.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn account_of(token: &str) -> Option<Account> {
    let bytes = (0..token.len()).step_by(2);
    let bytes = bytes.map(|at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok());
    let account = String::from_utf8(bytes.collect::<Option<_>>()?).ok()?;
    let (namespace, service_account) = account.split_once('/')?;
    Some((namespace.to_owned(), service_account.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
        let association = Association::new("shop", "reader", "role");
        let token = token_after(&association);
        let account = ("shop".to_owned(), "reader".to_owned());
        assert_eq!(account_of(&token), Some(account));
        for bad in ["", "x", "zz", "616", "6161", "\u{e4}a"] {
            assert_eq!(account_of(bad), None, "{bad}");
        }
    }
}
