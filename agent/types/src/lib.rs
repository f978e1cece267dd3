//! Plain values that more than one stage speaks of, and what each stage's vital parts are proven
//! by. They know no stage.

mod caller;
mod claims;
mod credential_error;
mod credentials;
mod eks_refusal;
mod origin;
mod pod;
mod pods;
mod refusal;
mod tasks;
mod token;
mod vitals;

pub use caller::{Claimant, Evidence, Route};
pub use claims::{Claims, Unreadable};
pub use credential_error::CredentialError;
pub use credentials::Credentials;
pub use eks_refusal::{EksRefusal, RefusalKind};
pub use origin::Origin;
pub use pod::{PodUid, PodUidError, ServiceAccount, ServiceAccountError};
pub use pods::{PodNames, PodRecord, Pods};
pub use refusal::{Refusal, Undecided, Words};
pub use tasks::{restarted, watched};
pub use token::{Token, TokenDigest};
pub use vitals::{Beats, Vital, Vitals};
