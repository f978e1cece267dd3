//! Why a request or a connection gets no credentials: all reasons, in one table.
//!
//! "A new refusal" in `docs/architecture.md` says what else a new reason needs. Its metric is there
//! from the start.

use http::StatusCode;

use super::Unreadable;

/// How a refusal is told. It is written down once, as it is sent, so that it costs no more than an
/// answer from memory.
#[derive(Debug)]
pub struct Words {
    /// The status of the answer.
    pub status: StatusCode,
    /// An object with a code and a message.
    pub json: &'static str,
    /// The message, in one line.
    pub text: &'static str,
}

impl Words {
    /// Whether the client may do better the next time it asks. 503 is the one status on which every
    /// SDK asks again.
    pub fn is_worth_a_retry(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Why it is not known yet whether a pod is a delegate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// Its service account is being looked up.
    LookUp,
    /// Kubelet may not have mounted its token yet.
    NotMounted,
    /// The cluster's keys, or the one that its token names, cannot be had.
    NoKeys,
    /// Kubelet's folder of the pod is not there or cannot be read.
    NoFolder,
    /// The agent may not read the pod's token.
    NotPermitted,
}

/// Words for a status, a code and a message. The Go SDK reads the lower-case names, the JS SDK the
/// others, and botocore shows all of it. Neither a code nor a message may have characters that JSON
/// would escape.
macro_rules! words {
    ($status:ident, $code:literal, $($message:literal),+ $(,)?) => {
        Some(const {
            &Words {
                status: StatusCode::$status,
                json: concat!(
                    r#"{"code":""#, $code, r#"","message":""#, $($message,)+
                    r#"","Code":""#, $code, r#"","Message":""#, $($message,)+ r#""}"#
                ),
                text: concat!($($message,)+ "\n"),
            }
        })
    };
}

macro_rules! malformed {
    ($what:literal) => {
        words!(
            BAD_REQUEST,
            "MalformedToken",
            "the Authorization header holds no readable service-account token: ",
            $what,
            "; send the content of the file that AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names as \
             it is, without Bearer in front"
        )
    };
}

macro_rules! undecided {
    ($what:literal) => {
        words!(
            SERVICE_UNAVAILABLE,
            "DelegateNotKnownYet",
            "the service-account token belongs to another pod, and whether this pod may use it is \
             not known yet: ",
            $what
        )
    };
}

/// Makes the enum and its methods from rows: a name, the label of its metric, and its words if it
/// has any.
macro_rules! refusals {
    ($(
        $(#[$doc:meta])*
        $name:ident $(($detail:ident: $of:ident))? = $metric:literal, $words:expr;
    )+) => {
        /// Why a request or a connection gets no credentials.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[$doc])* $name $(($of))?,)+
        }

        impl Refusal {
            /// The labels of all reasons, for metrics that are to be there before the first
            /// refusal.
            pub const METRICS: &[&str] = &[$($metric),+];

            /// The label of this reason in `podcreds_refusals_total`.
            pub fn metric(self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $metric,)+
                }
            }

            /// What the client is told. `None` where the connection is closed without a word, and
            /// where the words are somebody else's.
            pub fn words(self) -> Option<&'static Words> {
                match self {
                    $(Self::$name $(($detail))? => $words,)+
                }
            }
        }
    };
}

refusals! {
    /// The request names the agent by something else than an IP address.
    BadHost = "bad_host", words!(
        FORBIDDEN,
        "HostNotAllowed",
        "the Host header must be one IP address; reach the agent by the address in \
         AWS_CONTAINER_CREDENTIALS_FULL_URI, not by a name"
    );
    /// The request is for another path.
    NotFound = "not_found", words!(
        NOT_FOUND,
        "NotFound",
        "nothing is here; credentials are at /v1/credentials"
    );
    /// The request is a CONNECT.
    Method = "method", words!(
        METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        "this is no proxy: nothing is connected; use GET"
    );
    /// The request has no token.
    MissingToken = "missing_token", words!(
        BAD_REQUEST,
        "MissingToken",
        "the Authorization header is missing or empty; send the content of the file that \
         AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names"
    );
    /// The token is not a service-account token at all.
    MalformedToken(unreadable: Unreadable) = "malformed_token", match unreadable {
        Unreadable::NotAscii => malformed!("it is not plain ASCII"),
        Unreadable::TooLong => malformed!("it is over 8 KiB long"),
        Unreadable::NoToken => malformed!("it is no Kubernetes service-account token"),
        Unreadable::Expiry => malformed!("its expiry is out of range"),
        Unreadable::PodUid => malformed!("its pod's UID is no UID"),
    };
    /// The token's own claims say that it has expired.
    ExpiredToken = "expired_token", words!(
        BAD_REQUEST,
        "ExpiredToken",
        "the service-account token has expired; read the token's file again for every \
         request, since the kubelet renews it"
    );
    /// The token is another pod's.
    OtherPod = "other_pod", words!(
        FORBIDDEN,
        "TokenOfAnotherPod",
        "the service-account token belongs to another pod; a pod may use its own token only, \
         unless the agent's --delegate names its service account"
    );
    /// The token is another pod's, or one of a redirected pod on the node path, and the request has
    /// the marks of an HTTP proxy, which would have brought it from there. The next request would
    /// take the same way, so it is not worth a retry. A thief could write such marks, too.
    ThroughProxy = "proxy", words!(
        FORBIDDEN,
        "ThroughProxy",
        "the request came through an HTTP proxy, so that it does not come from the pod that \
         the service-account token belongs to; add 169.254.170.23,fd00:ec2::23,[fd00:ec2::23] to \
         the pod's NO_PROXY (in Java: http.nonProxyHosts), so that the pod asks by itself"
    );
    /// The caller is no process of a known pod.
    UnknownCaller = "unknown_caller", words!(
        FORBIDDEN,
        "UnknownCaller",
        "the calling process belongs to no pod that is known on this node; call from a \
         container of the pod; if this is one, look at the agent's log"
    );
    /// The token is another pod's, and whether the caller may use it is not known yet.
    Undecided(why: Undecided) = "undecided", match why {
        Undecided::LookUp => undecided!("its service account is being looked up"),
        Undecided::NotMounted => undecided!("kubelet may not have mounted its own token yet"),
        Undecided::NoKeys => undecided!("the cluster's keys cannot be had"),
        Undecided::NoFolder => undecided!(
            "kubelet's folder of the pod cannot be read; does the agent's --kubelet-root name \
             kubelet's folder?"
        ),
        Undecided::NotPermitted => undecided!(
            "the agent may not read the pod's own token, for which it needs CAP_DAC_READ_SEARCH"
        ),
    };
    /// The kernel has no record of who made the connection.
    NoRecord = "no_record", words!(
        SERVICE_UNAVAILABLE,
        "CallerNotRecorded",
        "the kernel has no record of who made this connection; ask again on a new one"
    );
    /// The token came to an address of the host, and its pod is redirected to its own listener. A
    /// pod that has just been found comes there the next time it asks.
    Detour = "detour", words!(
        SERVICE_UNAVAILABLE,
        "Detour",
        "the pod of this service-account token is served inside of its own network \
         namespace; call from there, without NAT"
    );
    /// EKS Auth has refused the token, or the agent in its place. [`EksRefusal`](super::EksRefusal)
    /// has the words.
    EksAuth = "eks_auth", None;
    /// The connection had to make room for another caller's.
    Evicted = "evicted", None;
    /// The client took too long over the head of a request.
    HeadTimeout = "head_timeout", None;
    /// The head of the request is too large. hyper answers.
    HeadTooLarge = "head_too_large", None;
    /// The request is no HTTP. hyper answers.
    MalformedRequest = "malformed_request", None;
    /// The caller has as many connections as it may have.
    TooManyConnections = "too_many_connections", None;
    /// Too many requests in a row were refused on the connection.
    TooManyRefusals = "too_many_refusals", None;
    /// The client took too long to read an answer.
    WriteTimeout = "write_timeout", None;
}

impl Refusal {
    /// Whether the client or its owner is to blame. In the other cases it is podcreds that does not
    /// know enough yet.
    pub fn is_clients_fault(self) -> bool {
        !matches!(self, Self::NoRecord | Self::Undecided(_))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Every refusal that has words.
    const WITH_WORDS: [Refusal; 20] = [
        Refusal::BadHost,
        Refusal::NotFound,
        Refusal::Method,
        Refusal::MissingToken,
        Refusal::MalformedToken(Unreadable::NotAscii),
        Refusal::MalformedToken(Unreadable::TooLong),
        Refusal::MalformedToken(Unreadable::NoToken),
        Refusal::MalformedToken(Unreadable::Expiry),
        Refusal::MalformedToken(Unreadable::PodUid),
        Refusal::ExpiredToken,
        Refusal::OtherPod,
        Refusal::ThroughProxy,
        Refusal::UnknownCaller,
        Refusal::Undecided(Undecided::LookUp),
        Refusal::Undecided(Undecided::NotMounted),
        Refusal::Undecided(Undecided::NoKeys),
        Refusal::Undecided(Undecided::NoFolder),
        Refusal::Undecided(Undecided::NotPermitted),
        Refusal::NoRecord,
        Refusal::Detour,
    ];

    /// Every other refusal.
    const WITHOUT_WORDS: [Refusal; 8] = [
        Refusal::EksAuth,
        Refusal::Evicted,
        Refusal::HeadTimeout,
        Refusal::HeadTooLarge,
        Refusal::MalformedRequest,
        Refusal::TooManyConnections,
        Refusal::TooManyRefusals,
        Refusal::WriteTimeout,
    ];

    #[test]
    fn a_refusal_for_each_metric_is_looked_at_here() {
        let all = || WITH_WORDS.into_iter().chain(WITHOUT_WORDS);
        for reason in Refusal::METRICS {
            assert!(
                all().any(|refusal| refusal.metric() == *reason),
                "{reason} is neither in WITH_WORDS nor in WITHOUT_WORDS"
            );
        }
        for refusal in WITHOUT_WORDS {
            assert!(refusal.words().is_none(), "{refusal:?} has words");
        }
    }

    #[test]
    fn words_are_json_and_the_text_says_the_same() {
        for refusal in WITH_WORDS {
            let words = refusal.words().unwrap();
            let body: Value = serde_json::from_str(words.json).unwrap();
            assert_eq!(body.as_object().unwrap().len(), 4);
            assert_eq!(
                (&body["code"], &body["message"]),
                (&body["Code"], &body["Message"])
            );
            let line = format!("{}\n", body["message"].as_str().unwrap());
            assert_eq!(words.text, line);
            assert!(!line.contains("  "), "{line}");
            assert_eq!(words.is_worth_a_retry(), words.status.is_server_error());
        }
    }

    #[test]
    fn every_reason_and_every_code_has_a_row_in_the_operators_documentation() {
        let docs = include_str!("../../../docs/operations.md");
        let is_in_a_row = |word: &str| {
            let quoted = format!("`{word}`");
            docs.lines()
                .any(|line| line.starts_with('|') && line.contains(&quoted))
        };
        for reason in Refusal::METRICS {
            assert!(is_in_a_row(reason), "{reason}");
        }
        for refusal in WITH_WORDS {
            let body: Value = serde_json::from_str(refusal.words().unwrap().json).unwrap();
            let code = body["code"].as_str().unwrap();
            assert!(is_in_a_row(code), "{code}");
        }
    }
}
