//! What is left without root or eBPF: the agent on loopback, where only the token says who asks.

use std::fs;

use anyhow::{Context, Result};
use podcreds_tests::{
    agent::Agent,
    aws::REGION,
    eks_auth::EksAuth,
    sdk,
    token::{BoundObject, Claims},
};

use crate::{
    CLIENTS,
    outcome::{self, Expected, Identified, Line},
    scenario, step,
};

/// Shows it. The answer is whether everything was right.
pub(crate) fn show() -> Result<bool> {
    let eks_auth = EksAuth::start();
    scenario::associate(&eks_auth);
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let agent = step("Starting the agent on loopback", || {
        Agent::on_loopback(&eks_auth).start()
    });
    let uri = format!("http://{}/v1/credentials", agent.node_path_address());

    let mut lines = Vec::new();
    for (account, role) in scenario::accounts() {
        let pod = BoundObject::new(&format!("{account}-0"));
        let uid = pod.uid.clone();
        let token_file = folder.path().join(&pod.name);
        let claims = Claims::new(scenario::NAMESPACE, account, pod);
        fs::write(&token_file, eks_auth.issuer().sign(&claims)).context("no token file")?;
        let expected = match role {
            Some(role) => Expected::Role { role, uid: &uid },
            None => Expected::Status(404),
        };
        for client in CLIENTS {
            let before = agent.metrics();
            let got = client.run(|program| {
                let mut command = sdk::without_settings(program);
                command
                    .env("HOME", folder.path())
                    .env("AWS_REGION", REGION)
                    .env("AWS_DEFAULT_REGION", REGION)
                    .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)
                    .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token_file);
                command
            })?;
            lines.push(outcome::judge(
                [&format!("{account}-0"), "on loopback", client.name()],
                &got,
                (expected, &Identified::by_token()),
                (&before, &agent.metrics()),
            ));
        }
    }
    println!("\n{}", outcome::table(&lines));
    Ok(lines.iter().all(Line::is_right))
}
