//! What is a request for credentials: each form that docs/compatibility.md lists, and what the docs
//! say of it.

use super::*;

const DOCS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/compatibility.md"
));
const SECTION: &str = "## Forms of a request";

/// One row of the table.
struct Form {
    /// What it is, as the table has it.
    name: String,
    request: String,
    /// What AWS's agent answers. 307 leads to the credentials.
    aws: u16,
    podcreds: u16,
}

const HOST: &str = "Host: 169.254.170.23\r\n";
const TOKEN: &str = "Authorization: good.x.y\r\n";

fn form(name: impl Into<String>, request: impl Into<String>, aws: u16, podcreds: u16) -> Form {
    Form {
        name: name.into(),
        request: request.into(),
        aws,
        podcreds,
    }
}

/// A request with these headers in place of the usual ones.
fn bare(line: &str, headers: &str) -> String {
    format!("{line}\r\n{headers}\r\n")
}

fn get_with(headers: &str) -> String {
    bare(
        "GET /v1/credentials HTTP/1.1",
        &[HOST, TOKEN, headers].concat(),
    )
}

fn hosts() -> Vec<Form> {
    let rows = [
        ("169.254.170.23", 200, 200),
        ("169.254.170.23:80", 200, 200),
        ("169.254.170.23:", 200, 200),
        ("169.254.170.23:99999", 200, 200),
        ("169.254.170.23:80:80", 403, 403),
        ("[169.254.170.23]", 200, 200),
        ("[fd00:ec2::23]", 200, 200),
        ("[fd00:ec2::23]:80", 200, 200),
        ("fd00:ec2::23", 200, 200),
        ("fd00:ec2::23:80", 403, 200),
        ("[fd00:ec2::23%25eth0]", 403, 200),
        ("127.0.0.1", 403, 200),
        ("localhost", 403, 403),
        ("evil.example", 403, 403),
        ("169.254.170.23.evil.example", 403, 403),
        ("user@169.254.170.23", 400, 403),
    ];
    let row = |(host, aws, podcreds)| {
        let headers = format!("Host: {host}\r\n{TOKEN}");
        let request = bare("GET /v1/credentials HTTP/1.1", &headers);
        form(format!("`Host: {host}`"), request, aws, podcreds)
    };
    let line = "GET /v1/credentials HTTP/1.1";
    let old = "GET /v1/credentials HTTP/1.0";
    let further = [
        form(
            "`Host` empty",
            bare(line, &["Host:\r\n", TOKEN].concat()),
            403,
            403,
        ),
        form("no `Host`", bare(line, TOKEN), 400, 403),
        form("no `Host`, HTTP/1.0", bare(old, TOKEN), 403, 200),
        form("two `Host`", get_with(HOST), 400, 403),
    ];
    rows.map(row).into_iter().chain(further).collect()
}

fn targets() -> Vec<Form> {
    let rows = [
        ("/v1/credentials?x=y", 200, 200),
        ("//v1/credentials", 307, 200),
        ("/v1//credentials", 307, 200),
        ("/v1/./credentials", 307, 200),
        ("/x/../v1/credentials", 307, 200),
        ("/v1/%63redentials", 200, 200),
        ("/v1%2Fcredentials", 404, 404),
        ("/v1/credentials/", 404, 404),
        ("/V1/credentials", 404, 404),
        ("/", 404, 404),
        ("http://169.254.170.23/v1/credentials", 200, 200),
        ("http://[fd00:ec2::23]:80/v1/credentials", 200, 200),
        ("https://169.254.170.23/v1/credentials", 200, 200),
        ("http://fd00:ec2::23/v1/credentials", 200, 400),
        ("http:///v1/credentials", 200, 400),
        ("http://evil.example/v1/credentials", 403, 403),
        ("v1/credentials", 400, 400),
    ];
    let row = |(target, aws, podcreds)| {
        let line = format!("GET {target} HTTP/1.1");
        let request = bare(&line, &[HOST, TOKEN].concat());
        form(format!("`GET {target}`"), request, aws, podcreds)
    };
    let evil = ["Host: evil.example\r\n", TOKEN].concat();
    let absolute = form(
        "`GET http://169.254.170.23/v1/credentials`, `Host: evil.example`",
        bare("GET http://169.254.170.23/v1/credentials HTTP/1.1", &evil),
        200,
        200,
    );
    rows.map(row).into_iter().chain([absolute]).collect()
}

fn lines() -> Vec<Form> {
    let methods = [
        "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO",
    ];
    let with_method = |method: &str, podcreds| {
        let line = format!("{method} /v1/credentials HTTP/1.1");
        let request = bare(&line, &[HOST, TOKEN].concat());
        form(format!("`{method}`"), request, 200, podcreds)
    };
    let with_line = |name: &str, line: &str, aws, podcreds| {
        form(name, bare(line, &[HOST, TOKEN].concat()), aws, podcreds)
    };
    let further = [
        with_method("CONNECT", 405),
        with_line("HTTP/1.0", "GET /v1/credentials HTTP/1.0", 200, 200),
        with_line("HTTP/1.2", "GET /v1/credentials HTTP/1.2", 200, 400),
        with_line("HTTP/2.0", "GET /v1/credentials HTTP/2.0", 505, 400),
        with_line("two blanks", "GET  /v1/credentials HTTP/1.1", 400, 400),
        with_line(
            "an empty line before it",
            "\r\nGET /v1/credentials HTTP/1.1",
            400,
            200,
        ),
        form(
            "lines end in LF alone",
            get_with("").replace('\r', ""),
            200,
            200,
        ),
    ];
    let methods = methods.map(|method| with_method(method, 200));
    methods.into_iter().chain(further).collect()
}

fn tokens() -> Vec<Form> {
    let rows = [
        ("Authorization:good.x.y", 200, 200),
        ("authorization: \t good.x.y \t", 200, 200),
        ("Authorization : good.x.y", 400, 400),
        ("Authorization: Bearer malformed.x.y", 400, 400),
        ("Authorization:", 400, 400),
    ];
    let names = [
        "`Authorization:` without a blank",
        "`authorization` in small letters, blanks around the token",
        "a blank before the colon",
        "`Bearer` before the token",
        "`Authorization` empty",
    ];
    let line = "GET /v1/credentials HTTP/1.1";
    let row = |(name, (header, aws, podcreds)): (&str, (&str, u16, u16))| {
        let headers = format!("{HOST}{header}\r\n");
        form(name, bare(line, &headers), aws, podcreds)
    };
    let bad = "Authorization: malformed.x.y\r\n";
    let further = [
        form(
            "two `Authorization`, the first is good",
            get_with(bad),
            200,
            200,
        ),
        form(
            "two `Authorization`, the second is good",
            bare(line, &[HOST, bad, TOKEN].concat()),
            400,
            400,
        ),
        form("no `Authorization`", bare(line, HOST), 400, 400),
    ];
    names
        .into_iter()
        .zip(rows)
        .map(row)
        .chain(further)
        .collect()
}

fn headers() -> Vec<Form> {
    let many = |count| {
        (0..count)
            .map(|n| format!("X-{n}: y\r\n"))
            .collect::<String>()
    };
    let long = |length| format!("X: {}\r\n", "y".repeat(length));
    let rows: [(&str, &str, u16, u16); 12] = [
        ("100 headers", &many(98), 200, 200),
        ("101 headers", &many(99), 200, 431),
        ("a head of 15 KB", &long(15_000), 200, 200),
        ("a head of 17 KB", &long(17_000), 200, 431),
        ("a head of 1.1 MB", &long(1_100_000), 431, 431),
        ("a folded header", "X: a\r\n b\r\n", 200, 400),
        ("a header without a value", "X:\r\n", 200, 200),
        ("a header without a colon", "nonsense\r\n", 400, 400),
        (
            "a header with other than ASCII",
            "X: caf\u{e9}\r\n",
            200,
            200,
        ),
        (
            "a header with a control character",
            "X: a\x01b\r\n",
            400,
            400,
        ),
        (
            "`Via`, `X-Forwarded-For`, `Forwarded`",
            "Via: 1.1 squid\r\nX-Forwarded-For: 10.0.0.7\r\nForwarded: for=10.0.0.7\r\n",
            200,
            200,
        ),
        (
            "`Upgrade: h2c`",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            200,
            200,
        ),
    ];
    let row = |(name, headers, aws, podcreds)| form(name, get_with(headers), aws, podcreds);
    rows.map(row).into()
}

fn bodies() -> Vec<Form> {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let rows = [
        (
            "`Content-Length`, and a body",
            "Content-Length: 5",
            "hello",
            200,
            200,
        ),
        (
            "`Content-Length` of 100 MB",
            "Content-Length: 100000000",
            "hello",
            200,
            200,
        ),
        (
            "two equal `Content-Length`",
            "Content-Length: 5\r\nContent-Length: 5",
            "hello",
            200,
            200,
        ),
        (
            "two unlike `Content-Length`",
            "Content-Length: 5\r\nContent-Length: 6",
            "hello",
            400,
            400,
        ),
        ("`Content-Length: -1`", "Content-Length: -1", "", 400, 400),
        (
            "`Transfer-Encoding: chunked`",
            "Transfer-Encoding: chunked",
            chunks,
            200,
            200,
        ),
        (
            "`Transfer-Encoding: chunked` and `Content-Length`",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            chunks,
            200,
            200,
        ),
        (
            "`Transfer-Encoding: gzip`",
            "Transfer-Encoding: gzip",
            "",
            501,
            400,
        ),
        (
            "`Expect: 100-continue`",
            "Expect: 100-continue\r\nContent-Length: 5",
            "",
            200,
            200,
        ),
        ("`Expect: something`", "Expect: something", "", 417, 200),
    ];
    let row = |(name, header, body, aws, podcreds)| {
        let request = get_with(&format!("{header}\r\n")) + body;
        form(name, request, aws, podcreds)
    };
    rows.map(row).into()
}

fn all() -> Vec<Form> {
    [hosts(), targets(), lines(), tokens(), headers(), bodies()]
        .into_iter()
        .flatten()
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_form_gets_what_the_docs_say() {
    let fixture = Fixture::new(Config::default());
    // What is asked for the first time goes to EKS Auth.
    fixture.connect().ask(get("good.x.y")).await;
    let mut wrong = Vec::new();
    for form in all() {
        let status = status(&fixture, &form.request).await;
        if status != form.podcreds {
            wrong.push(format!("{}: {status}", form.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each form has its row, and each row its form; what AWS's agent serves and this one does not has
/// its reason.
#[test]
fn the_docs_have_each_form_and_no_other() {
    let section = DOCS.split_once(SECTION).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    // The first is the table's head.
    let rows: Vec<Vec<_>> = rows.skip(1).map(|row| row.split(" | ").collect()).collect();
    let forms = all();
    for (row, form) in rows.iter().zip(&forms) {
        let [name, aws, podcreds, why] = row[..] else {
            panic!("four columns: {row:?}");
        };
        assert_eq!(name, format!("| {}", form.name));
        assert_eq!(aws, form.aws.to_string(), "{name}");
        assert_eq!(podcreds, form.podcreds.to_string(), "{name}");
        let is_stricter = form.aws < 400 && form.podcreds >= 400;
        let has_reason = why.trim_end_matches('|').trim().len() > 1;
        assert!(has_reason || !is_stricter, "no reason for {name}");
    }
    assert_eq!(rows.len(), forms.len());
}

async fn status(fixture: &Fixture, request: &str) -> u16 {
    let client = fixture.connect();
    // The server may have closed the connection before it has read everything.
    let (mut theirs, mut ours) = tokio::io::split(client.0);
    let sending = async { ours.write_all(request.as_bytes()).await };
    let mut line = Vec::new();
    let hearing = async {
        while !line.ends_with(b"\r\n") {
            line.push(theirs.read_u8().await.expect("an answer"));
        }
    };
    let both = async { tokio::join!(sending, hearing) };
    let (_sent, ()) = timeout(LATER, both).await.expect("an answer");
    let line = String::from_utf8(line).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}
