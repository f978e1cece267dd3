//! What was secret and is no longer needed is nowhere in the agent's memory.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use podcreds_tests::{
    agent::Agent,
    eks_auth::EksAuth,
    needs_privileges,
    token::{AUDIENCE, BoundObject, Claims, Issuer},
    wait::until,
    wire,
};

/// How often `secret` is in a process's memory.
fn copies(process: u32, secret: &str) -> usize {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut copies = 0;
    for map in maps.lines().filter(|map| map.contains(" rw")) {
        let range = map.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (address(range.0), address(range.1));
        let mut content = vec![0; usize::try_from(end - start).unwrap()];
        // Some of the kernel's own cannot be read.
        if memory.read_exact_at(&mut content, start).is_ok() {
            let (first, secret) = (secret.as_bytes()[0], secret.as_bytes());
            let starts = content
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == first);
            copies += starts
                .filter(|(at, _)| content[*at..].starts_with(secret))
                .count();
        }
    }
    copies
}

/// How many tokens are refused: what one leaves behind, the next may write over.
const REFUSED: usize = 60;

fn token(audience: &str) -> String {
    let claims = Claims::new("shop", "reader", BoundObject::new("reader"));
    Issuer::cluster().sign(&claims.audience(audience))
}

/// How the claims of all tokens for this audience begin.
fn beginning(token: &str) -> &str {
    let (_, claims) = token.split_once('.').unwrap();
    &claims[..30]
}

#[test]
fn tokens_that_were_refused_are_wiped_from_every_buffer() {
    needs_privileges!();
    let eks_auth = EksAuth::start();
    eks_auth.associate("shop", "reader", "shop-reader");
    let agent = Agent::on_loopback(&eks_auth).start();
    let ask = |token: &str| wire::ask_at(agent.node_path_address(), token)["status"].clone();
    let kept = token(AUDIENCE);
    assert_eq!(ask(&kept), 200);
    let refused = token("nobody.example");
    for _ in 0..REFUSED {
        assert_eq!(ask(&token("nobody.example")), 400);
    }
    assert!(
        copies(agent.id(), beginning(&kept)) > 0,
        "it renews the credentials"
    );
    // What was said to EKS Auth last stays in its connection, as long as that is open.
    drop(eks_auth);
    until("nothing is left of the refused tokens", || {
        copies(agent.id(), beginning(&refused)) == 0
    });
}
