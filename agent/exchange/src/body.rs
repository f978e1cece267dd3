//! The body of a 200, made once and sent as often as it is asked for.

use std::io;

use bytes::Bytes;
use podcreds_types::Credentials;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

/// What the SDKs' container credential providers read. All of them take a date without a fraction.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialsBody<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    account_id: &'a str,
    expiration: String,
}

/// Counts the bytes that are written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The JSON that a pod gets for `credentials`, in a buffer that is wiped when its last clone goes.
///
/// `None` if the expiration is not a date that can be written, which no real answer has.
pub(crate) fn body(credentials: &Credentials) -> Option<Bytes> {
    let seconds = credentials
        .expiration
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?
        .as_secs();
    let expiration = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    let body = CredentialsBody {
        access_key_id: &credentials.access_key_id,
        secret_access_key: &credentials.secret_access_key,
        token: &credentials.session_token,
        account_id: &credentials.account_id,
        expiration: expiration.format(&Rfc3339).ok()?,
    };
    let mut length = Length(0);
    serde_json::to_writer(&mut length, &body).ok()?;
    // Large enough from the start: a buffer that grows leaves copies behind. And no larger, since
    // it is kept for hours.
    let mut buffer = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *buffer, &body).ok()?;
    Some(Bytes::from_owner(buffer))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_body_is_what_sdks_accept() {
        let credentials = Credentials {
            access_key_id: "ASIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: Zeroizing::new("wJalr/+=".to_owned()),
            session_token: Zeroizing::new("session//token==".to_owned()),
            account_id: "012345678901".to_owned(),
            role: "arn:aws:sts::012345678901:assumed-role/app".to_owned(),
            expiration: UNIX_EPOCH + Duration::from_millis(1_800_000_000_999),
        };
        assert_eq!(
            body(&credentials).unwrap(),
            concat!(
                r#"{"AccessKeyId":"ASIAIOSFODNN7EXAMPLE","SecretAccessKey":"wJalr/+=","#,
                r#""Token":"session//token==","AccountId":"012345678901","#,
                r#""Expiration":"2027-01-15T08:00:00Z"}"#
            )
        );
    }
}
