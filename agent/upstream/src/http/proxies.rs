//! The proxies that the environment names.

use std::{env, sync::Arc};

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::super::SetupError;

/// What names a proxy.
const VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];
/// How a proxy can be spoken to; without a scheme it is `http`.
const SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

/// Which requests go through which proxy. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Proxies(Arc<Matcher>);

impl Proxies {
    /// Reads the environment, as curl does.
    ///
    /// # Errors
    ///
    /// When a variable names no proxy that can be used: ignoring it would send requests past the
    /// proxy.
    pub(super) fn from_environment() -> Result<Self, SetupError> {
        for variable in VARIABLES {
            let value = env::var_os(variable).unwrap_or_default();
            if let Some(reason) = value.to_str().map_or(Some("is not text"), trouble) {
                return Err(SetupError::Variable {
                    name: variable,
                    reason,
                });
            }
        }
        Ok(Self(Arc::new(Matcher::from_env())))
    }

    #[cfg(test)]
    pub(super) fn all(proxy: &str) -> Self {
        Self(Arc::new(Matcher::builder().all(proxy.to_owned()).build()))
    }

    /// The proxy for this URL.
    pub(super) fn intercept(&self, uri: &Uri) -> Option<Intercept> {
        self.0.intercept(uri)
    }
}

/// Why a value names no proxy, unless it is empty.
fn trouble(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        return None;
    }
    let Ok(uri) = value.parse::<Uri>() else {
        return Some("is not a proxy's URL");
    };
    if uri.host().is_none_or(str::is_empty) {
        return Some("names no host");
    }
    let is_known = uri.scheme_str().is_none_or(|it| SCHEMES.contains(&it));
    (!is_known).then_some("has a scheme other than http, https, socks5 and socks5h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_names_no_proxy_is_refused() {
        for good in [
            "",
            "proxy:3128",
            "10.0.0.1:3128",
            "http://proxy:3128",
            "http://user:p%40ss@proxy.example:3128/",
            "https://proxy",
            "socks5://proxy:1080",
            "socks5h://user:pass@[::1]:1080",
        ] {
            assert_eq!(trouble(good), None, "{good}");
        }
        for bad in [
            "socks4://proxy",
            "ftp://proxy",
            "http://",
            "/etc/proxy",
            "a proxy",
        ] {
            assert!(trouble(bad).is_some(), "{bad}");
        }
    }
}
