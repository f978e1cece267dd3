//! What somebody with the privileges for it does to a pod's network: links, addresses and packet
//! filters.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Join, Pod};

impl Pod {
    /// Runs `ip` with these arguments in its network namespace, from outside of the pod.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn ip(&self, arguments: &str) {
        let mut command = Join::nothing().network(&self.network()).command("ip");
        let output = command.args(arguments.split_whitespace()).output();
        let output = output.expect("ip (package iproute2)");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {said}");
    }

    /// Loads a ruleset of nftables into its network namespace, from outside of the pod.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn filter(&self, ruleset: &str) {
        load(
            Join::nothing().network(&self.network()).command("nft"),
            ruleset,
        );
    }

    /// How many packets a counter has seen that such a ruleset names in `table inet filter`.
    ///
    /// # Panics
    ///
    /// When there is no such counter.
    pub fn counted_packets(&self, counter: &str) -> u64 {
        let mut command = Join::nothing().network(&self.network()).command("nft");
        command.args(["-j", "list", "counter", "inet", "filter", counter]);
        let output = command.output().expect("nft (package nftables)");
        let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON of nft's");
        let objects = listed["nftables"].as_array().expect("a list of objects");
        let packets = objects
            .iter()
            .find_map(|it| it["counter"]["packets"].as_u64());
        packets.expect("a counter of that name")
    }
}

/// Has `nft`, as prepared, load a ruleset.
pub(crate) fn load(mut nft: Command, ruleset: &str) {
    let child = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn();
    let mut child = child.expect("nft (package nftables)");
    let mut stdin = child.stdin.take().expect("nft's input");
    stdin
        .write_all(ruleset.as_bytes())
        .expect("a ruleset to nft");
    drop(stdin);
    let status = child.wait().expect("nft's exit status");
    assert!(status.success(), "nft did not take this:\n{ruleset}");
}
