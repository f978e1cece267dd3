//! Answers over HTTP/1, of which the whole is there.

/// The status and the body of an answer. `None` if it is none.
pub fn parse_answer(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.map_or(answer.len(), |at| at + 4));
    let head = str::from_utf8(head).ok()?.strip_prefix("HTTP/1.")?;
    let status = head.split_ascii_whitespace().nth(1)?;
    Some((status.parse().ok()?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_perhaps_a_body() {
        let body: &[u8] = b"{}\r\n\r\n";
        let answer = b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{}\r\n\r\n";
        assert_eq!(parse_answer(answer), Some((404, body)));
        assert_eq!(parse_answer(b"HTTP/1.1 200"), Some((200, &b""[..])));
        for other in [
            "",
            "SSH-2.0-x",
            "HTTP/1.1",
            "HTTP/1.1 OK",
            "HTTP/1.1 70000 x",
        ] {
            assert_eq!(parse_answer(other.as_bytes()), None, "{other}");
        }
    }
}
