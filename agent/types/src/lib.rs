//! Plain values that more than one stage uses. They know no stage.
//!
//! 1. Who calls: [`Evidence`] and [`Route`] of a request, its [`Token`] and the token's [`Claims`].
//! 2. What follows: the [`Claimant`] that credentials are for, or the [`Refusal`].
//! 3. What EKS Auth says: [`Credentials`], or an [`EksRefusal`].
//! 4. The node's pods: [`PodUid`], one record for each in [`PodRecords`], and [`ReachedListeners`].
//! 5. Who was refused last, and why: [`RefusedCallers`].
//! 6. What SDKs in pods go by: [`sdk`].
//! 7. The parts that the process cannot do without: [`Vitals`], and tasks that are [`watched`].
//! 8. [`SharedMap`], in which stages keep what several threads ask for.

mod caller;
mod claims;
mod credential_error;
mod credentials;
mod eks_refusal;
#[cfg(test)]
mod fuzz;
mod origin;
mod pod;
mod pods;
mod reached;
mod refusal;
mod refused_callers;
pub mod sdk;
mod shared_map;
mod tasks;
mod token;
mod vitals;

pub use caller::{CallerId, Claimant, Evidence, Route};
pub use claims::{Claims, Unreadable};
pub use credential_error::CredentialError;
pub use credentials::Credentials;
pub use eks_refusal::{EksRefusal, RefusalKind};
pub use origin::Origin;
pub use pod::{PodUid, PodUidError, ServiceAccount, ServiceAccountError};
pub use pods::{PodNames, PodRecord, PodRecords};
pub use reached::ReachedListeners;
pub use refusal::{Refusal, Undecided, Words};
pub use refused_callers::{RefusedCaller, RefusedCallers};
pub use shared_map::SharedMap;
pub use tasks::{restarted, watched};
pub use token::{CUT_TOKEN, Token, TokenDigest, without_tokens};
pub use vitals::{Beats, Vital, Vitals};
