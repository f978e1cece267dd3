//! The plugin's part of `docs/walkthrough.md`: how it tells the cases of the story apart. The page
//! shows what it says here.

use std::fs;

use podcreds_tests::{
    associations::Association,
    checkout,
    cluster::Cluster,
    wait::{DEADLINE, poll},
};

use super::desk::{ACTIONS, Desk, Said};

const PAGE: &str = "docs/walkthrough.md";

/// What the page shows, with the names that it has there.
struct Transcript<'a> {
    desk: &'a Desk,
    text: String,
}

impl Transcript<'_> {
    /// Runs the plugin.
    #[track_caller]
    fn run(&mut self, words: &str, code: i32) -> Said {
        self.text.push_str(&format!("$ kubectl podcreds {words}\n"));
        let namespace = self.desk.namespace.name();
        let own = words.replace("shop", namespace);
        let said = self.desk.run(&own.split(' ').collect::<Vec<_>>());
        assert_eq!(said.code, Some(code), "{}", said.text);
        let shown = said.text.replace(namespace, "shop");
        for line in shown.lines() {
            // What is well is the same in all cases.
            if !line.starts_with("  pass  ") {
                self.text.push_str(&format!("{}\n", stable(line)));
            }
        }
        said
    }

    /// Says what has changed, as the story does.
    fn note(&mut self, change: &str) {
        self.text.push_str(&format!("==> {change}\n"));
    }

    /// Has the doctor look at a pod, for whose trouble this check is the first cause.
    #[track_caller]
    fn doctor(&mut self, pod: &str, cause: Option<&str>) {
        let code = i32::from(cause.is_some());
        let said = self.run(&format!("doctor pod shop/{pod}"), code);
        let last = said.text.lines().next_back().unwrap_or_default();
        assert_eq!(last.strip_prefix("first cause: "), cause, "{}", said.text);
    }
}

/// A line without what is another one each time: how long credentials last.
fn stable(line: &str) -> String {
    match line.split_once(", for ") {
        Some((start, _)) => format!("{start}, for 5h59m"),
        None => line.to_owned(),
    }
}

/// Gives a service account a role, at EKS as at EKS Auth.
fn give(desk: &Desk, account: &str, role: &str, actions: &[&str]) {
    desk.namespace.associate(account, role);
    desk.put(Association::new(desk.namespace.name(), account, role));
    desk.trust(role, actions);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn doctor_tells_the_cases_of_the_walkthrough_apart() {
    let cluster = Cluster::visit();
    let desk = Desk::new(&cluster, "walkthrough");
    for account in ["photos", "reports"] {
        desk.namespace.account(account);
        give(&desk, account, &format!("{account}-reader"), &ACTIONS);
        let mut pod = desk.pod(&format!("{account}-0"));
        pod["spec"]["serviceAccountName"] = account.into();
        desk.make("pods", &pod);
    }
    desk.wait_ready(["photos-0", "reports-0"]);
    for pod in ["photos-0", "reports-0"] {
        let credentials = poll(DEADLINE, || desk.ask(pod));
        assert!(credentials.is_some(), "{pod} has no credentials");
    }

    let mut page = Transcript {
        desk: &desk,
        text: String::new(),
    };
    page.note("An association for each of two service accounts");
    page.doctor("photos-0", None);
    // What a role may do is IAM's: this pod has the role that it should have.
    page.doctor("reports-0", None);

    page.note("The association of reports changes to the role that may list the bucket");
    give(&desk, "reports", "photos-reader", &ACTIONS);
    page.doctor("reports-0", Some("served-role"));
    page.run("refresh shop/reports", 0);
    page.doctor("reports-0", None);

    page.note("It changes to a role whose trust policy lacks sts:TagSession");
    give(&desk, "reports", "untagged", &["sts:AssumeRole"]);
    page.doctor("reports-0", Some("trust"));

    page.note("The association of photos is taken away");
    desk.dissociate("photos");
    page.doctor("photos-0", Some("association"));
    page.run("refresh shop/photos", 1);

    let written = fs::read_to_string(checkout::file(PAGE)).unwrap();
    let text = page.text;
    assert!(
        written.contains(&text),
        "{PAGE} does not show this:\n{text}"
    );
}
