//! The table of those who were refused.

use std::time::SystemTime;

use podcreds_admin::RefusalStatus;
use podcreds_output::{self as text, Column, harmless, table_of};

const COLUMNS: [Column; 5] = [
    Column::new("REFUSED").cut_to(20),
    Column::new("REASON"),
    Column::new("COUNT"),
    Column::new("LAST"),
    Column::new("ABOUT").cut_to(12).goes(1),
];

/// A line for each caller and reason; nothing where nobody was refused.
pub(super) fn refused_table(
    refused: &[RefusalStatus],
    width: Option<usize>,
    now: SystemTime,
) -> String {
    if refused.is_empty() {
        return String::new();
    }
    let row = |it: &RefusalStatus| {
        vec![
            harmless(&caller(it)),
            it.reason.clone(),
            it.count.to_string(),
            text::duration(it.last.ago(now)) + " ago",
            harmless(&about(it)),
        ]
    };
    let rows: Vec<_> = refused.iter().map(row).collect();
    format!("\n{}", table_of(&COLUMNS, &rows, width))
}

fn caller(refused: &RefusalStatus) -> String {
    match refused {
        RefusalStatus {
            namespace: Some(namespace),
            name: Some(name),
            ..
        } => format!("{namespace}/{name}"),
        RefusalStatus { uid: Some(uid), .. } => uid.clone(),
        RefusalStatus {
            address: Some(address),
            ..
        } => address.clone(),
        RefusalStatus {
            process: Some(process),
            ..
        } => format!("process {process}"),
        _ => "unknown".to_owned(),
    }
}

/// The program of a process, or the pod that the refused token names.
fn about(refused: &RefusalStatus) -> String {
    let token = refused.token_pod.as_ref().or(refused.token_uid.as_ref());
    match (&refused.about, token) {
        (Some(about), _) => about.clone(),
        (None, Some(token)) => format!("token of {token}"),
        (None, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_caller_is_a_pod_an_address_or_a_process() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let nobody = RefusalStatus {
            uid: None,
            namespace: None,
            name: None,
            address: None,
            process: None,
            about: None,
            reason: "no_record".to_owned(),
            token_uid: None,
            token_pod: None,
            count: 1,
            last: (now - Duration::from_secs(5)).into(),
        };
        let text = |text: &str| Some(text.to_owned());
        let refused = [
            RefusalStatus {
                uid: text("0f0e"),
                namespace: text("shop"),
                name: text("web"),
                reason: "missing_token".to_owned(),
                count: 12,
                ..nobody.clone()
            },
            RefusalStatus {
                address: text("10.0.0.7"),
                reason: "detour".to_owned(),
                token_uid: text("0f0e"),
                token_pod: text("shop/web"),
                ..nobody.clone()
            },
            RefusalStatus {
                process: Some(77),
                about: text("curl in /user.slice"),
                reason: "unknown_pod".to_owned(),
                ..nobody.clone()
            },
            nobody,
        ];
        let expected = "
REFUSED     REASON         COUNT  LAST    ABOUT
shop/web    missing_token  12     5s ago  -
10.0.0.7    detour         1      5s ago  token of shop/web
process 77  unknown_pod    1      5s ago  curl in /user.slice
unknown     no_record      1      5s ago  -
";
        assert_eq!(refused_table(&refused, None, now), expected);
        assert_eq!(refused_table(&[], None, now), "");
    }
}
