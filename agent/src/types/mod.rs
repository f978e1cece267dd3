//! Plain values that more than one stage speaks of. They know no stage.

mod claims;
mod credentials;
mod origin;
mod pod;
mod token;
mod vitals;

pub use claims::{Claims, Unreadable};
pub use credentials::Credentials;
pub use origin::Origin;
pub use pod::{PodUid, PodUidError, ServiceAccount, ServiceAccountError};
pub use token::{Token, TokenDigest};
pub use vitals::{Beats, Vital, Vitals};
