//! AWS, as the node sees it.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};

use super::{api::Api, authority::ApiServer, layout::Layout, network};
use crate::{aws::NodeCredentials, eks_auth, imds::Imds};

/// Serves EKS Auth and the instance's metadata, for ever.
///
/// # Errors
///
/// When an address cannot be had.
pub fn serve() -> Result<()> {
    let layout = Layout::of_checkout()?;
    let address = network::EKS_AUTH.parse().context("EKS Auth's address")?;
    let metadata = format!("{}:80", network::METADATA)
        .parse()
        .context("the metadata's address")?;
    let cluster = Arc::new(ApiServer::new(Api::of(&layout)));
    let _eks_auth = eks_auth::serve(address, cluster);
    let _metadata = Imds::serve(metadata, NodeCredentials::default());
    loop {
        thread::sleep(Duration::MAX);
    }
}
