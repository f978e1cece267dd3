//! Names and texts that a pod or a container runtime may choose.

use podcreds_fuzz::Fuzz;

use super::{
    discovery::kubepods::{CgroupLevel, cgroup2_mounts, classify},
    pods::processes::parse_start_time,
};

const FUZZ: Fuzz = Fuzz {
    manifest: env!("CARGO_MANIFEST_DIR"),
    words: &[
        "kubepods",
        "kubepods.slice",
        "kubepods-burstable",
        "besteffort",
        "pod",
        ".slice",
        ".scope",
        "cri-containerd-",
        "/",
        "-",
        "_",
        "0f0e0d0c_0b0a_0908_0706_050403020100",
        "0f0e0d0c0b0a09080706050403020100",
        " - cgroup2 ",
        "\\040",
        "\n",
        ") S 1 ",
        " 0 0 0 0",
    ],
};

#[test]
fn fuzz_cgroups() {
    FUZZ.feed("cgroups", |input| {
        let path = String::from_utf8_lossy(input);
        let (mut level, mut levels) = (CgroupLevel::Other, Vec::new());
        for name in path.split('/') {
            level = classify(level, name);
            if let CgroupLevel::Pod(uid) = level {
                let plain = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
                let (name, uid) = (plain(name), plain(&uid.to_string()));
                assert!(name.contains(&format!("pod{uid}")), "{name} is not {uid}");
                assert!(
                    path.contains("kubepods"),
                    "a pod outside of kubelet's cgroups"
                );
                levels.push(2);
                break;
            }
            levels.push(u8::from(level == CgroupLevel::Kubelet));
        }
        levels.truncate(6);
        levels
    });
}

#[test]
fn fuzz_mounts() {
    FUZZ.feed("mounts", |input| {
        let text = String::from_utf8_lossy(input);
        let mounts = cgroup2_mounts(&text);
        assert!(mounts.len() <= text.matches(" - cgroup2").count());
        mounts.len().min(8)
    });
}

#[test]
fn fuzz_stat() {
    FUZZ.feed("stat", |input| {
        let text = String::from_utf8_lossy(input);
        let started = parse_start_time(&text);
        // The name of a process may hold anything, its own idea of the rest included.
        let ends = text
            .find('(')
            .is_some_and(|open| text[open..].contains(')'));
        if !ends {
            return (started.is_some(), false);
        }
        let named = text.replacen(
            '(',
            "(x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 9 (",
            1,
        );
        assert_eq!(
            parse_start_time(&named),
            started,
            "a name says when it started"
        );
        (started.is_some(), true)
    });
}
