//! What stands behind the question mark of a URL.

use http::Uri;

/// The value of a parameter, if it is there and makes sense.
pub fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query()?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(held, _)| *held == name)?;
    percent_decode(value)
}

/// Text without its percent signs, or `None` where they make no sense.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        decoded.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_by_its_whole_name_and_decoded() {
        let uri = "/a?namespace=a%2Fb&name=%C3%A4&bad=%zz&empty="
            .parse()
            .unwrap();
        assert_eq!(parameter(&uri, "namespace").as_deref(), Some("a/b"));
        assert_eq!(parameter(&uri, "name").as_deref(), Some("\u{e4}"));
        assert_eq!(parameter(&uri, "empty").as_deref(), Some(""));
        assert_eq!(parameter(&uri, "bad"), None);
        assert_eq!(parameter(&uri, "space"), None);
        assert_eq!(parameter(&"/a".parse().unwrap(), "name"), None);
    }
}
