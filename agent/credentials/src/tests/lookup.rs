//! A measurement: what a lookup takes and what an entry weighs, however many there are.
//!
//! `cargo test --release -p podcreds-credentials lookup -- --ignored --nocapture`

use std::{hint::black_box, time::Instant as WallClock};

use podcreds_cache::Fetched;

use super::*;

/// As long as real ones: a projected token, and a session token.
const TOKEN: usize = 1200;
const BODY: usize = 1300;
const LOOKUPS: usize = 1_000_000;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn fill(store: &TestStore, clock: Clock, entries: usize) -> Vec<(Claimant, TokenDigest)> {
    (0..entries)
        .map(|n| {
            let pod = format!("{n:032x}").parse().unwrap();
            let token = Token::new(format!("{n:0TOKEN$}"));
            let digest = token.digest();
            let body = Bytes::from(vec![b'x'; BODY]);
            let fetched = Fetched {
                role: None,
                body,
                expiration: clock.now() + 6 * HOUR,
                token,
                digest,
                asked: true,
            };
            store.cache().insert(Subject::Pod(pod), fetched);
            (Claimant::Pod(pod), digest)
        })
        .collect()
}

#[tokio::test]
#[ignore = "a measurement, which says something in a release build only"]
async fn lookup_time_and_bytes_per_entry() {
    println!("entries  ns/lookup  bytes/entry (counted)  bytes/entry (resident)");
    for entries in [100, 10_000, 100_000] {
        let clock = Clock::default();
        let config = config(|it| it.cache.capacity = entries);
        let store = Fake::new(SOON, |_| Err(refused())).store(config, clock);
        let before = resident_bytes();
        let keys = fill(&store, clock, entries);
        let resident = resident_bytes().saturating_sub(before) / entries;
        let counted = store.metric("podcreds_cache_bytes") as usize / entries;

        let started = WallClock::now();
        for n in 0..LOOKUPS {
            // A stride that does not follow the order in memory.
            let (subject, digest) = &keys[n * 7919 % entries];
            assert!(black_box(store.cached(subject, digest)).is_some());
        }
        let nanos = started.elapsed().as_nanos() as usize / LOOKUPS;
        println!("{entries:7} {nanos:10} {counted:22} {resident:23}");
    }
}
