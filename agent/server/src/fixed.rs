//! Refusals whose words are known beforehand: the server's own. They are written down once, as they are sent,
//! so that a refusal costs no more than an answer from memory.

use http::StatusCode;
use podcreds_types::Unreadable;

use super::{Refusal, Undecided, metrics::Reason};

/// A refusal as it is sent.
pub(super) struct Fixed {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    /// Whether the client may do better the next time it asks.
    pub(super) is_worth_a_retry: bool,
    /// An object with a code and a message.
    pub(super) json: &'static str,
    /// One line.
    pub(super) text: &'static str,
}

/// The Go SDK reads the lower-case names, the JS SDK the others, and botocore shows all of it. Neither a code
/// nor a message has characters that JSON would escape.
macro_rules! refuse {
    ($status:ident, $reason:ident, $code:literal, $($message:literal),+ $(,)?) => {
        const {
            &Fixed {
            status: StatusCode::$status,
            reason: Reason::$reason,
            is_worth_a_retry: StatusCode::$status.as_u16() == 503,
            json: concat!(
                r#"{"code":""#, $code, r#"","message":""#, $($message,)+
                r#"","Code":""#, $code, r#"","Message":""#, $($message,)+ r#""}"#
            ),
            text: concat!($($message,)+ "\n"),
        }
        }
    };
}

macro_rules! malformed {
    ($what:literal) => {
        refuse!(
            BAD_REQUEST,
            MalformedToken,
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
        refuse!(
            SERVICE_UNAVAILABLE,
            Undecided,
            "DelegateNotKnownYet",
            "the service-account token belongs to another pod, and whether this pod may use it is \
             not known yet: ",
            $what
        )
    };
}

pub(super) static PATH: &Fixed = refuse!(
    NOT_FOUND,
    NotFound,
    "NotFound",
    "nothing is here; credentials are at /v1/credentials"
);

pub(super) static METHOD: &Fixed = refuse!(
    METHOD_NOT_ALLOWED,
    Method,
    "MethodNotAllowed",
    "this is no proxy: nothing is connected; use GET"
);

pub(super) static HOST: &Fixed = refuse!(
    FORBIDDEN,
    BadHost,
    "HostNotAllowed",
    "the Host header must be one IP address; reach the agent by the address in \
     AWS_CONTAINER_CREDENTIALS_FULL_URI, not by a name"
);

pub(super) static NO_TOKEN: &Fixed = refuse!(
    BAD_REQUEST,
    MissingToken,
    "MissingToken",
    "the Authorization header is missing or empty; send the content of the file that \
     AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names"
);

/// What a pod is told of a token that is not taken.
pub(super) fn token(refusal: Refusal) -> &'static Fixed {
    match refusal {
        Refusal::Malformed(unreadable) => match unreadable {
            Unreadable::NotAscii => malformed!("it is not plain ASCII"),
            Unreadable::TooLong => malformed!("it is over 8 KiB long"),
            Unreadable::NoToken => malformed!("it is no Kubernetes service-account token"),
            Unreadable::Expiry => malformed!("its expiry is out of range"),
            Unreadable::PodUid => malformed!("its pod's UID is no UID"),
        },
        Refusal::Expired => refuse!(
            BAD_REQUEST,
            ExpiredToken,
            "ExpiredToken",
            "the service-account token has expired; read the token's file again for every \
             request, since the kubelet renews it"
        ),
        Refusal::OtherPod => refuse!(
            FORBIDDEN,
            OtherPod,
            "TokenOfAnotherPod",
            "the service-account token belongs to another pod; a pod may use its own token only, \
             unless the agent's --delegate names its service account"
        ),
        Refusal::Proxied => refuse!(
            FORBIDDEN,
            Proxy,
            "ThroughProxy",
            "the request came through an HTTP proxy, so that it does not come from the pod that \
             the service-account token belongs to; name 169.254.170.23 and fd00:ec2::23 in the \
             pod's NO_PROXY (in Java: http.nonProxyHosts), so that the pod asks by itself"
        ),
        Refusal::UnknownCaller => refuse!(
            FORBIDDEN,
            UnknownCaller,
            "UnknownCaller",
            "the calling process belongs to no pod that is known on this node; call from a \
             container of the pod; if this is one, look at the agent's log"
        ),
        Refusal::Undecided(reason) => match reason {
            Undecided::LookUp => undecided!("its service account is being looked up"),
            Undecided::NotMounted => undecided!("kubelet may not have mounted its own token yet"),
            Undecided::NoKeys => undecided!("the cluster's keys cannot be had"),
            Undecided::NoFolder => undecided!(
                "kubelet's folder of the pod cannot be read; does the agent's --kubelet-root name \
                 kubelet's folder?"
            ),
            Undecided::NotPermitted => undecided!(
                "the agent may not read the pod's own token, for which it needs \
                 CAP_DAC_READ_SEARCH"
            ),
        },
        Refusal::NoRecord => refuse!(
            SERVICE_UNAVAILABLE,
            NoRecord,
            "CallerNotRecorded",
            "the kernel has no record of who made this connection; ask again on a new one"
        ),
        Refusal::Detour => refuse!(
            SERVICE_UNAVAILABLE,
            Detour,
            "Detour",
            "the pod of this service-account token is served inside of its own network \
             namespace; call from there, without NAT"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_written_down_is_json_and_says_the_same_as_the_text() {
        let tokens = [
            Refusal::Malformed(Unreadable::NotAscii),
            Refusal::Malformed(Unreadable::TooLong),
            Refusal::Malformed(Unreadable::NoToken),
            Refusal::Malformed(Unreadable::Expiry),
            Refusal::Malformed(Unreadable::PodUid),
            Refusal::Expired,
            Refusal::OtherPod,
            Refusal::Proxied,
            Refusal::UnknownCaller,
            Refusal::Undecided(Undecided::LookUp),
            Refusal::Undecided(Undecided::NotMounted),
            Refusal::Undecided(Undecided::NoKeys),
            Refusal::Undecided(Undecided::NoFolder),
            Refusal::Undecided(Undecided::NotPermitted),
            Refusal::NoRecord,
            Refusal::Detour,
        ];
        let all = [PATH, METHOD, HOST, NO_TOKEN].into_iter();
        for fixed in all.chain(tokens.map(token)) {
            let body: Value = serde_json::from_str(fixed.json).unwrap();
            assert_eq!(body.as_object().unwrap().len(), 4);
            assert_eq!(
                (&body["code"], &body["message"]),
                (&body["Code"], &body["Message"])
            );
            let line = format!("{}\n", body["message"].as_str().unwrap());
            assert_eq!(fixed.text, line);
            assert!(!line.contains("  "), "{line}");
            assert_eq!(fixed.is_worth_a_retry, fixed.status.is_server_error());
        }
    }
}
