//! The agent's eBPF maps, by the kernel's own account.

use std::{collections::HashSet, fs};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, loaded_maps},
};

/// How many entries a hash map has that the process `agent` holds open under this name.
///
/// # Panics
///
/// When it has no such map, or one of other sizes than the agent's maps have.
pub(super) fn entries(agent: u32, name: &str) -> usize {
    let held = held_by(agent);
    let map = loaded_maps()
        .flatten()
        .find(|map| held.contains(&map.id()) && map.name_as_str() == Some(name))
        .unwrap_or_else(|| panic!("the agent has no map {name}"));
    let data = MapData::from_id(map.id()).expect("the map, by its id");
    let data = Map::HashMap(data);
    match (map.key_size(), map.value_size()) {
        (8, 16) => count::<[u8; 8], [u8; 16]>(data),
        (8, 4) => count::<[u8; 8], [u8; 4]>(data),
        (16, 16) => count::<[u8; 16], [u8; 16]>(data),
        sizes => panic!("the map {name} has keys and values of {sizes:?} bytes"),
    }
}

fn count<K: Pod, V: Pod>(map: Map) -> usize {
    let map: HashMap<_, K, V> = HashMap::try_from(map).expect("a hash map");
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

/// What the kernel shows for each descriptor of a process.
pub(super) fn fdinfo(process: u32) -> Vec<String> {
    fs::read_dir(format!("/proc/{process}/fdinfo"))
        .expect("the agent's descriptors")
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .collect()
}
