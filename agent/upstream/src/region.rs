//! The region that EKS Auth is called in.

use std::env;

use aws_config::{
    BehaviorVersion, SdkConfig, imds::region::ImdsRegionProvider,
    meta::region::RegionProviderChain, profile::region::ProfileFileRegionProvider,
    provider_config::ProviderConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::region::Region;

use super::SetupError;

/// The environment's names for it, in the order in which they count.
const VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// The longest label of a host's name, which a region is a part of.
const LONGEST: usize = 63;

/// Looks where every AWS SDK looks: the environment, the profile, IMDS.
///
/// This SDK takes an empty variable for a region without a name; others, and AWS's agent, take it
/// for none.
pub(super) fn provider(http: SharedHttpClient) -> RegionProviderChain {
    let config = ProviderConfig::without_region()
        .with_behavior_version(Some(BehaviorVersion::latest()))
        .with_http_client(http);
    let profile = ProfileFileRegionProvider::builder().configure(&config);
    let imds = ImdsRegionProvider::builder().configure(&config);
    RegionProviderChain::first_try(named(|name| env::var(name).ok()))
        .or_else(profile.build())
        .or_else(imds.build())
}

fn named(variable: impl Fn(&str) -> Option<String>) -> Option<Region> {
    let mut values = VARIABLES.into_iter().filter_map(variable);
    values.find(|value| !value.is_empty()).map(Region::new)
}

/// Sees that there is a region, and that an endpoint can have its name.
///
/// # Errors
///
/// [`SetupError::NoRegion`] or [`SetupError::Region`].
pub(super) fn check(environment: &SdkConfig) -> Result<(), SetupError> {
    let region = environment.region().ok_or(SetupError::NoRegion)?.as_ref();
    if is_label(region) {
        Ok(())
    } else {
        Err(SetupError::Region(region.to_owned()))
    }
}

fn is_label(region: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=LONGEST).contains(&region.len())
        && region.bytes().all(is_inner)
        && !region.starts_with('-')
        && !region.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_names_no_region() {
        let region = |first: Option<&str>, second: Option<&str>| {
            named(|name| {
                let value = if name == VARIABLES[0] { first } else { second };
                value.map(str::to_owned)
            })
        };
        let known = Some(Region::new("eu-west-1"));
        assert_eq!(region(Some("eu-west-1"), Some("us-east-1")), known);
        assert_eq!(region(None, Some("eu-west-1")), known);
        assert_eq!(region(Some(""), Some("eu-west-1")), known);
        assert_eq!(region(Some(""), Some("")), None);
        assert_eq!(region(None, None), None);
    }

    #[test]
    fn a_region_that_no_endpoint_can_have_is_refused() {
        let check = |region: Option<&str>| {
            let region = region.map(|it| Region::new(it.to_owned()));
            check(&SdkConfig::builder().region(region).build())
        };
        for known in ["eu-central-1", "us-gov-west-1", "local", "x"] {
            assert!(check(Some(known)).is_ok(), "{known}");
        }
        let long = "a".repeat(LONGEST + 1);
        for odd in [
            "",
            "eu-west-1 ",
            "eu_west_1",
            "eu.west",
            "-a",
            "a-",
            "ä",
            &long,
        ] {
            let error = check(Some(odd)).unwrap_err();
            assert!(error.to_string().contains("AWS_REGION"), "{odd}: {error}");
            assert!(matches!(error, SetupError::Region(_)), "{odd}");
        }
        assert!(matches!(check(None), Err(SetupError::NoRegion)));
    }
}
