//! The whole story, from a bucket in S3 to a request that IAM denies: unmodified applications in
//! pods, whose roles are given, changed and taken away with the AWS CLI.
//!
//! The kernel, the pods' namespaces and cgroups, the agent, boto3 and the AWS CLI are real. moto's
//! server stands for IAM, STS and S3, and stand-ins of this crate for EKS and EKS Auth.

mod play;
mod scene;

pub use play::{Step, play};

/// Shows one line of what happens.
pub type Show<'a> = &'a dyn Fn(&str);
