//! The tokens among the files that kubelet has mounted into a pod.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use podcreds_types::{PodUid, Token, Undecided};
use rustix::fs::{Mode, OFlags, open};
use zeroize::Zeroizing;

/// A token is some 1,200 bytes. The pod may have anything else in its volumes.
pub(super) const MAX_BYTES: usize = 16 * 1024;
/// The most volumes of a pod, and the most of their files, that are looked at.
const MAX_FILES: usize = 64;

/// What may be a token among the files of a pod's projected volumes.
///
/// # Errors
///
/// When kubelet has no folder for the pod, or a file may not be read.
pub(super) fn tokens(kubelet_root: &Path, pod: PodUid) -> Result<Vec<Token>, (Undecided, String)> {
    let folder = kubelet_root.join("pods").join(pod.to_string());
    if let Err(error) = fs::metadata(&folder) {
        let words = format!("{}: {error}", folder.display());
        return Err((Undecided::NoFolder, words));
    }
    let volumes = folder.join("volumes/kubernetes.io~projected");
    let files = |directory: PathBuf| {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.take(MAX_FILES).flatten()
    };
    // Kubelet's own files are behind one link, `..data`.
    let contents = files(volumes).flat_map(|volume| files(volume.path().join("..data")));
    let mut tokens = Vec::new();
    for file in contents.take(MAX_FILES) {
        match small_text(&file.path()) {
            Ok(text) => tokens.push(Token::new(text.trim())),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let words = format!("{}: {error}", file.path().display());
                return Err((Undecided::NotPermitted, words));
            }
            // Too large, no text, or gone: no token.
            Err(_) => {}
        }
    }
    Ok(tokens)
}

/// The text of a regular file that is small enough to be a token.
fn small_text(path: &Path) -> io::Result<Zeroizing<String>> {
    // Whatever it is, opening it does not wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Large enough from the start: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES + 64));
    let read = file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    match read <= MAX_BYTES {
        true => Ok(text),
        false => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    const POD: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

    #[test]
    fn a_file_that_is_too_large_or_not_regular_is_no_token() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("pods").join(POD);
        let data = pod.join("volumes/kubernetes.io~projected/token/..data");
        fs::create_dir_all(data.join("folder")).unwrap();
        fs::write(data.join("huge"), vec![b'x'; MAX_BYTES + 1]).unwrap();
        fs::write(data.join("token"), "token\n").unwrap();
        mkfifoat(CWD, data.join("pipe"), Mode::RWXU).unwrap();
        let tokens = tokens(root.path(), POD.parse().unwrap()).unwrap();
        let texts: Vec<_> = tokens.iter().map(Token::expose).collect();
        assert_eq!(texts, ["token"]);
    }

    #[test]
    fn a_pod_that_kubelet_has_no_folder_for_is_told_from_one_without_tokens() {
        let root = tempfile::tempdir().unwrap();
        let uid = POD.parse().unwrap();
        let (reason, words) = tokens(root.path(), uid).unwrap_err();
        assert_eq!(reason, Undecided::NoFolder);
        assert!(words.contains(POD), "{words}");
        fs::create_dir_all(root.path().join("pods").join(POD)).unwrap();
        assert_eq!(tokens(root.path(), uid).unwrap().len(), 0);
    }
}
