//! What may happen next, and how likely that is.

use std::{fmt, time::Duration};

use super::world::{ACCOUNT, World};
use crate::{
    eks_auth::Fault,
    pod::{Driver, Qos},
};

/// The fewest pods that are left when one goes.
const FEWEST: usize = 2;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A pod starts.
    PodComes {
        driver: Driver,
        qos: Qos,
        host_network: bool,
    },
    /// A pod ends.
    PodGoes(usize),
    /// A pod's sandbox is made anew.
    SandboxRemade(usize),
    /// A pod's token rotates.
    TokenRotates(usize),
    /// EKS Auth begins to fail.
    Fails(Fault),
    /// EKS Auth bears so many calls a second.
    Quota(usize),
    /// EKS Auth works again.
    Heals,
    /// An agent starts beside the one that is there.
    UpdateBegins,
    /// The older agent is told to end.
    UpdateEnds,
    /// One of two agents is killed.
    OneOfTwoKilled(usize),
    /// The only agent is killed, and another one starts.
    Killed,
    /// Nothing fails: every pod is to be served.
    Calm,
}

impl Action {
    /// Chooses one of those that are possible now.
    pub(super) fn choose(random: &mut fastrand::Rng, world: &World, most_pods: usize) -> Self {
        let pods = world.residents().len();
        let updating = world.agents().len() > 1;
        let weights = [
            if pods < most_pods { 6 } else { 0 },
            if pods > FEWEST { 4 } else { 0 },
            if pods > 0 { 2 } else { 0 },
            if pods > 0 { 4 } else { 0 },
            5,
            1,
            5,
            if updating { 0 } else { 2 },
            if updating { 4 } else { 0 },
            if updating { 1 } else { 0 },
            if updating { 0 } else { 1 },
            1,
        ];
        let mut at = random.u32(..weights.iter().sum::<u32>());
        let chosen = weights.iter().position(|weight| {
            let is_here = at < *weight;
            at = at.saturating_sub(*weight);
            is_here
        });
        match chosen.unwrap_or_default() {
            0 => Self::PodComes {
                driver: [Driver::Systemd, Driver::Cgroupfs][random.usize(..2)],
                qos: [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort][random.usize(..3)],
                host_network: random.u8(..8) == 0,
            },
            1 => Self::PodGoes(random.usize(..pods)),
            2 => Self::SandboxRemade(random.usize(..pods)),
            3 => Self::TokenRotates(random.usize(..pods)),
            4 => Self::Fails(fault(random)),
            5 => Self::Quota(random.usize(1..20)),
            6 => Self::Heals,
            7 => Self::UpdateBegins,
            8 => Self::UpdateEnds,
            9 => Self::OneOfTwoKilled(random.usize(..2)),
            10 => Self::Killed,
            _ => Self::Calm,
        }
    }

    /// Does it.
    pub(super) fn perform(&self, world: &World) -> Result<(), String> {
        match self {
            Self::PodComes {
                driver,
                qos,
                host_network,
            } => world.add_pod(|node, name| {
                let pod = node.pod(name).account(ACCOUNT.0, ACCOUNT.1);
                let pod = pod.driver(*driver).qos(*qos);
                match host_network {
                    true => pod.host_network().start(),
                    false => pod.start(),
                }
            }),
            Self::PodGoes(index) => world.remove_pod(*index)?,
            Self::SandboxRemade(index) => world.residents()[*index].remake(),
            Self::TokenRotates(index) => world.residents()[*index].rotate(),
            Self::Fails(fault) => {
                world.eks_auth.heal();
                world.eks_auth.fail(fault.clone());
            }
            Self::Quota(calls) => world.eks_auth.throttle_above(*calls),
            Self::Heals => world.eks_auth.heal(),
            Self::UpdateBegins => world.start_agent(),
            Self::UpdateEnds => world.end_agent()?,
            Self::OneOfTwoKilled(index) => world.kill_agent(*index),
            Self::Killed => {
                world.kill_agent(0);
                world.start_agent();
            }
            Self::Calm => world.wait_served()?,
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Any of the faults after which a pod is to come back.
fn fault(random: &mut fastrand::Rng) -> Fault {
    match random.u8(..11) {
        0 => Fault::Slow(Duration::from_millis(random.u64(50..3000))),
        1 => Fault::Throttle { retry_after: None },
        2 => Fault::Throttle {
            retry_after: Some(1),
        },
        3 => Fault::internal(),
        4 => Fault::unavailable(),
        5 => Fault::Hang,
        6 => Fault::Reset,
        7 => Fault::Truncated,
        8 => Fault::Nonsense,
        9 => Fault::Missing("/credentials/accessKeyId"),
        _ => [Fault::Expired, Fault::Lie][random.usize(..2)].clone(),
    }
}
