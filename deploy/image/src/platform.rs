//! The machines that an image is for.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail};
use serde_json::{Value, json};

/// A processor architecture, by the name that container images give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// The `platform` of a manifest in an index.
    pub(crate) fn platform(self) -> Value {
        let mut platform = json!({ "architecture": self.to_string(), "os": "linux" });
        if self == Self::Arm64 {
            platform["variant"] = json!("v8");
        }
        platform
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

impl FromStr for Architecture {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            _ => bail!("{name:?} is neither amd64 nor arm64"),
        }
    }
}
