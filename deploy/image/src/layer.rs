//! A layer: a gzipped tar archive of files that belong to root and are from 1970.

use std::{collections::BTreeSet, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use crate::archive::Digest;

/// A file or a directory in a layer.
pub(crate) struct Entry {
    path: String,
    mode: u32,
    /// `None` for a directory.
    content: Option<Vec<u8>>,
}

impl Entry {
    pub(crate) fn file(path: &str, mode: u32, content: Vec<u8>) -> Self {
        Self {
            path: path.to_owned(),
            mode,
            content: Some(content),
        }
    }

    pub(crate) fn directory(path: &str, mode: u32) -> Self {
        Self {
            path: path.to_owned(),
            mode,
            content: None,
        }
    }
}

/// A layer, ready for an image.
pub(crate) struct Layer {
    /// What is in it, uncompressed, is known by this.
    pub(crate) diff_id: Digest,
    pub(crate) gzip: Vec<u8>,
}

impl Layer {
    /// Packs the entries, with the directories above them.
    pub(crate) fn new(entries: &[Entry]) -> Result<Self> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut known = BTreeSet::new();
        for entry in entries {
            for parent in parents(&entry.path) {
                if known.insert(parent.clone()) {
                    append(&mut tar, &Entry::directory(&parent, 0o755))?;
                }
            }
            known.insert(entry.path.clone());
            append(&mut tar, entry)?;
        }
        let tar = tar.into_inner().context("cannot end a layer")?;
        let mut gzip = GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), Compression::best());
        gzip.write_all(&tar).context("cannot compress a layer")?;
        Ok(Self {
            diff_id: Digest::of(&tar),
            gzip: gzip.finish().context("cannot compress a layer")?,
        })
    }
}

/// The directories above a path, the outermost first.
fn parents(path: &str) -> Vec<String> {
    let mut parents: Vec<_> = Path::new(path)
        .ancestors()
        .skip(1)
        .map(|parent| parent.to_string_lossy().into_owned())
        .filter(|parent| !parent.is_empty())
        .collect();
    parents.reverse();
    parents
}

/// Appends one entry to a tar archive, with nothing in its header that differs from run to run.
fn append(tar: &mut tar::Builder<Vec<u8>>, entry: &Entry) -> Result<()> {
    let (kind, content) = match &entry.content {
        Some(content) => (EntryType::Regular, content.as_slice()),
        None => (EntryType::Directory, &[][..]),
    };
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len().try_into()?);
    tar.append_data(&mut header, &entry.path, content)
        .with_context(|| format!("cannot add {} to a layer", entry.path))
}

/// Packs files into an uncompressed tar archive.
pub(crate) fn pack<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        append(&mut tar, &Entry::file(path, 0o644, content.to_vec()))?;
    }
    tar.into_inner().context("cannot end an archive")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them_and_only_once() {
        let layer = Layer::new(&[
            Entry::file("etc/ssl/certs/ca.crt", 0o644, b"ca".to_vec()),
            Entry::file("etc/ssl/openssl.cnf", 0o644, Vec::new()),
        ])
        .unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(layer.gzip.as_slice())
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(Digest::of(&tar), layer.diff_id);
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 0));
                let path = entry.path().unwrap().display().to_string();
                (path, header.mode().unwrap(), header.size().unwrap())
            })
            .collect();
        let expected = [
            ("etc", 0o755, 0),
            ("etc/ssl", 0o755, 0),
            ("etc/ssl/certs", 0o755, 0),
            ("etc/ssl/certs/ca.crt", 0o644, 2),
            ("etc/ssl/openssl.cnf", 0o644, 0),
        ];
        assert_eq!(
            entries,
            expected.map(|(path, mode, size)| (path.to_owned(), mode, size))
        );
    }
}
