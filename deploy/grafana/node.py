"""One agent: what its pods wait for, and what it does."""

from panels import NODE, board, graph, heat_map, limiter_wait, number, quantile, rate, row, times

CALLS = "podcreds_upstream_request_duration_seconds"
ANSWERS = "podcreds_request_duration_seconds"
WAITS = "podcreds_connect_to_response_duration_seconds"
STAGES = "podcreds_request_stage_duration_seconds"
GOOD = ("green", None)


def now(metric, selector=NODE):
    """The value of a gauge. While an agent replaces another, two targets have it."""
    return f"max({metric}{{{selector}}})"


def by(label, metric):
    """Rates for each value of a label."""
    return f"sum by ({label}) ({rate(metric, NODE)})"


def mean(metric):
    return f"sum({rate(metric + '_sum', NODE)}) / (sum({rate(metric + '_count', NODE)}) > 0)"


def overview(dashboard):
    return row(
        dashboard,
        "Now",
        number(
            "Version",
            "short",
            "Which build runs.",
            "compare with the other nodes on the fleet dashboard.",
            "PodcredsNodesWithoutAgent",
            f"max by (version, revision) (podcreds_build_info{{{NODE}}})",
            [GOOD],
            legend="{{version}} ({{revision}})",
            text=True,
        ),
        number(
            "Up for",
            "s",
            "Since the agent has started. Its credentials may be older: they are handed over.",
            "minutes again and again: it keeps restarting.",
            "PodcredsAgentRestarts",
            f"time() - {now('process_start_time_seconds')}",
            [("orange", None), ("green", 600)],
        ),
        number(
            "In-pod path",
            "short",
            "1 where pods are redirected into a listener of their own.",
            "0: readiness says why eBPF cannot be had.",
            "PodcredsNodePathOnly",
            now("podcreds_paths", NODE + ', path="ebpf"'),
            [("orange", None), ("green", 1)],
        ),
        number(
            "Node path",
            "short",
            "How many of the host's addresses are listened on.",
            "0 beside another agent is right; 0 with no in-pod path serves nobody.",
            "PodcredsNoPath",
            now("podcreds_paths", NODE + ', path="node"'),
            [GOOD],
        ),
        number(
            "Pods",
            "short",
            "Pods whose cgroup is known.",
            "0: the agent looks in the wrong place.",
            "PodcredsPodsNotFound",
            now("podcreds_pods"),
            [("red", None), ("green", 1)],
        ),
        number(
            "Nearest expiry",
            "s",
            "Until the first credentials expire that somebody asks for.",
            "below 15 minutes renewals fail.",
            "PodcredsCredentialsNearExpiry",
            f"min(podcreds_cache_nearest_expiry_seconds{{{NODE}}})",
            [("red", None), ("orange", 300), ("green", 900)],
        ),
    )


def latency(dashboard):
    quantiles = [
        (quantile(share, metric, NODE, "code, le"), f"{name} {{{{code}}}} p{round(share * 100)}")
        for metric, name in [(WAITS, "connect"), (ANSWERS, "accept")]
        for share in (0.5, 0.99)
    ]
    requests = f"sum({rate(ANSWERS + '_count', NODE)})"
    return row(
        dashboard,
        "What pods wait for",
        heat_map(
            "Connect to response",
            "From the pod's connect() to the answer of the first request, as the kernel measured it.",
            "a band above a second: SDKs give up. See which stage below.",
            "PodcredsAnswersSlow",
            WAITS,
            NODE,
        ),
        heat_map(
            "Request",
            "From accept, or from the head of a later request, to the answer.",
            "a band at 0.9 s are requests that have waited for EKS Auth in vain.",
            "PodcredsAnswersSlow",
            ANSWERS,
            NODE,
        ),
        graph(
            "Where time goes",
            "s",
            "Mean seconds of a request in each stage; together they are what a pod waits.",
            "kernel, read: the agent lacks CPU. exchange: the limiter or EKS Auth. write: the client does not read.",
            "PodcredsAnswersSlow",
            (f"{by('stage', STAGES + '_sum')} / on () group_left () ({requests} > 0)", "{{stage}}"),
            stacked=True,
        ),
        graph(
            "Longest stages (p99)",
            "s",
            "What the slowest of a hundred requests spend in a stage that they come through.",
            "compare with the call to EKS Auth: the rest of an exchange is the limiter's.",
            "PodcredsAnswersSlow",
            (quantile(0.99, STAGES, NODE, "stage, le"), "{{stage}}"),
            (mean(CALLS), "mean call to EKS Auth"),
            log=True,
        ),
        graph(
            "Latency",
            "s",
            "Half and nearly all of the requests, by the answer's status.",
            "503 at 0.9 s has waited in vain: see EKS Auth. 200 over a second: see the stages.",
            "PodcredsAnswersSlow",
            *quantiles,
            log=True,
        ),
        graph(
            "Requests by answer",
            "reqps",
            "200 credentials, 4xx refusals, 503 not yet.",
            "see the refusals and EKS Auth's outcomes.",
            "PodcredsErrorBudgetBurnsFast",
            (by("code", ANSWERS + "_count"), "{{code}}"),
            stacked=True,
        ),
    )


def identity(dashboard):
    return row(
        dashboard,
        "Who asks",
        graph(
            "Refusals by reason",
            "reqps",
            "Requests and connections that were turned away.",
            "the table in docs/operations.md has what the pod sees for each reason; the log names the pods.",
            "PodcredsRefusalsSpike",
            (by("reason", "podcreds_refusals_total") + " > 0 or vector(0)", "{{reason}}"),
            stacked=True,
        ),
        graph(
            "Identity decisions",
            "reqps",
            "How tokens were judged whose credentials were not in memory.",
            "refused: a token of another pod or an unknown caller. node_path: only the token says who it is.",
            "PodcredsTokenOfAnotherPod",
            (by("decision", "podcreds_identity_decisions_total"), "{{decision}}"),
            stacked=True,
        ),
        graph(
            "Connections",
            "short",
            "Open connections of pods. 768 is the most for all of them.",
            "near the limit: one pod takes them all; refusals with evicted say so.",
            "PodcredsRefusalsSpike",
            (now("podcreds_connections"), "open"),
        ),
    )


def datapath(dashboard):
    return row(
        dashboard,
        "Pods, listeners and eBPF",
        graph(
            "Pods and listeners",
            "short",
            "Pods and network namespaces that are known, and listeners: about two for each namespace.",
            "pods without listeners: see the errors beside it.",
            "PodcredsPodsNotFound",
            *[
                (now(f"podcreds_{name}"), name.replace("_", " "))
                for name in ["pods", "network_namespaces", "listeners"]
            ],
        ),
        graph(
            "Trouble with listeners",
            "short",
            "unreachable: filtered in the pod. missing: redirected, not accepted. errors: failures to listen.",
            "the log names pod and reason.",
            "PodcredsListenersUnreachable",
            (now("podcreds_unreachable_listeners"), "unreachable"),
            (now("podcreds_missing_connections"), "missing"),
            (f"sum({times('podcreds_datapath_errors_total', NODE)})", "errors"),
        ),
        graph(
            "Start of pods (p99)",
            "s",
            "From a pod's cgroup to its listener, and from its first connect to its first credentials.",
            "listener: the network plugin is slow, or the agent lacks CPU. credentials: see EKS Auth.",
            "PodcredsDatapathErrors",
            (quantile(0.99, "podcreds_pod_listener_duration_seconds", NODE), "listener"),
            (quantile(0.99, "podcreds_pod_first_credentials_duration_seconds", NODE), "first credentials"),
            log=True,
        ),
        graph(
            "Connects in the kernel",
            "cps",
            "What the eBPF programs did with connects to the credentials address.",
            "unknown_pod, failed: not redirected. foreign_netns: a container's own network, right once or twice.",
            "PodcredsConnectsNotRedirected",
            (by("outcome", "podcreds_kernel_connects_total"), "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Accepts in the kernel",
            "cps",
            "Whether the kernel could tell who was calling.",
            "unidentified: their requests are refused with no_record.",
            "PodcredsRefusalsSpike",
            (by("outcome", "podcreds_kernel_accepts_total"), "{{outcome}}"),
            stacked=True,
        ),
    )


def credentials(dashboard):
    return row(
        dashboard,
        "Credentials",
        graph(
            "What the cache did",
            "reqps",
            "hit and stale: from memory. miss: an exchange was begun. joined: one was waited for.",
            "stale: renewals fail. overloaded: more requests wait than there is room for.",
            "PodcredsCredentialsNearExpiry",
            (by("result", "podcreds_cache_requests_total"), "{{result}}"),
            stacked=True,
        ),
        graph(
            "Pods with credentials",
            "short",
            "Entries in memory, and those that made room for others.",
            "evictions: raise --max-cache-size, or find who makes so many tokens.",
            "PodcredsThrottled",
            (now("podcreds_cache_entries"), "entries"),
            (f"sum({times('podcreds_cache_evictions_total', NODE)})", "evictions"),
            (now("podcreds_refusals_remembered"), "refused tokens that are remembered"),
        ),
        graph(
            "Freshness",
            "short",
            "Credentials that should have been renewed a minute ago.",
            "they live on what is left: see EKS Auth, the rate limiter, and the queue for refresh.",
            "PodcredsCredentialsNearExpiry",
            (now("podcreds_cache_renewals_overdue"), "overdue"),
        ),
        graph(
            "The cluster's keys",
            "short",
            "Keys that are known, and fetches that failed since the last one that did not.",
            "rotated tokens go to EKS Auth, and delegates wait; readiness has the reason.",
            "PodcredsKeysUnreachable",
            (now("podcreds_keys"), "keys"),
            (now("podcreds_keys_consecutive_failures"), "failures in a row"),
        ),
        graph(
            "Tokens",
            "short",
            "adopted: rotated tokens that their signature was enough for. forged: not signed by the cluster.",
            "forged is never right. Adopted at 0 while tokens rotate: the cluster's keys cannot be had.",
            "PodcredsTokenForged",
            (f"sum({times('podcreds_tokens_adopted_total', NODE)})", "adopted"),
            (f"sum({times('podcreds_tokens_forged_total', NODE)})", "forged"),
        ),
    )


def upstream(dashboard):
    return row(
        dashboard,
        "EKS Auth",
        graph(
            "Calls by outcome",
            "reqps",
            "ok; refused (final for this pod); rejected (this one request); throttled; unavailable.",
            "the log has EKS Auth's words, or the step that fails.",
            "PodcredsNodeCannotReachEksAuth",
            (by("outcome", CALLS + "_count"), "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Refusals by EKS Auth's code",
            "reqps",
            "Tokens that EKS Auth has refused, or whose requests it has rejected.",
            "the log has EKS Auth's words and names the pods.",
            "PodcredsRefusalsSpike",
            (by("code", "podcreds_upstream_refusals_total"), "{{code}}"),
            stacked=True,
        ),
        limiter_wait(NODE),
        graph(
            "Exchanges",
            "short",
            "Pods whose token is being exchanged, requests that wait for that, and pods whose last exchange failed.",
            "waiting without calls in flight: the rate limiter holds them back.",
            "PodcredsThrottled",
            (now("podcreds_exchanges"), "exchanges"),
            (now("podcreds_exchange_waiters"), "waiting requests"),
            (now("podcreds_exchanges_backing_off"), "backing off"),
        ),
        graph(
            "Attempts",
            "reqps",
            "By purpose (asked by a pod, or a renewal) and outcome.",
            "refresh failed: pods live on what is left.",
            "PodcredsCredentialsNearExpiry",
            (by("purpose, outcome", "podcreds_exchange_attempts_total"), "{{purpose}} {{outcome}}"),
            stacked=True,
        ),
        graph(
            "Rate limiter",
            "reqps",
            "Calls a second that are let through; 100 and more where nothing is throttled.",
            "low: EKS Auth throttles or was out; it comes back with the calls that succeed.",
            "PodcredsThrottled",
            (now("podcreds_limiter_calls_per_second"), "let through"),
        ),
        graph(
            "Queue of the rate limiter",
            "short",
            "Calls in flight, and those that wait for their turn, by urgency.",
            "asked stays above 0: pods wait for the limiter. refresh does: raise --max-service-qps.",
            "PodcredsThrottled",
            (now("podcreds_limiter_calls_in_flight"), "in flight"),
            (f"max by (urgency) (podcreds_limiter_queue{{{NODE}}})", "{{urgency}}"),
        ),
        graph(
            "Failures in a row",
            "short",
            "Calls without a usable answer since the last one with.",
            "five and more: the node's role, its clock or its network.",
            "PodcredsNodeCannotReachEksAuth",
            (now("podcreds_upstream_consecutive_failures"), "failures"),
            limit=5,
        ),
    )


def process(dashboard):
    return row(
        dashboard,
        "Process",
        graph(
            "Memory",
            "bytes",
            "Resident memory, and what the credentials take of it.",
            "over 64 MiB is more than any load explains.",
            "PodcredsMemoryHigh",
            (now("process_resident_memory_bytes"), "resident"),
            (now("podcreds_cache_bytes"), "credentials"),
            limit=64 * 2**20,
        ),
        graph(
            "CPU",
            "percentunit",
            "Of one processor.",
            "high with few requests: somebody floods the agent; see refusals and connections.",
            "PodcredsAnswersSlow",
            (f"max({rate('process_cpu_seconds_total', NODE)})", "CPU"),
        ),
        graph(
            "Files",
            "short",
            "Open files, and how many there may be.",
            "near the limit new pods get no listener.",
            "PodcredsFilesNearLimit",
            (now("process_open_fds"), "open"),
            (now("process_max_fds"), "limit"),
            log=True,
        ),
        graph(
            "Hand-over",
            "short",
            "What the agent is to others on its node, and changes of credentials that were handed over.",
            "two agents for minutes: an update hangs. skipped: those pods ask EKS Auth again.",
            "PodcredsAgentRestarts",
            (f"max by (role) (podcreds_handover_role{{{NODE}}})", "{{role}}"),
            (f"sum by (direction) ({times('podcreds_handover_entries_total', NODE)})", "{{direction}}"),
            (f"sum by (direction) ({times('podcreds_handover_skipped_total', NODE)})", "skipped when {{direction}}"),
            span=12,
        ),
        graph(
            "Log lines lost",
            "short",
            "repeated: the same was said before. unread: nobody read the log in time.",
            "unread: what collects the node's logs does not keep up.",
            "PodcredsRefusalsSpike",
            (f"sum by (reason) ({times('podcreds_log_lines_lost_total', NODE)})", "{{reason}}"),
            span=12,
        ),
    )


def dashboard():
    built = board(
        "podcreds-node", "podcreds / Node", "What one agent's pods wait for, and what it does.", several=False
    )
    for part in [overview, latency, identity, datapath, credentials, upstream, process]:
        built = part(built)
    return built
