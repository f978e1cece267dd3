//! What runs on each kernel.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{image::PROGRAMS, known::Kernel};

/// Some tests of one test program, which show something together.
struct Check {
    title: &'static str,
    /// The test program, by the name of its file in `tests/tests`.
    program: &'static str,
    tests: &'static [&'static str],
}

/// On kernels that the eBPF programs are for.
const SUPPORTED: &[Check] = &[
    Check {
        title: "load, attach, redirect",
        program: "smoke",
        tests: &[
            "a_pod_gets_its_own_roles_credentials",
            "a_pod_gets_nothing_with_another_pods_token",
        ],
    },
    Check {
        title: "both families, and IPv6 only",
        program: "families",
        tests: &[
            "every_family_reaches_the_agent",
            "a_socket_that_speaks_ipv6_only_is_served",
            "ipv6_clients_are_served_where_the_pod_has_no_ipv6",
            "a_loopback_that_comes_up_late_is_enough",
            "the_next_free_port_will_do",
        ],
    },
    Check {
        title: "the kernel says who is calling",
        program: "identity",
        tests: &[
            "a_stolen_token_is_refused_and_logged_once",
            "a_forged_token_brings_nothing",
            "a_cgroup_that_is_named_after_another_pod_is_still_the_outer_pods",
            "a_process_that_enters_another_pods_namespace_keeps_its_identity",
            "a_process_in_no_pod_is_refused",
            "a_direct_connection_to_the_listener_is_identified_like_a_redirected_one",
            "a_socket_is_attributed_to_the_process_that_connects_it",
            "a_process_is_judged_by_where_it_was_when_it_connected",
            "pods_in_the_hosts_network_are_told_apart",
            "two_pods_that_share_a_namespace_are_told_apart",
        ],
    },
    Check {
        title: "containers inside of pods",
        program: "nested",
        tests: &[
            "containers_without_a_way_out_are_served_too_and_leave_nothing",
            "a_process_that_enters_a_nested_namespace_keeps_its_identity",
        ],
    },
    Check {
        title: "sockets that are bound",
        program: "sockets",
        tests: &[
            "a_socket_that_is_bound_to_an_address_is_served",
            "a_socket_that_is_bound_to_the_loopback_device_is_served_and_known",
            "fast_open_is_served",
        ],
    },
    Check {
        title: "room for applications' ports",
        program: "ports",
        tests: &[
            "ports_that_the_namespace_reserves_or_gives_out_are_not_taken",
            "a_listener_makes_room_for_an_application_that_wants_its_port",
            "another_agent_that_looks_for_a_port_moves_no_listener",
        ],
    },
    Check {
        title: "pods come and go",
        program: "discovery",
        tests: &[
            "pods_of_both_drivers_and_every_class_are_found",
            "pods_that_are_older_than_the_agent_are_served_from_its_first_moment",
            "a_pod_with_a_user_namespace_is_served",
            "the_hosts_namespace_is_never_a_pods",
            "a_pod_whose_sandbox_is_made_anew_is_followed",
            "a_listener_that_is_destroyed_is_opened_anew",
        ],
    },
    Check {
        title: "ends in order, or killed",
        program: "lifecycle",
        tests: &[
            "no_request_is_cut_off_when_the_agent_ends_under_load",
            "clients_notice_at_once_when_the_agent_is_killed",
        ],
    },
    Check {
        title: "an update under load",
        program: "handover",
        tests: &["updates::an_update_under_load_loses_no_request"],
    },
    Check {
        title: "just the documented capabilities",
        program: "privileges",
        tests: &[
            "the_documented_capabilities_are_enough",
            "each_thread_keeps_its_own_part",
            "the_agent_refuses_itself_system_calls_that_it_never_needs",
        ],
    },
    INITIALIZE,
    NODE_PATH,
    Check {
        title: "both paths at once",
        program: "node_path",
        tests: &["with_both_paths_a_pod_that_is_not_redirected_is_served_by_its_token"],
    },
    Check {
        title: "without eBPF it degrades",
        program: "paths",
        tests: &[
            "auto_serves_on_both_paths",
            "auto_without_ebpf_serves_on_the_node_path_and_says_so",
        ],
    },
    Check {
        title: "says what is missing",
        program: "startup",
        tests: &[
            "a_user_namespace_is_not_enough",
            "a_missing_cgroup2_hierarchy_is_reported",
        ],
    },
];

/// On kernels that are too old for them.
const TOO_OLD: &[Check] = &[
    Check {
        title: "says what is missing",
        program: "kernels",
        tests: &[
            "a_kernel_that_is_too_old_is_reported",
            "an_old_kernel_has_the_node_path",
        ],
    },
    INITIALIZE,
    NODE_PATH,
];

/// With real dummy links, which not every machine has.
const INITIALIZE: Check = Check {
    title: "initialize",
    program: "initialize",
    tests: &[
        "without_a_link_it_makes_a_dummy",
        "it_finishes_what_is_half_made",
        "it_goes_on_without_ipv6",
    ],
};

const NODE_PATH: Check = Check {
    title: "the node path at that link",
    program: "node_path",
    tests: &["a_pods_two_families_share_one_exchange"],
};

/// The test programs that are needed.
pub(super) fn programs() -> BTreeSet<&'static str> {
    let checks = SUPPORTED.iter().chain(TOO_OLD);
    checks.map(|check| check.program).collect()
}

/// The plan that the machine follows with this kernel.
pub(super) fn plan(kernel: &Kernel) -> Value {
    let checks = if kernel.supported { SUPPORTED } else { TOO_OLD };
    let checks = checks.iter().map(|check| {
        json!({
            "title": check.title,
            "program": format!("{PROGRAMS}/{}", check.program),
            "tests": check.tests,
        })
    });
    checks.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::workspace::root;

    /// A renamed test is noticed before a kernel is booted.
    #[test]
    fn all_tests_exist() {
        for check in SUPPORTED.iter().chain(TOO_OLD) {
            for test in check.tests {
                let program = format!("tests/tests/{}", check.program);
                let (file, name) = match test.split_once("::") {
                    Some((module, name)) => (format!("{program}/{module}.rs"), name),
                    None => (format!("{program}.rs"), *test),
                };
                let source = fs::read_to_string(root().join(&file)).unwrap_or_default();
                let exists = source.contains(&format!("\nfn {name}("));
                assert!(exists, "there is no test {name} in {file}");
            }
        }
    }
}
