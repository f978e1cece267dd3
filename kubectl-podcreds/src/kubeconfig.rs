//! Which cluster is meant: what a kubeconfig says about it, and about EKS.

use std::{env, ffi::OsString};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError as ReadError},
};

use crate::cli::Place;

/// Why no cluster can be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubeconfigError {
    /// It cannot be read, or does not fit together.
    #[error("kubeconfig: {0}")]
    Read(#[from] ReadError),
    /// What it says makes no client.
    #[error("kubeconfig: {0}")]
    Client(#[from] kube::Error),
}

/// A cluster that can be asked.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// The context's namespace.
    pub(crate) namespace: String,
    pub(crate) hints: Hints,
}

/// What a context that `aws eks update-kubeconfig` has made says about EKS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    pub(crate) cluster_name: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) profile: Option<String>,
}

/// Reads the kubeconfig as kubectl does.
///
/// # Errors
///
/// When it cannot be read, or names no such context.
pub(crate) async fn connect(place: &Place) -> Result<Connection, KubeconfigError> {
    let kubeconfig = match &place.kubeconfig {
        Some(file) => Kubeconfig::read_from(file)?,
        None => from_environment(env::var_os("KUBECONFIG"))?,
    };
    let hints = Hints::of(&kubeconfig, place.context.as_deref());
    let options = KubeConfigOptions {
        context: place.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    let namespace = config.default_namespace.clone();
    Ok(Connection {
        client: Client::try_from(config)?,
        namespace,
        hints,
    })
}

/// What `KUBECONFIG` names, or the file in the home directory. As with kubectl, some of several
/// files may be missing.
fn from_environment(variable: Option<OsString>) -> Result<Kubeconfig, ReadError> {
    let paths = variable.iter().flat_map(env::split_paths);
    let mut there = paths.filter(|path| path.exists());
    match there.next() {
        Some(first) => there.try_fold(Kubeconfig::read_from(first)?, |all, path| {
            all.merge(Kubeconfig::read_from(path)?)
        }),
        // It says which file is missing.
        None => Kubeconfig::read(),
    }
}

impl Hints {
    fn of(kubeconfig: &Kubeconfig, context: Option<&str>) -> Self {
        let wanted = context.or(kubeconfig.current_context.as_deref());
        let mut contexts = kubeconfig.contexts.iter();
        let named = contexts.find(|it| Some(it.name.as_str()) == wanted);
        let Some(context) = named.and_then(|it| it.context.as_ref()) else {
            return Self::default();
        };
        let mut hints = Self::of_arn(&context.cluster).unwrap_or_default();
        let mut users = kubeconfig.auth_infos.iter();
        let user = users.find(|it| Some(&it.name) == context.user.as_ref());
        let exec = user.and_then(|it| it.auth_info.as_ref()?.exec.as_ref());
        if let Some(exec) = exec {
            let args = exec.args.as_deref().unwrap_or_default();
            let argument = |names: &[&str]| {
                let at = args.iter().position(|arg| names.contains(&arg.as_str()))?;
                args.get(at + 1).cloned()
            };
            let variable = |name: &str| {
                let mut all = exec.env.iter().flatten();
                let it = all.find(|it| it.get("name").is_some_and(|own| own == name))?;
                it.get("value").cloned()
            };
            let Self {
                cluster_name,
                region,
                profile,
            } = &mut hints;
            *cluster_name =
                argument(&["--cluster-name", "--cluster-id", "-i"]).or(cluster_name.take());
            *region = argument(&["--region"]).or(region.take());
            *profile = argument(&["--profile"]).or_else(|| variable("AWS_PROFILE"));
        }
        hints
    }

    /// `aws eks update-kubeconfig` calls a cluster by its ARN.
    fn of_arn(arn: &str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':').skip(2);
        (parts.next()? == "eks").then_some(())?;
        let region = parts.next()?;
        let name = parts.nth(1)?.strip_prefix("cluster/")?;
        Some(Self {
            cluster_name: Some(name.to_owned()),
            region: Some(region.to_owned()),
            profile: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig() -> Kubeconfig {
        let text = r#"{
            "current-context": "other",
            "contexts": [
                { "name": "plain", "context": { "cluster": "c", "user": "u" } },
                { "name": "eks", "context": {
                    "cluster": "arn:aws:eks:eu-central-1:111122223333:cluster/prod", "user": "aws" } },
                { "name": "other", "context": { "cluster": "c", "user": "aws" } }
            ],
            "clusters": [], "users": [
                { "name": "aws", "user": { "exec": {
                    "command": "aws",
                    "args": ["--region", "us-east-1", "eks", "get-token", "--cluster-name", "dev"],
                    "env": [{ "name": "AWS_PROFILE", "value": "work" }] } } }
            ]
        }"#;
        Kubeconfig::from_yaml(text).unwrap()
    }

    #[test]
    fn a_context_for_eks_names_cluster_region_and_profile() {
        let hints = Hints::of(&kubeconfig(), Some("other"));
        assert_eq!(hints.cluster_name.as_deref(), Some("dev"));
        assert_eq!(hints.region.as_deref(), Some("us-east-1"));
        assert_eq!(hints.profile.as_deref(), Some("work"));
    }

    #[test]
    fn an_arn_names_cluster_and_region() {
        let hints = Hints::of_arn("arn:aws:eks:eu-central-1:111122223333:cluster/prod").unwrap();
        assert_eq!(hints.cluster_name.as_deref(), Some("prod"));
        assert_eq!(hints.region.as_deref(), Some("eu-central-1"));
        assert_eq!(Hints::of_arn("kubernetes"), None);
        assert_eq!(Hints::of_arn("arn:aws:iam::1:role/x"), None);
    }

    #[test]
    fn the_current_context_counts_where_none_is_named() {
        let current = Hints::of(&kubeconfig(), None);
        assert_eq!(current, Hints::of(&kubeconfig(), Some("other")));
        assert_ne!(current, Hints::default());
        assert_eq!(Hints::of(&kubeconfig(), Some("plain")), Hints::default());
        assert_eq!(Hints::of(&kubeconfig(), Some("missing")), Hints::default());
    }
}
