//! Plain values that more than one stage speaks of, and what each stage's vital parts are proven by. They know no stage.

mod claims;
mod credentials;
mod origin;
mod pod;
mod tasks;
mod token;
mod vitals;

pub use claims::{Claims, Unreadable};
pub use credentials::Credentials;
pub use origin::Origin;
pub use pod::{PodUid, PodUidError, ServiceAccount, ServiceAccountError};
pub use tasks::{restarted, watched};
pub use token::{Token, TokenDigest};
pub use vitals::{Beats, Vital, Vitals};
