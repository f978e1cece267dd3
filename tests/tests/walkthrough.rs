//! The story of `docs/walkthrough.md`.

use podcreds_tests::{moto, needs_privileges, privileged::can_run, sdk::Sdk, walkthrough::play};

#[test]
fn pods_get_what_iam_and_their_association_allow_and_a_refresh_follows_a_change() {
    needs_privileges!();
    if !can_run(Sdk::AwsCli.check().and_then(|()| moto::check())) {
        return;
    }
    let steps = play(&|line| println!("{line}"));
    assert_eq!(steps.len(), 6);
    assert!(steps.iter().all(|step| step.right), "{steps:#?}");
}
