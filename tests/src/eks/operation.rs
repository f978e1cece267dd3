//! Which operation a request is.

use http::{Method, Request};

/// The operations that the stand-in has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation<'a> {
    DescribeCluster,
    List,
    Create,
    Describe(&'a str),
    Update(&'a str),
    Delete(&'a str),
}

impl<'a> Operation<'a> {
    /// The cluster and the operation that a request names.
    pub(super) fn of<B>(request: &'a Request<B>) -> Option<(&'a str, Self)> {
        let path = request.uri().path().strip_prefix("/clusters/")?;
        let mut parts = path.split('/');
        let cluster = parts.next()?;
        let rest = [parts.next(), parts.next(), parts.next()];
        let operation = match (request.method(), rest) {
            (&Method::GET, [None, ..]) => Self::DescribeCluster,
            (method, [Some("pod-identity-associations"), id, None]) => match (method, id) {
                (&Method::GET, None) => Self::List,
                (&Method::POST, None) => Self::Create,
                (&Method::GET, Some(id)) => Self::Describe(id),
                (&Method::POST, Some(id)) => Self::Update(id),
                (&Method::DELETE, Some(id)) => Self::Delete(id),
                _ => return None,
            },
            _ => return None,
        };
        Some((cluster, operation))
    }

    /// Its name, as SDKs and IAM's actions have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DescribeCluster => "DescribeCluster",
            Self::List => "ListPodIdentityAssociations",
            Self::Create => "CreatePodIdentityAssociation",
            Self::Describe(_) => "DescribePodIdentityAssociation",
            Self::Update(_) => "UpdatePodIdentityAssociation",
            Self::Delete(_) => "DeletePodIdentityAssociation",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_paths_and_methods_are_operations() {
        let of = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(());
            let request = request.unwrap();
            Operation::of(&request)
                .map(|(cluster, operation)| (cluster.to_owned(), operation.name()))
        };
        let found = |name| Some(("a".to_owned(), name));
        assert_eq!(of("GET", "/clusters/a"), found("DescribeCluster"));
        let list = "/clusters/a/pod-identity-associations?maxResults=1";
        assert_eq!(of("GET", list), found("ListPodIdentityAssociations"));
        let one = "/clusters/a/pod-identity-associations/a-1";
        assert_eq!(of("POST", one), found("UpdatePodIdentityAssociation"));
        assert_eq!(of("PUT", one), None);
        assert_eq!(of("GET", &format!("{one}/more")), None);
        assert_eq!(of("GET", "/clusters/a/nodegroups"), None);
        assert_eq!(of("POST", "/clusters/a"), None);
        assert_eq!(of("GET", "/"), None);
    }
}
