use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_config::{Region, SdkConfig, retry::RetryConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_http_client::Builder;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use podcreds_tests::http::server::{Action, Handler, Server, full};
use serde_json::{Value, json};

use super::*;
use crate::progress::Progress;

/// More than two pages.
const ASSOCIATIONS: usize = 230;

/// EKS and IAM, as far as these tests ask them.
#[derive(Default)]
struct StandIn {
    /// Requests by their first words.
    asked: Mutex<BTreeMap<&'static str, usize>>,
    /// So many more descriptions are answered with a throttle.
    throttled: AtomicUsize,
    denies_descriptions: bool,
}

impl StandIn {
    fn count(&self, what: &'static str) {
        *self.asked.lock().unwrap().entry(what).or_default() += 1;
    }

    fn asked(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.get(what).copied().unwrap_or_default()
    }

    fn list(&self, query: &str) -> (u16, Value) {
        self.count("list");
        let parameter = |name: &str| {
            let mut all = query.split('&').filter_map(|it| it.split_once('='));
            all.find(|(own, _)| *own == name).map(|(_, value)| value)
        };
        assert_eq!(parameter("maxResults"), Some("100"));
        if parameter("namespace").is_some() {
            return (200, json!({ "associations": [summary(7)] }));
        }
        let first: usize = parameter("nextToken").map_or(0, |it| it.parse().unwrap());
        let last = (first + 100).min(ASSOCIATIONS);
        let page: Vec<_> = (first..last).map(summary).collect();
        let next = (last < ASSOCIATIONS).then(|| last.to_string());
        (200, json!({ "associations": page, "nextToken": next }))
    }

    fn describe(&self, id: &str) -> (u16, Value) {
        self.count("describe");
        if self.denies_descriptions {
            return (
                403,
                json!({ "__type": "AccessDeniedException", "message": "not you" }),
            );
        }
        let take = |left: usize| left.checked_sub(1);
        let throttles = &self.throttled;
        if throttles
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok()
        {
            return (
                429,
                json!({ "__type": "ThrottlingException", "message": "slowly" }),
            );
        }
        let association = json!({
            "associationId": id, "roleArn": format!("arn:aws:iam::1:role/{id}"),
            "createdAt": 1000.5, "disableSessionTags": id == "a-7",
            "targetRoleArn": "arn:aws:iam::2:role/t", "externalId": "x",
        });
        (200, json!({ "association": association }))
    }
}

fn summary(number: usize) -> Value {
    json!({
        "namespace": format!("n{}", number % 10), "serviceAccount": format!("s{number}"),
        "associationId": format!("a-{number}"), "clusterName": "prod",
    })
}

fn role(name: &str) -> (u16, String) {
    if name != "app" {
        let error = "<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code>\
                     <Message>none</Message></Error></ErrorResponse>";
        return (404, error.to_owned());
    }
    let answer = "<GetRoleResponse><GetRoleResult><Role><Path>/</Path><RoleName>app</RoleName>\
                  <RoleId>i</RoleId><Arn>arn:aws:iam::1:role/app</Arn>\
                  <CreateDate>2026-01-01T00:00:00Z</CreateDate>\
                  <AssumeRolePolicyDocument>%7B%22Version%22%3A%222012-10-17%22%7D\
                  </AssumeRolePolicyDocument><PermissionsBoundary>\
                  <PermissionsBoundaryArn>arn:aws:iam::1:policy/p</PermissionsBoundaryArn>\
                  </PermissionsBoundary></Role></GetRoleResult></GetRoleResponse>";
    (200, answer.to_owned())
}

impl Handler for StandIn {
    fn handle(self: Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Action> {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let (status, body) = match path.strip_prefix("/clusters/prod") {
            Some("") => {
                let arn = "arn:aws:eks:eu-central-1:1:cluster/prod";
                (
                    200,
                    json!({ "cluster": { "name": "prod", "arn": arn } }).to_string(),
                )
            }
            Some("/pod-identity-associations") => {
                let (status, body) = self.list(query);
                (status, body.to_string())
            }
            Some(rest) => {
                let (status, body) = self.describe(rest.rsplit('/').next().unwrap());
                (status, body.to_string())
            }
            None => {
                let body = String::from_utf8_lossy(request.body()).into_owned();
                let mut fields = body.split('&');
                let name = fields.find_map(|it| it.strip_prefix("RoleName="));
                role(name.unwrap_or_default())
            }
        };
        let mut answer = Response::new(full(body));
        *answer.status_mut() = status.try_into().unwrap();
        async move { Action::Answer(answer) }.boxed()
    }
}

fn start(stand_in: &Arc<StandIn>) -> (Server, SdkConfig) {
    let server = Server::start("aws", Arc::clone(stand_in) as Arc<dyn Handler>);
    let credentials = Credentials::new("id", "secret", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(server.url())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(Builder::new().build_http())
        .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
        .build();
    (server, config)
}

fn quiet() -> Progress {
    Progress::new("things", 0)
}

#[tokio::test]
async fn all_pages_are_listed_and_each_association_is_described_once() {
    let stand_in = Arc::new(StandIn::default());
    stand_in.throttled.store(2, Ordering::SeqCst);
    let (_server, config) = start(&stand_in);
    let eks = Eks::new(&config, "prod");
    let mut associations = eks.associations(None, None).await.unwrap();
    assert_eq!(
        (associations.len(), stand_in.asked("list")),
        (ASSOCIATIONS, 3)
    );
    assert_eq!(stand_in.asked("describe"), 0);
    eks.describe(&mut associations, &quiet()).await;
    // Two were told to come again.
    assert_eq!(stand_in.asked("describe"), ASSOCIATIONS + 2);
    let known = associations.values().filter_map(|it| it.known()).count();
    assert_eq!(known, ASSOCIATIONS);
    let seven = associations[&"n7/s7".parse().unwrap()].known().unwrap();
    assert_eq!(seven.role, "arn:aws:iam::1:role/a-7");
    assert_eq!((seven.session_tags, seven.created), (false, Some(1000)));
    assert_eq!(seven.external_id.as_deref(), Some("x"));
}

#[tokio::test]
async fn a_filter_is_left_to_eks() {
    let stand_in = Arc::new(StandIn::default());
    let (_server, config) = start(&stand_in);
    let eks = Eks::new(&config, "prod");
    let associations = eks.associations(Some("n7"), None).await.unwrap();
    assert_eq!((associations.len(), stand_in.asked("list")), (1, 1));
    let cluster = eks.cluster().await.unwrap();
    assert_eq!(cluster.account(), Some("1"));
    assert_eq!(cluster.region.as_deref(), Some("eu-central-1"));
}

#[tokio::test]
async fn a_refusal_names_the_permission_and_leaves_the_rest() {
    let stand_in = Arc::new(StandIn {
        denies_descriptions: true,
        ..StandIn::default()
    });
    let (_server, config) = start(&stand_in);
    let eks = Eks::new(&config, "prod");
    let mut associations = eks.associations(Some("n7"), None).await.unwrap();
    eks.describe(&mut associations, &quiet()).await;
    let only = associations.values().next().unwrap();
    let missing = only.details.as_ref().unwrap().as_ref().unwrap_err();
    assert_eq!(missing.why, "AccessDeniedException: not you");
    let needs = missing.needs.as_deref();
    assert_eq!(needs, Some("eks:DescribePodIdentityAssociation"));
}

#[tokio::test]
async fn a_role_is_read_and_one_that_is_gone_is_nothing() {
    let (_server, config) = start(&Arc::new(StandIn::default()));
    let arns = [
        "arn:aws:iam::1:role/app",
        "arn:aws:iam::1:role/gone",
        "arn:aws:iam::2:role/app",
    ];
    let arns = arns.map(str::to_owned).into();
    let roles = Iam::new(&config).roles(arns, &quiet()).await;
    let app = roles["arn:aws:iam::1:role/app"].as_ref().unwrap();
    let app = app.as_ref().unwrap();
    assert_eq!(app.trust, json!({ "Version": "2012-10-17" }));
    assert_eq!(app.boundary.as_deref(), Some("arn:aws:iam::1:policy/p"));
    assert_eq!(roles["arn:aws:iam::1:role/gone"], Ok(None));
    assert_eq!(roles["arn:aws:iam::2:role/app"], Ok(None));
}
