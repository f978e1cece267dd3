//! The machines that nodes are.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::workspace::{self, profile};

/// A processor architecture, by the name that container images give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    /// 64-bit x86
    Amd64,
    /// 64-bit ARM
    Arm64,
}

impl Architecture {
    /// What images are made for, unless somebody asks for less.
    pub(crate) const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// That of this machine.
    ///
    /// # Errors
    ///
    /// When it is none of these.
    pub(crate) fn here() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("podcreds is not built for {other}"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Rust's name for it, where everything is linked statically.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Where the agent is once it is built statically.
    pub(crate) fn agent(self, release: bool) -> Result<PathBuf> {
        let folder = workspace::target()?.join(self.target());
        Ok(folder.join(profile(release)).join("podcreds"))
    }
}
