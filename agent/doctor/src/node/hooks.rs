//! Other programs where the agent's are, and whose they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use podcreds_datapath::diagnosis::{self, Attached, CgroupTree};

use crate::report::Finding;

const NAME: &str = "hooks";
/// How the agent's own programs begin.
const OWN: &str = "podcreds_";
/// Whose programs begin how. The kernel keeps 15 characters.
const KNOWN: [(&str, &str); 3] = [("cil_", "Cilium"), ("cali", "Calico"), ("sd_", "systemd")];

/// A cgroup, and what is attached to it.
type CgroupPrograms = (PathBuf, Vec<Attached>);

pub(super) fn check(cgroup_root: Option<PathBuf>) -> Finding {
    match look(cgroup_root) {
        Ok(seen) => judge(&seen),
        Err(error) => Finding::warn(
            NAME,
            format!("cannot ask the kernel: {error}"),
            "run it with CAP_NET_ADMIN and CAP_SYS_ADMIN",
        ),
    }
}

fn look(cgroup_root: Option<PathBuf>) -> io::Result<Vec<CgroupPrograms>> {
    let tree = diagnosis::cgroup_tree(cgroup_root).map_err(io::Error::other)?;
    let seen = places(&tree)?.into_iter().map(|place| {
        let attached = diagnosis::programs_at(&place)?;
        Ok((place, attached))
    });
    seen.collect()
}

/// Where a program would run for all pods, or for a class of them.
fn places(tree: &CgroupTree) -> io::Result<BTreeSet<PathBuf>> {
    let mut places = BTreeSet::from([tree.mount.clone(), tree.root.clone()]);
    places.extend(diagnosis::kubelet_levels(&tree.root)?);
    Ok(places)
}

fn judge(seen: &[CgroupPrograms]) -> Finding {
    let all = || {
        seen.iter()
            .flat_map(|(place, them)| them.iter().map(move |it| (place, it)))
    };
    let alien = |it: &Attached| !it.name.starts_with(OWN);
    if let Some((place, it)) = all().find(|(_, it)| it.is_exclusive) {
        return Finding::fail(
            NAME,
            format!(
                "{} at {} is attached so that no other program can be: {}",
                described(it),
                it.hook.name(),
                place.display()
            ),
            "detach it (bpftool cgroup detach), or have its owner attach it with a link or `multi`",
        );
    }
    let strangers = all().filter(|(_, it)| alien(it) && owner(it).is_none());
    let mut described_at: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (place, it) in strangers {
        let hooks = described_at.entry(format!("{} at {}", described(it), place.display()));
        hooks.or_default().insert(it.hook.name().to_owned());
    }
    if !described_at.is_empty() {
        let them = described_at.iter().map(|(what, hooks)| {
            let hooks: Vec<_> = hooks.iter().map(String::as_str).collect();
            format!("{what} ({})", hooks.join(", "))
        });
        return Finding::warn(
            NAME,
            format!(
                "programs of an unknown owner: {}",
                them.collect::<Vec<_>>().join("; ")
            ),
            "find out whose they are (bpftool prog show id N): a program at connect can send pods \
             elsewhere before the agent's programs see the call",
        );
    }
    Finding::pass(NAME, summary(all().map(|(_, it)| it)))
}

/// Who is there, by name.
fn summary<'a>(attached: impl Iterator<Item = &'a Attached>) -> String {
    let mut agents = BTreeSet::new();
    let mut others = BTreeSet::new();
    for it in attached {
        match owner(it) {
            Some(owner) => drop(others.insert(owner)),
            None => agents.extend(it.holders.iter().map(|holder| holder.pid)),
        }
    }
    let mut parts = Vec::new();
    if !agents.is_empty() {
        let agents: Vec<_> = agents.iter().map(u32::to_string).collect();
        parts.push(format!("podcreds (process {})", agents.join(", ")));
    }
    parts.extend(others.into_iter().map(str::to_owned));
    match parts.is_empty() {
        true => "no program at the agent's hooks".to_owned(),
        false => parts.join(", "),
    }
}

/// Whose a program is that is known not to be in the agent's way.
fn owner(it: &Attached) -> Option<&'static str> {
    let known = KNOWN.iter().find(|(start, _)| it.name.starts_with(start));
    known.map(|(_, owner)| *owner)
}

fn described(it: &Attached) -> String {
    let name = match &*it.name {
        "" => "a program",
        name => name,
    };
    let held = it
        .holders
        .iter()
        .map(|it| format!("{} {}", it.command, it.pid));
    let held: Vec<_> = held.collect();
    match held.is_empty() {
        true => format!(
            "{name} (id {}, tag {:016x}, pinned or without a link)",
            it.id, it.tag
        ),
        false => format!("{name} (id {}, held by {})", it.id, held.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use podcreds_datapath::diagnosis::{Holder, Hook};

    use super::*;
    use crate::report::Status;

    fn attached(name: &str, is_exclusive: bool) -> CgroupPrograms {
        let it = Attached {
            hook: Hook::Connect4,
            id: 7,
            name: name.to_owned(),
            tag: 0xab,
            is_exclusive,
            holders: vec![Holder {
                pid: 42,
                command: "who".to_owned(),
            }],
        };
        ("/sys/fs/cgroup".into(), vec![it])
    }

    #[test]
    fn known_neighbours_are_named_and_strangers_are_a_warning() {
        let nobody = judge(&[]);
        assert_eq!(
            (nobody.status, &*nobody.seen),
            (Status::Pass, "no program at the agent's hooks")
        );
        let known = judge(&[
            attached("cil_sock4_conne", false),
            attached("podcreds_connec", false),
        ]);
        assert_eq!(known.status, Status::Pass);
        assert_eq!(known.seen, "podcreds (process 42), Cilium");
        let stranger = judge(&[attached("redirect4", false)]);
        assert_eq!(stranger.status, Status::Warn);
        for part in ["redirect4", "id 7", "who 42", "connect4"] {
            assert!(stranger.seen.contains(part), "{part}: {}", stranger.seen);
        }
    }

    #[test]
    fn a_hook_that_takes_no_other_program_fails() {
        assert_eq!(
            judge(&[attached("cil_sock4_conne", true)]).status,
            Status::Fail
        );
    }
}
