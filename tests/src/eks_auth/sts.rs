//! Real STS credentials in place of invented ones.

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_sts::{
    Client,
    config::{BehaviorVersion, Region},
    error::DisplayErrorContext,
    operation::assume_role::AssumeRoleOutput,
    types::Tag,
};
use serde_json::{Value, json};

use super::{CLUSTER, handler::Refusal};
use crate::{
    associations::Association,
    aws::{ACCOUNT, Owner, REGION, http_client},
    token::new_uid,
};

/// The longest name of a session.
const SESSION_NAME: usize = 64;

/// What EKS Auth says of a role that it may not assume.
const NOT_TRUSTED: &str =
    "Unauthorized Exception! EKS does not have permissions to assume the associated role.";

/// An STS, called as the service that pods' roles trust.
#[derive(Clone)]
pub struct Sts(Client);

impl Sts {
    /// The one at `url`, called with these keys.
    pub fn new(url: &str, keys: Credentials) -> Self {
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(url)
            .http_client(http_client())
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .build();
        Self(Client::from_conf(config))
    }

    /// Puts credentials of the association's role into a good answer. A target role is not
    /// assumed.
    pub(super) async fn fill(
        &self,
        answer: &mut Value,
        association: &Association,
        owner: &Owner,
    ) -> Result<(), Refusal> {
        let tags = match association.disable_session_tags {
            true => Vec::new(),
            false => session_tags(owner),
        };
        let seconds = association.credentials_lifetime().as_secs();
        let mut assume = self
            .0
            .assume_role()
            .role_arn(&association.role_arn)
            .role_session_name(session_name(owner))
            .duration_seconds(seconds.try_into().unwrap_or(i32::MAX));
        for (key, value) in tags {
            let tag = Tag::builder().key(key).value(value).build();
            assume = assume.tags(tag.expect("a key and a value"));
            assume = assume.transitive_tag_keys(key);
        }
        let assumed = assume.send().await.map_err(|why| {
            // The SDK cannot read the code in moto's refusals.
            let status = why.raw_response().map(|raw| raw.status().as_u16());
            if status == Some(403) {
                return (400, "AccessDeniedException", NOT_TRUSTED.to_owned());
            }
            let reason = DisplayErrorContext(&why).to_string();
            (500, "InternalServerException", reason)
        })?;
        put(&assumed, answer);
        Ok(())
    }
}

fn put(assumed: &AssumeRoleOutput, answer: &mut Value) {
    if let Some(user) = &assumed.assumed_role_user {
        answer["assumedRoleUser"] = json!({
            "arn": user.arn,
            "assumeRoleId": user.assumed_role_id,
        });
    }
    if let Some(credentials) = &assumed.credentials {
        answer["credentials"] = json!({
            "sessionToken": credentials.session_token,
            "secretAccessKey": credentials.secret_access_key,
            "accessKeyId": credentials.access_key_id,
            "expiration": credentials.expiration.secs(),
        });
    }
}

/// The tags that EKS gives a session, unless the association disables them.
fn session_tags(owner: &Owner) -> Vec<(&'static str, String)> {
    vec![
        (
            "eks-cluster-arn",
            format!("arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"),
        ),
        ("eks-cluster-name", CLUSTER.to_owned()),
        ("kubernetes-namespace", owner.namespace.clone()),
        ("kubernetes-service-account", owner.service_account.clone()),
        ("kubernetes-pod-name", owner.pod.clone()),
        ("kubernetes-pod-uid", owner.uid.clone()),
    ]
}

/// `eks-CLUSTER-POD-UUID`, cut where it is too long.
fn session_name(owner: &Owner) -> String {
    let id = new_uid();
    let mut name = format!("eks-{CLUSTER}-{}", owner.pod);
    name.truncate(SESSION_NAME - id.len() - 1);
    format!("{name}-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_after_the_pod_in_as_many_letters_as_sts_takes() {
        let mut owner = Owner {
            role: "reader".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "reader".to_owned(),
            pod: "reader-0".to_owned(),
            uid: new_uid(),
            serial: 1,
        };
        assert!(session_name(&owner).starts_with("eks-test-reader-0-"));
        owner.pod = "r".repeat(253);
        assert_eq!(session_name(&owner).len(), SESSION_NAME);
        let tags = session_tags(&owner);
        assert_eq!(tags.len(), 6);
        assert!(tags.contains(&("kubernetes-pod-uid", owner.uid)));
    }
}
