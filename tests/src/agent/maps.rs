//! The agent's eBPF maps, by the kernel's own account.

use std::{collections::HashSet, fs};

use aya::maps::{HashMap, Map, MapData, loaded_maps};

/// How many entries a hash map has that the process `agent` holds open under this name. Its keys are
/// 8 bytes and its values 16.
pub(super) fn entries(agent: u32, name: &str) -> usize {
    let held = held_by(agent);
    let map = loaded_maps()
        .flatten()
        .find(|map| held.contains(&map.id()) && map.name_as_str() == Some(name))
        .unwrap_or_else(|| panic!("the agent has no map {name}"));
    let data = MapData::from_id(map.id()).expect("the map, by its id");
    let map: HashMap<_, u64, [u8; 16]> = HashMap::try_from(Map::HashMap(data)).expect("a hash map");
    map.keys().flatten().count()
}

/// The ids of the maps that a process has descriptors of.
fn held_by(process: u32) -> HashSet<u32> {
    let infos = fdinfo(process);
    let ids = infos.iter().filter_map(|info| {
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:"))?;
        id.trim().parse().ok()
    });
    ids.collect()
}

/// What the kernel tells of each descriptor of a process.
pub(super) fn fdinfo(process: u32) -> Vec<String> {
    fs::read_dir(format!("/proc/{process}/fdinfo"))
        .expect("the agent's descriptors")
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .collect()
}
