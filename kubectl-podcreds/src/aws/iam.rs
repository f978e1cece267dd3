//! IAM: the roles that associations name.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::SdkConfig;
use aws_sdk_iam::{Client, operation::get_role::GetRoleError, types::Role as IamRole};
use futures_util::{StreamExt, stream};
use percent_encoding::percent_decode_str;

use super::{AT_ONCE, missing};
use crate::{
    progress::Progress,
    snapshot::{Role, Seen, role_name},
};

/// IAM's API.
#[derive(Clone, Debug)]
pub(crate) struct Iam {
    client: Client,
}

impl Iam {
    pub(crate) fn new(config: &SdkConfig) -> Self {
        Self {
            client: Client::new(config),
        }
    }

    /// These roles, by ARN. One that does not exist is nothing.
    pub(crate) async fn roles(
        &self,
        arns: BTreeSet<String>,
        progress: &Progress,
    ) -> BTreeMap<String, Seen<Option<Role>>> {
        let calls = arns.into_iter().map(|arn| async {
            let role = self.role(&arn).await;
            progress.one_done();
            (arn, role)
        });
        let calls = stream::iter(calls).buffer_unordered(AT_ONCE);
        calls.collect().await
    }

    async fn role(&self, arn: &str) -> Seen<Option<Role>> {
        let Some(name) = role_name(arn) else {
            return Ok(None);
        };
        match self.client.get_role().role_name(name).send().await {
            // One of the same name in another account, or with another path, is another role.
            Ok(answer) => Ok(answer.role.filter(|role| role.arn == arn).map(role)),
            Err(error) => {
                let is_gone = error.as_service_error();
                match is_gone.is_some_and(GetRoleError::is_no_such_entity_exception) {
                    true => Ok(None),
                    false => Err(missing(&format!("role {name}"), "iam:GetRole", &error)),
                }
            }
        }
    }
}

fn role(role: IamRole) -> Role {
    let trust = role.assume_role_policy_document.unwrap_or_default();
    let trust = percent_decode_str(&trust).decode_utf8_lossy();
    Role {
        // Nothing is allowed by what cannot be read.
        trust: serde_json::from_str(&trust).unwrap_or_default(),
        boundary: role
            .permissions_boundary
            .and_then(|boundary| boundary.permissions_boundary_arn),
    }
}
