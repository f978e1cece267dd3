//! What can be measured.

use anyhow::Result;
use clap::ValueEnum;
use podcreds_tests::eks_auth::EksAuth;

use crate::{Arguments, at_once, churn, memory, outcome::Outcome, rest, speed, steady};

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Requests at a fixed rate for credentials that are in memory, beside nginx
    Cached,
    /// Memory without pods, and with many pods in memory
    Memory,
    /// What an agent costs that nobody asks
    Rest,
    /// All pods ask at once, nobody has credentials yet, and EKS Auth takes its time
    Cold,
    /// All pods ask at once, and EKS Auth bears only so many calls a second
    Storm,
    /// Pods come and go beside others that stay
    Churn,
    /// EKS Auth is out for a while, under steady load
    Outage,
    /// One agent follows another, under steady load
    Update,
}

impl Scenario {
    /// As it is named on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is about.
    pub(crate) fn title(self) -> String {
        let value = self.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        format!(
            "{}: {}",
            self.name(),
            help.map_or_else(String::new, ToString::to_string)
        )
    }

    /// Measures it.
    pub(crate) fn measure(self, arguments: &Arguments) -> Result<Vec<Outcome>> {
        let eks_auth = EksAuth::start();
        eks_auth.associate("default", "default", "load");
        match self {
            Self::Cached => speed::measure(arguments, &eks_auth),
            Self::Memory => memory::measure(arguments, &eks_auth),
            Self::Rest => rest::measure(arguments, &eks_auth),
            Self::Cold => at_once::cold(arguments, &eks_auth),
            Self::Storm => at_once::storm(arguments, &eks_auth),
            Self::Churn => churn::measure(arguments, &eks_auth),
            Self::Outage => steady::outage(arguments, &eks_auth),
            Self::Update => steady::update(arguments, &eks_auth),
        }
    }
}
