//! Answers over HTTP/1, of which the whole is there.

use httparse::{EMPTY_HEADER, Response, Status};

/// More than any server sends that is asked here.
const MAX_HEADERS: usize = 64;

/// The status and the body of an answer. `None` if it is none; without a body if its head goes on.
pub fn parse_answer(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut response = Response::new(&mut headers);
    let body = match response.parse(answer).ok()? {
        Status::Complete(head) => &answer[head..],
        Status::Partial => &[],
    };
    Some((response.code?, body))
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
        let latin = b"HTTP/1.1 200 OK\r\nServer: caf\xe9\r\n\r\nx";
        assert_eq!(parse_answer(latin), Some((200, &b"x"[..])));
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
