//! What there is to say about an agent.

use std::time::SystemTime;

use podcreds_admin::AgentStatus;
use podcreds_output::{self as text, harmless};

/// What there is to say about an agent, in some lines.
pub(super) fn agent_lines(agent: &AgentStatus, now: SystemTime) -> String {
    let AgentStatus {
        paths,
        limiter,
        upstream,
        ..
    } = agent;
    let ready = if agent.ready { "ready" } else { "not ready" };
    let mut text = format!(
        "podcreds {} ({}), {}, {ready}, up {}, process {}, log level {}\n",
        agent.version,
        agent.revision,
        agent.role,
        text::duration(agent.started.ago(now)),
        agent.process,
        agent.log_level,
    );
    let in_pod = if paths.in_pod { "on" } else { "off" };
    text.push_str(&format!(
        "paths     in-pod {in_pod}, node path on {} addresses\n",
        paths.node_addresses
    ));
    let throttled = if limiter.throttled {
        ", EKS Auth throttles"
    } else {
        ""
    };
    let rate = match limiter.calls_per_second {
        slow if slow < 1.0 => format!("a call every {:.0} s", slow.recip()),
        rate => format!("{rate:.0} calls a second"),
    };
    text.push_str(&format!(
        "limiter   {rate}{throttled}; {} in flight, {} waiting (and {} renewals)\n",
        limiter.in_flight,
        limiter.waiting + limiter.waiting_doubtful,
        limiter.waiting_renewals,
    ));
    let answer = match upstream.last_answer {
        Some(at) => format!("last answer {} ago", text::duration(at.ago(now))),
        None => "no answer yet".to_owned(),
    };
    let failures = match (&upstream.last_failure, upstream.failures_in_a_row) {
        (Some(failure), failures @ 1..) => {
            format!(
                "; {failures} failures in a row: {}",
                harmless(&failure.message)
            )
        }
        (_, _) => String::new(),
    };
    text.push_str(&format!("EKS Auth  {answer}{failures}\n"));
    let keys = match &agent.keys {
        None => "none are looked for".to_owned(),
        Some(keys) => match &keys.failure {
            None => format!("{} known", keys.known),
            Some(why) => format!(
                "{} known; the last fetch failed: {}",
                keys.known,
                harmless(why)
            ),
        },
    };
    text.push_str(&format!("keys      {keys}\n"));
    for remark in &agent.remarks {
        text.push_str(&format!("remark    {}\n", harmless(remark)));
    }
    text
}
