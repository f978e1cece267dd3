//! What pods take from the machine instead of from an image: its programs, and what this checkout
//! has built. All of it read-only.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::layout::Layout;

/// Folders of the machine that pods mount under the same path.
pub struct Machine {
    folders: Vec<PathBuf>,
}

impl Machine {
    /// All that the clients need that `cargo xtask setup` has installed.
    pub fn of(layout: &Layout) -> Self {
        let built = env::current_exe().ok().and_then(|own| profile(&own));
        let mut folders = vec!["/usr".into(), "/etc/ssl".into(), layout.tools()];
        // On Debian, `java` is a link to a link in there.
        folders.extend(Some(PathBuf::from("/etc/alternatives")).filter(|folder| folder.exists()));
        folders.extend(built);
        folders.extend(java());
        folders.extend(python(&layout.tools()));
        Self { folders }
    }

    /// The volumes of a pod.
    pub fn volumes(&self) -> Vec<Value> {
        let volume = |(number, folder): (usize, &PathBuf)| json!({ "name": name(number), "hostPath": { "path": folder } });
        self.folders.iter().enumerate().map(volume).collect()
    }

    /// The mounts of each of its containers.
    pub fn mounts(&self) -> Vec<Value> {
        let mount = |(number, folder): (usize, &PathBuf)| json!({ "name": name(number), "mountPath": folder, "readOnly": true });
        self.folders.iter().enumerate().map(mount).collect()
    }
}

fn name(number: usize) -> String {
    format!("machine-{number}")
}

/// `target/debug`, where a test is one folder further down.
fn profile(own: &Path) -> Option<PathBuf> {
    let folder = own.parent()?;
    let profile = match folder.ends_with("deps") {
        true => folder.parent()?,
        false => folder,
    };
    Some(profile.to_owned())
}

/// The settings of Debian's Java, without which it does not run.
fn java() -> Vec<PathBuf> {
    let entries = fs::read_dir("/etc").into_iter().flatten().flatten();
    let settings = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("java-"));
    settings.map(|entry| entry.path()).collect()
}

/// The Python that the private environment was made with, where it is not the machine's.
fn python(tools: &Path) -> Option<PathBuf> {
    let settings = fs::read_to_string(tools.join("venv/pyvenv.cfg")).ok()?;
    let programs = settings
        .lines()
        .find_map(|line| line.strip_prefix("home = "))?;
    let home = Path::new(programs).parent()?;
    (!home.starts_with("/usr")).then(|| home.to_owned())
}
