//! The whole story, from a bucket in S3 to a request that IAM denies.

use anyhow::{Result, anyhow};
use podcreds_tests::{moto, privileged, run, table, walkthrough};

/// Shows it. The answer is whether everything was right.
pub(crate) fn show() -> Result<bool> {
    let missing = privileged::check().and_then(|()| moto::check());
    missing.map_err(|missing| anyhow!("this cannot be shown here: {missing}"))?;
    // So that what this makes from here on is removed, however it ends.
    run::current();
    let steps = walkthrough::play(&|line| println!("{line}"));
    let rows: Vec<_> = steps
        .iter()
        .map(|step| {
            let after = step
                .after
                .map(|after| format!("{:.1} s", after.as_secs_f64()));
            let right = if step.right { "right" } else { "WRONG" };
            vec![
                step.title.to_owned(),
                step.pod.clone(),
                step.status.to_string(),
                after.unwrap_or_default(),
                right.to_owned(),
            ]
        })
        .collect();
    let titles = ["THE ROLE IS", "POD", "PAGE", "AFTER", "RESULT"];
    println!("\n{}", table::layout(&titles, &rows, &[2, 3]));
    Ok(steps.iter().all(|step| step.right))
}
