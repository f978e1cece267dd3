//! What happens, in order, and what is to come of it.

use std::time::{Duration, Instant};

use super::{
    Show,
    scene::{Application, BUCKET, NAMESPACE, Scene},
};
use crate::{associations::role_arn, eks_auth::CLUSTER, http::client::Answer};

/// What a role's trust policy has to allow, so that EKS can assume it for pods.
const TRUST: &str = r#"["sts:AssumeRole", "sts:TagSession"]"#;
/// The same with what is often forgotten.
const NO_TAGS: &str = r#""sts:AssumeRole""#;

/// What a visitor of a page is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The bucket's files, listed by a session of this role.
    Files(&'static str),
    /// IAM's refusal.
    Denied,
    /// No credentials, for a reason with these words in it.
    Nothing(&'static str),
}

impl Wanted {
    fn is_met_by(self, page: &Answer) -> bool {
        let says = |words: &str| page.body.contains(words);
        match self {
            Self::Files(role) => {
                page.status == 200
                    && says(&format!(":assumed-role/{role}/"))
                    && says("beach.jpg")
                    && says("sea.jpg")
            }
            Self::Denied => page.status == 403 && says("AccessDenied"),
            Self::Nothing(words) => page.status == 503 && says(words),
        }
    }
}

/// A visit to an application, and what came of it.
#[derive(Clone, Debug)]
pub struct Step {
    /// What the visit shows, for people.
    pub title: &'static str,
    /// The pod that was visited.
    pub pod: String,
    /// The status of its page.
    pub status: u16,
    /// Since when the association was as it is: nothing for the first visits.
    pub after: Option<Duration>,
    /// Whether the page was right.
    pub right: bool,
}

/// Plays the story, and shows each command and what it says.
///
/// # Panics
///
/// When something cannot be started, or a command does not end as it should.
pub fn play(show: Show<'_>) -> Vec<Step> {
    let scene = Scene::start(show);
    prepare(&scene);
    show("==> Starting the application in a pod of each service account");
    let [photos, reports] = ["photos", "reports"].map(|account| scene.application(account));
    let files = Wanted::Files("photos-reader");
    let mut steps = vec![
        visit(&scene, "allowed", &photos, files, None),
        visit(&scene, "denied by IAM", &reports, Wanted::Denied, None),
    ];

    show("==> The association of reports changes to the role that may list the bucket");
    let id = association(&scene, "reports");
    update(&scene, &id, "photos-reader");
    let since = Some(Instant::now());
    scene.refresh("reports", true);
    steps.push(visit(&scene, "changed", &reports, files, since));

    show("==> It changes to a role whose trust policy lacks sts:TagSession");
    create_role(&scene, "untagged", NO_TAGS);
    update(&scene, &id, "untagged");
    let since = Some(Instant::now());
    scene.refresh("reports", false);
    let wanted = Wanted::Nothing("does not have permissions to assume the associated role");
    steps.push(visit(&scene, "not to be assumed", &reports, wanted, since));

    show("==> The association of photos is taken away");
    let id = association(&scene, "photos");
    scene.aws(&format!(
        "eks delete-pod-identity-association --cluster-name {CLUSTER} --association-id {id}"
    ));
    let since = Some(Instant::now());
    steps.push(visit(
        &scene,
        "deleted, not refreshed",
        &photos,
        files,
        since,
    ));
    scene.refresh("photos", false);
    let wanted = Wanted::Nothing("no pod identity association");
    steps.push(visit(&scene, "deleted", &photos, wanted, since));
    steps
}

/// Makes a bucket with files, roles, and associations.
fn prepare(scene: &Scene<'_>) {
    scene.show("==> A bucket with two files");
    scene.write("files/beach.jpg", "sand");
    scene.write("files/sea.jpg", "water");
    scene.aws(&format!("s3 mb s3://{BUCKET}"));
    scene.aws(&format!(
        "s3 cp --recursive --no-progress files s3://{BUCKET}"
    ));

    scene.show("==> A role that may list it, another one that may list another bucket");
    for (role, bucket) in [("photos-reader", BUCKET), ("reports-reader", "finance")] {
        create_role(scene, role, TRUST);
        let policy = format!("{role}-policy.json");
        scene.write(&policy, &may_list(bucket));
        scene.aws(&format!(
            "iam put-role-policy --role-name {role} --policy-name list \
             --policy-document file://{policy}"
        ));
    }

    scene.show("==> An association for each of two service accounts");
    for (account, role) in [("photos", "photos-reader"), ("reports", "reports-reader")] {
        let arn = role_arn(role);
        scene.aws(&format!(
            "eks create-pod-identity-association --cluster-name {CLUSTER} \
             --namespace {NAMESPACE} --service-account {account} --role-arn {arn}"
        ));
    }
}

/// Makes a role that EKS may assume with these actions.
fn create_role(scene: &Scene<'_>, role: &str, actions: &str) {
    let trust = format!("{role}-trust.json");
    scene.write(
        &trust,
        &format!(
            r#"{{
  "Version": "2012-10-17",
  "Statement": [{{
    "Effect": "Allow",
    "Principal": {{ "Service": "pods.eks.amazonaws.com" }},
    "Action": {actions}
  }}]
}}"#
        ),
    );
    scene.aws(&format!(
        "iam create-role --role-name {role} --assume-role-policy-document file://{trust}"
    ));
}

fn may_list(bucket: &str) -> String {
    format!(
        r#"{{
  "Version": "2012-10-17",
  "Statement": [{{
    "Effect": "Allow",
    "Action": "s3:ListBucket",
    "Resource": "arn:aws:s3:::{bucket}"
  }}]
}}"#
    )
}

/// Gives an association another role.
fn update(scene: &Scene<'_>, id: &str, role: &str) {
    let arn = role_arn(role);
    scene.aws(&format!(
        "eks update-pod-identity-association --cluster-name {CLUSTER} --association-id {id} \
         --role-arn {arn}"
    ));
}

/// The ID of a service account's association, as the EKS API has it.
fn association(scene: &Scene<'_>, account: &str) -> String {
    scene.aws(&format!(
        "eks list-pod-identity-associations --cluster-name {CLUSTER} --namespace {NAMESPACE} \
         --service-account {account} --query associations[0].associationId --output text"
    ))
}

fn visit(
    scene: &Scene<'_>,
    title: &'static str,
    application: &Application,
    wanted: Wanted,
    since: Option<Instant>,
) -> Step {
    let page = scene.visit(application);
    let right = wanted.is_met_by(&page);
    let after = since.map(|since| since.elapsed());
    let verdict = if right { "right" } else { "WRONG" };
    scene.show(&format!("    {title}: {verdict}"));
    Step {
        title,
        pod: application.name().to_owned(),
        status: page.status,
        after,
        right,
    }
}
