//! The certificate authorities that the agent trusts.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

const LINE: usize = 64;

/// Mozilla's authorities as one PEM file. Their version is in `Cargo.lock`, so that an image does
/// not depend on the machine that it is made on.
pub(crate) fn bundle() -> Vec<u8> {
    let mut pem = String::new();
    for certificate in TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = BASE64_STANDARD.encode(certificate);
        while !rest.is_empty() {
            let next = rest.split_off(rest.len().min(LINE));
            pem.push_str(&rest);
            pem.push('\n');
            rest = next;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_authority_is_there_and_amazons_among_them() {
        let pem = String::from_utf8(bundle()).unwrap();
        assert!(pem.lines().all(|line| line.len() <= LINE));
        let mut found_amazon = false;
        let mut count = 0;
        for certificate in pem.split("-----BEGIN CERTIFICATE-----").skip(1) {
            let (body, _) = certificate.split_once("-----END").unwrap();
            let der = BASE64_STANDARD.decode(body.replace('\n', "")).unwrap();
            assert_eq!(der, *TLS_SERVER_ROOT_CERTS[count]);
            count += 1;
            let name = b"Amazon Root CA 1";
            found_amazon |= der.windows(name.len()).any(|part| part == name);
        }
        assert_eq!(count, TLS_SERVER_ROOT_CERTS.len());
        assert!(found_amazon);
    }
}
