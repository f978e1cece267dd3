//! What is asked for.

use std::{env, fs, path::PathBuf};

use anyhow::Context;

/// How a request is put together.
#[derive(clap::Args, Clone)]
pub(crate) struct RequestOptions {
    /// The file with the token.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The token itself.
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,
    /// Sends no token.
    #[arg(long, conflicts_with_all = ["token", "token_file"])]
    no_token: bool,
    /// The request's method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// The request's target.
    #[arg(long, default_value = "/v1/credentials")]
    path: String,
    /// The Host header.
    #[arg(long, default_value = "169.254.170.23")]
    host: String,
    /// Further headers, as `Name: value`.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Speaks HTTP/1.0.
    #[arg(long)]
    pub(crate) http10: bool,
    /// Sends this file in place of a request.
    #[arg(long)]
    raw_file: Option<PathBuf>,
}

impl RequestOptions {
    /// The bytes of the request. `last` asks the server to close the connection after it.
    pub(crate) fn bytes(&self, last: bool) -> anyhow::Result<Vec<u8>> {
        if let Some(file) = &self.raw_file {
            return fs::read(file).with_context(|| format!("reading {}", file.display()));
        }
        let Self {
            method, path, host, ..
        } = self;
        let version = if self.http10 { "1.0" } else { "1.1" };
        let mut head = format!("{method} {path} HTTP/{version}\r\nHost: {host}\r\n");
        if let Some(token) = self.token()? {
            head.push_str(&format!("Authorization: {token}\r\n"));
        }
        for header in &self.headers {
            head.push_str(&format!("{header}\r\n"));
        }
        match (self.http10, last) {
            (true, false) => head.push_str("Connection: keep-alive\r\n"),
            (false, true) => head.push_str("Connection: close\r\n"),
            _ => {}
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }

    /// Adds a header, as `Name: value`.
    pub(crate) fn add_header(&mut self, header: String) {
        self.headers.push(header);
    }

    /// The same with another token.
    pub(crate) fn with_token(&self, token: String) -> Self {
        Self {
            token: Some(token),
            token_file: None,
            no_token: false,
            ..self.clone()
        }
    }

    /// The token that was given, else the one that EKS' webhook points to.
    pub(crate) fn token(&self) -> anyhow::Result<Option<String>> {
        if self.no_token {
            return Ok(None);
        }
        if let Some(token) = &self.token {
            return Ok(Some(token.clone()));
        }
        let named = self.token_file.clone();
        let from_env = || env::var_os("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from);
        let file = named
            .or_else(from_env)
            .context("no --token, --token-file or --no-token")?;
        let token = fs::read_to_string(&file);
        token
            .map(Some)
            .with_context(|| format!("reading {}", file.display()))
    }
}
