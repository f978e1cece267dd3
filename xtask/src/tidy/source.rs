//! The text files of the checkout.

use std::{fs, path::Path};

use crate::workspace::root;

/// Folders that hold nothing written by hand.
const SKIPPED: [&str; 2] = [".git", "target"];

/// A file of the checkout.
pub(super) struct Source {
    /// From the root of the checkout, with slashes.
    pub(super) path: String,
    pub(super) text: String,
}

impl Source {
    pub(super) fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    pub(super) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|own| own == extension)
    }

    pub(super) fn is_below(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Whether it is what the agent is made of, and no test.
    pub(super) fn is_of_agent(&self) -> bool {
        let is_test = self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        self.is_rust() && !is_test && (self.is_below("agent/") || self.is_below("common/"))
    }
}

/// All text files, in the order of their paths.
pub(super) fn checkout() -> Vec<Source> {
    let mut files = Vec::new();
    collect(root(), &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn collect(folder: &Path, files: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !SKIPPED.iter().any(|name| path.ends_with(name)) {
                collect(&path, files);
            }
            continue;
        }
        // What is not UTF-8 is no text.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let path = path.strip_prefix(root()).unwrap().display().to_string();
        files.push(Source { path, text });
    }
}
