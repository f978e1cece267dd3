//! The certificate authorities by which servers are trusted.

use std::{
    env,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_config::profile;
use aws_types::os_shim_internal::{Env, Fs};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};

use super::super::SetupError;

/// What names certificates to trust for AWS, in all of its SDKs.
const VARIABLE: &str = "AWS_CA_BUNDLE";
/// The same in the shared configuration file.
const SETTING: &str = "ca_bundle";
/// A bundle of all that is trusted anywhere has some 250 KB.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Certificates of authorities.
pub(super) type Certificates = Vec<CertificateDer<'static>>;

/// What is wrong with certificates to trust.
#[derive(Debug, thiserror::Error)]
pub enum CertificateProblem {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is larger than 4 MiB.
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// What is in the file is no PEM.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// The file holds no certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// None of the certificates is an authority's that can be used.
    #[error("no certificate in it can be used")]
    Unusable,
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Certificates that cannot be used, and where they are.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Those in a file.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CertificateProblem,
    },
    /// Those of the system.
    #[error("the system's certificates: {0}")]
    System(#[source] CertificateProblem),
}

impl CertificateError {
    pub(super) fn file(path: &Path, source: CertificateProblem) -> Self {
        let path = path.to_owned();
        Self::File { path, source }
    }
}

/// What `AWS_CA_BUNDLE`, or else `ca_bundle` in the profile, names to be trusted for AWS.
///
/// # Errors
///
/// When that cannot be read, or holds no certificate.
pub(super) async fn aws_bundle() -> Result<Option<Certificates>, SetupError> {
    let variable = env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let (name, path) = match variable {
        Some(path) => (VARIABLE, PathBuf::from(path)),
        None => match profile_setting().await {
            Some(path) => (SETTING, path),
            None => return Ok(None),
        },
    };
    let bundle = read(&path).and_then(|bundle| client(&bundle).map(|_| bundle));
    let bundle = bundle.map_err(|problem| SetupError::Bundle {
        name,
        source: CertificateError::file(&path, problem),
    })?;
    Ok(Some(bundle))
}

async fn profile_setting() -> Option<PathBuf> {
    // What is wrong with the files, the SDK says as soon as it needs them.
    let profiles = profile::load(&Fs::real(), &Env::real(), &Default::default(), None).await;
    let profiles = profiles.ok()?;
    let path = profiles.get(SETTING).filter(|path| !path.is_empty())?;
    Some(PathBuf::from(path))
}

/// The certificates in a PEM file, of which there must be one.
///
/// # Errors
///
/// A [`CertificateProblem`] without the file's name.
pub(super) fn read(path: &Path) -> Result<Certificates, CertificateProblem> {
    let mut pem = Vec::new();
    let read = File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut pem)?;
    if read as u64 > MAX_BYTES {
        return Err(CertificateProblem::TooLarge);
    }
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Certificates, _>>()?;
    match found.is_empty() {
        true => Err(CertificateProblem::Empty),
        false => Ok(found),
    }
}

/// The system's authorities.
///
/// # Errors
///
/// When there is none.
pub(super) fn system() -> Result<Certificates, SetupError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let reasons = found.errors.iter().map(|error| format!(" ({error})"));
        return Err(SetupError::NoAuthorities(reasons.collect()));
    }
    Ok(found.certs)
}

/// Trusts these authorities, as far as they are of any use.
///
/// # Errors
///
/// When none is.
pub(super) fn client(
    authorities: &[CertificateDer<'static>],
) -> Result<Arc<ClientConfig>, CertificateProblem> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().cloned());
    if roots.is_empty() {
        return Err(CertificateProblem::Unusable);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
