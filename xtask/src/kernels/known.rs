//! The kernels, and where they come from.

/// A kernel of a distribution.
pub(crate) struct Kernel {
    /// The series, which is also what it is called here.
    pub(crate) version: &'static str,
    /// What the distribution calls the newest kernel of that series.
    pub(super) package: &'static str,
    pub(super) archive: Archive,
    /// Whether the eBPF programs are to run on it. Otherwise the agent must say why they do not.
    pub(super) supported: bool,
}

/// A part of a distribution's package archive.
pub(super) struct Archive {
    /// Addresses and suites.
    pub(super) suites: &'static [(&'static str, &'static str)],
    pub(super) keyring: Keyring,
}

/// Whose signature an archive must have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyring {
    Debian,
    Ubuntu,
}

const DEBIAN: &str = "http://deb.debian.org/debian";
const DEBIAN_SECURITY: &str = "http://deb.debian.org/debian-security";
const UBUNTU: &str = "http://archive.ubuntu.com/ubuntu";

/// The oldest first.
pub(super) const KERNELS: [Kernel; 4] = [
    Kernel {
        version: "5.10",
        package: "linux-image-cloud-amd64",
        archive: Archive {
            suites: &[(DEBIAN, "bullseye"), (DEBIAN_SECURITY, "bullseye-security")],
            keyring: Keyring::Debian,
        },
        supported: false,
    },
    Kernel {
        version: "5.15",
        package: "linux-image-aws-lts-22.04",
        archive: Archive {
            suites: &[
                (UBUNTU, "jammy"),
                (UBUNTU, "jammy-updates"),
                (UBUNTU, "jammy-security"),
            ],
            keyring: Keyring::Ubuntu,
        },
        supported: true,
    },
    Kernel {
        version: "6.1",
        package: "linux-image-cloud-amd64",
        archive: Archive {
            suites: &[(DEBIAN, "bookworm"), (DEBIAN_SECURITY, "bookworm-security")],
            keyring: Keyring::Debian,
        },
        supported: true,
    },
    Kernel {
        version: "6.12",
        package: "linux-image-cloud-amd64",
        archive: TRIXIE,
        supported: true,
    },
];

/// Has the Ubuntu archive's keys too.
pub(super) const TRIXIE: Archive = Archive {
    suites: &[(DEBIAN, "trixie"), (DEBIAN_SECURITY, "trixie-security")],
    keyring: Keyring::Debian,
};

/// The names that can be asked for.
pub(crate) fn versions() -> [&'static str; KERNELS.len()] {
    KERNELS.map(|kernel| kernel.version)
}
