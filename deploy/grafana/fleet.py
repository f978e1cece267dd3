"""All agents of one or more clusters: do pods get their credentials, and if not, where and why?"""

from panels import ALL, FLEET, board, graph, limiter_wait, listing, number, quantile, rate, row, times

CALLS = "podcreds_upstream_request_duration_seconds"
ANSWERS = "podcreds_request_duration_seconds"
OUTCOMES = "podcreds_requests_total"
ACCOUNTS = "podcreds_service_account_requests_total"
FIRST = "podcreds_pod_first_credentials_duration_seconds"
GOOD = ("green", None)
FAILED = FLEET + ', outcome=~"failed|late"'
STRANGE = FLEET + ', reason=~"other_pod|proxy|detour"'
FIRING = 'alertname=~"Podcreds.*", alertstate="firing", cluster=~"$cluster", job=~"$job|"'


def share(failed, whole):
    # Without traffic nothing has failed.
    return f"sum({failed}) / (sum({whole}) > 0) or vector(0)"


def overview(dashboard):
    return row(
        dashboard,
        "Fleet",
        number(
            "Agents",
            "short",
            "Agents that answer Prometheus.",
            "compare with the number of nodes; see which node has none.",
            "PodcredsNodesWithoutAgent",
            f"count(max by (cluster, node, instance) (podcreds_build_info{{{FLEET}}}))",
            [("red", None), ("green", 1)],
        ),
        number(
            "Agents that do not answer",
            "short",
            "Targets of the job that cannot be scraped.",
            "their pods get no new credentials, unless only the metrics port is closed.",
            "PodcredsAgentDown",
            f"count(max by (cluster, node, instance) (up{{{FLEET}}}) == 0) or vector(0)",
            [GOOD, ("red", 1)],
        ),
        number(
            "Nodes without the in-pod path",
            "short",
            "Nodes on which eBPF cannot be had: the kernel does not say who asks.",
            "see the list below, and what readiness says on that node.",
            "PodcredsNodePathOnly",
            f'count(max by (cluster, node, instance) (podcreds_paths{{{FLEET}, path="ebpf"}}) == 0) or vector(0)',
            [GOOD, ("orange", 1)],
        ),
        number(
            "Failed now",
            "percentunit",
            "Share of the last five minutes' requests that failed or took over a second.",
            "find out whether it is one node or all.",
            "PodcredsErrorBudgetBurnsFast",
            share(f"podcreds:requests_failed:rate5m{{{ALL}}}", f"podcreds:requests:rate5m{{{ALL}}}"),
            [GOOD, ("orange", 0.001), ("red", 0.0144)],
        ),
        number(
            "Error budget left",
            "percentunit",
            "Of the 0.1 % of the requests of 30 days that may fail, as far back as Prometheus remembers.",
            "stop rollouts of podcreds; find what burns it.",
            "PodcredsErrorBudgetBurnsSlowly",
            f"1 - max(podcreds:requests_failed:ratio30d{{{ALL}}} >= 0) / 0.001 or vector(1)",
            [("red", None), ("orange", 0.1), ("green", 0.5)],
        ),
        number(
            "Nearest expiry",
            "s",
            "Until the first credentials expire that somebody asks for.",
            "below 15 minutes renewals fail; see whether EKS Auth answers.",
            "PodcredsCredentialsNearExpiry",
            f"min(podcreds_cache_nearest_expiry_seconds{{{FLEET}}} > 0)",
            [("red", None), ("orange", 300), ("green", 900)],
        ),
    )


def objective(dashboard):
    burn = [
        (f"max(podcreds:requests_failed:ratio{window}{{{ALL}}} >= 0) / 0.001", window)
        for window in ["5m", "1h", "6h", "1d", "3d"]
    ]
    return row(
        dashboard,
        "Objective: 99.9 % of the requests are answered with credentials within a second",
        graph(
            "Failed requests",
            "percentunit",
            "Requests without credentials after a second, of those that podcreds can be blamed for.",
            "compare with EKS Auth's outcomes below at the same time.",
            "PodcredsErrorBudgetBurnsFast",
            (share(f"podcreds:requests_failed:rate5m{{{ALL}}}", f"podcreds:requests:rate5m{{{ALL}}}"), "failed"),
            limit=0.001,
        ),
        graph(
            "Burn rate",
            "short",
            "How many times too fast the error budget is used up, by how far one looks back. 1 is 30 days.",
            "1 h above 14.4 and 6 h above 6 are urgent; 1 d above 3 and 3 d above 1 can wait for the morning.",
            "PodcredsErrorBudgetBurnsSlowly",
            *burn,
            limit=14.4,
        ),
        graph(
            "Nodes with most failures",
            "reqps",
            "Requests that fail or are late, of the ten nodes with most.",
            "one node alone: its credentials, its network or its CPU. All: EKS Auth.",
            "PodcredsNodeCannotReachEksAuth",
            (f"topk(10, sum by (node) ({rate(OUTCOMES, FAILED)}))", "{{node}}"),
        ),
    )


def traffic(dashboard):
    waits = "podcreds_connect_to_response_duration_seconds"
    return row(
        dashboard,
        "Traffic",
        graph(
            "Requests by answer",
            "reqps",
            "What pods were answered: 200 credentials, 4xx refusals, 503 not yet.",
            "4xx: see the refusals below. 503: see EKS Auth.",
            "PodcredsRefusalsSpike",
            (f"sum by (code) ({rate(ANSWERS + '_count', FLEET)})", "{{code}}"),
            stacked=True,
        ),
        graph(
            "Requests by outcome",
            "reqps",
            "served; late: after a second; failed; client_fault: none, and the client or its owner is to blame.",
            "client_fault: see the refusals below. failed, late: see EKS Auth.",
            "PodcredsErrorBudgetBurnsFast",
            (f"sum by (outcome) ({rate(OUTCOMES, FLEET)})", "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Busiest service accounts",
            "reqps",
            "Requests of the ten with most, where agents have --metrics-per-service-account; else nothing.",
            "one that asks all the time: its SDK keeps no credentials.",
            "PodcredsRefusalsSpike",
            (
                f"topk(10, sum by (account_namespace, service_account) ({rate(ACCOUNTS, FLEET)})) or vector(0)",
                "{{account_namespace}}/{{service_account}}",
            ),
        ),
        graph(
            "What the cache did",
            "reqps",
            "hit and stale: from memory. miss: an exchange was begun. joined: one was waited for.",
            "many misses for few pods: credentials are not kept; look for restarts and evictions.",
            "PodcredsThrottled",
            (f"sum by (result) ({rate('podcreds_cache_requests_total', FLEET)})", "{{result}}"),
            stacked=True,
        ),
        graph(
            "From connect() to the answer",
            "s",
            "What a pod waits for its first answer, as the kernel measured it, by the answer's status.",
            "over a second SDKs give up: the agents lack CPU, or EKS Auth is slow.",
            "PodcredsAnswersSlow",
            *[(quantile(q, waits, FLEET, "code, le"), f"{{{{code}}}} p{round(q * 100)}") for q in (0.5, 0.9, 0.99)],
            log=True,
        ),
    )


def errors(dashboard):
    return row(
        dashboard,
        "Errors and identity",
        graph(
            "Refusals by reason",
            "reqps",
            "Requests and connections that were turned away. The label is the reason.",
            "the table in docs/operations.md has what the pod sees for each reason, and what to do.",
            "PodcredsRefusalsSpike",
            (f"sum by (reason) ({rate('podcreds_refusals_total', FLEET)}) > 0 or vector(0)", "{{reason}}"),
            stacked=True,
        ),
        graph(
            "Tokens that are not the caller's",
            "short",
            "other_pod: of another pod. proxy: by an HTTP proxy. detour: past the redirect. forged: not signed.",
            "other_pod is a stolen token until you know better; the node's log names the pods.",
            "PodcredsTokenOfAnotherPod",
            (f"sum by (reason) ({times('podcreds_refusals_total', STRANGE)})", "{{reason}}"),
            (f"sum({times('podcreds_tokens_forged_total', FLEET)})", "forged"),
        ),
        listing(
            "Alerts",
            "short",
            "What fires now.",
            "follow the runbook of the alert.",
            "PodcredsErrorBudgetBurnsFast",
            f"count by (alertname, severity, node) (ALERTS{{{FIRING}}})",
        ),
    )


def upstream(dashboard):
    return row(
        dashboard,
        "EKS Auth",
        graph(
            "Calls by outcome",
            "reqps",
            "ok; refused (final for this pod); rejected (this one request); throttled; unavailable (no usable answer).",
            "unavailable: name, connection, TLS or the service; the log names the step.",
            "PodcredsEksAuthUnavailable",
            (f"sum by (outcome) ({rate(CALLS + '_count', FLEET)})", "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Latency of calls (p99)",
            "s",
            "By outcome. EKS Auth usually answers within 0.1 s.",
            "over 0.9 s new pods get 503 first: EKS Auth or the way to it is slow.",
            "PodcredsEksAuthUnavailable",
            (quantile(0.99, CALLS, FLEET, "outcome, le"), "{{outcome}}"),
            log=True,
        ),
        graph(
            "Throttled and failed",
            "percentunit",
            "Shares of all calls.",
            "throttled: who calls so much, and why? Agents slow down by themselves.",
            "PodcredsThrottled",
            (
                share(rate(CALLS + "_count", FLEET + ', outcome="throttled"'), rate(CALLS + "_count", FLEET)),
                "throttled",
            ),
            (
                share(rate(CALLS + "_count", FLEET + ', outcome="unavailable"'), rate(CALLS + "_count", FLEET)),
                "unavailable",
            ),
            limit=0.05,
        ),
        graph(
            "Refusals by EKS Auth's code",
            "reqps",
            "Tokens that EKS Auth has refused, or whose requests it has rejected.",
            "ResourceNotFound: no association. AccessDenied: the role. InvalidParameter for many: the cluster's name.",
            "PodcredsRefusalsSpike",
            (f"sum by (code) ({rate('podcreds_upstream_refusals_total', FLEET)})", "{{code}}"),
            stacked=True,
        ),
        limiter_wait(FLEET),
        graph(
            "Calls that wait for their turn",
            "short",
            "In the rate limiters. asked: a pod waits. refresh: a renewal. doubtful: a token just refused.",
            "asked stays above 0: EKS Auth throttles. refresh does: raise --max-service-qps.",
            "PodcredsThrottled",
            (f"sum by (urgency) (podcreds_limiter_queue{{{FLEET}}})", "{{urgency}}"),
        ),
        graph(
            "Slowest limiters",
            "reqps",
            "Calls a second that an agent lets through, the five lowest. 100 where nothing is throttled.",
            "far below 100: EKS Auth throttles these nodes or was out.",
            "PodcredsThrottled",
            (f"bottomk(5, max by (node) (podcreds_limiter_calls_per_second{{{FLEET}}}))", "{{node}}"),
        ),
        graph(
            "Failures in a row",
            "short",
            "Calls without a usable answer since the last one with, of the ten nodes with most.",
            "one node alone: its role, its clock or its network.",
            "PodcredsNodeCannotReachEksAuth",
            (f"topk(10, max by (node) (podcreds_upstream_consecutive_failures{{{FLEET}}}))", "{{node}}"),
            limit=5,
        ),
    )


def freshness(dashboard):
    return row(
        dashboard,
        "Freshness",
        graph(
            "Nearest expiry by node",
            "s",
            "The ten nodes whose first credentials expire soonest. A saw with teeth of some hours is normal.",
            "below 900 s renewals fail.",
            "PodcredsCredentialsNearExpiry",
            (f"bottomk(10, min by (node) (podcreds_cache_nearest_expiry_seconds{{{FLEET}}} > 0))", "{{node}}"),
        ),
        graph(
            "Renewals overdue",
            "short",
            "Credentials that should have been renewed a minute ago, of the ten nodes with most.",
            "they live on what is left: see EKS Auth, the rate limiter, and the queue for refresh.",
            "PodcredsCredentialsNearExpiry",
            (f"topk(10, max by (node) (podcreds_cache_renewals_overdue{{{FLEET}}}))", "{{node}}"),
        ),
        graph(
            "From first connect to first credentials",
            "s",
            "What new pods wait, with all that they are told to ask again.",
            "far above a call to EKS Auth: associations that come late, or throttling.",
            "PodcredsEksAuthUnavailable",
            *[(quantile(q, FIRST, FLEET), f"p{round(q * 100)}") for q in (0.5, 0.99)],
            log=True,
        ),
        graph(
            "Keys that cannot be fetched",
            "short",
            "Failures in a row to fetch the cluster's token signing keys, of the ten nodes with most.",
            "rotated tokens go to EKS Auth, and delegates wait; readiness has the reason.",
            "PodcredsKeysUnreachable",
            (f"topk(10, max by (node) (podcreds_keys_consecutive_failures{{{FLEET}}}))", "{{node}}"),
            limit=3,
        ),
        graph(
            "Pods whose exchange has failed",
            "short",
            "And is tried again, of the ten nodes with most.",
            "the log names the pods and EKS Auth's words.",
            "PodcredsEksAuthUnavailable",
            (f"topk(10, max by (node) (podcreds_exchanges_backing_off{{{FLEET}}}))", "{{node}}"),
        ),
        graph(
            "Age of credentials from memory",
            "s",
            "At half and at nearly all answers from memory. Renewals start at two thirds of their life, or after 3 h.",
            "p99 over 3 h: pods are served on what is left; renewals wait or fail.",
            "PodcredsCredentialsNearExpiry",
            (quantile(0.5, "podcreds_cache_hit_age_seconds", FLEET), "p50"),
            (quantile(0.99, "podcreds_cache_hit_age_seconds", FLEET), "p99"),
        ),
    )


def nodes(dashboard):
    return row(
        dashboard,
        "Nodes",
        listing(
            "Versions",
            "short",
            "How many agents run which build.",
            "more than one for longer than a rollout: it is stuck.",
            "PodcredsNodesWithoutAgent",
            f"count by (version, revision) (podcreds_build_info{{{FLEET}}})",
        ),
        listing(
            "Paths of each node",
            "short",
            "ebpf: 1 where pods are redirected. node: how many of the host's addresses are listened on.",
            "ebpf 0: the kernel does not say who asks. Both 0: nobody is served.",
            "PodcredsNodePathOnly",
            f"sort(max by (node, path) (podcreds_paths{{{FLEET}}}))",
        ),
        graph(
            "Pods without a working listener",
            "short",
            "unreachable: their loopback is filtered. missing: redirected, never accepted.",
            "the node's log names the pods.",
            "PodcredsListenersUnreachable",
            (f"sum(podcreds_unreachable_listeners{{{FLEET}}})", "unreachable"),
            (f"sum(podcreds_missing_connections{{{FLEET}}})", "missing"),
        ),
        graph(
            "Restarts within an hour",
            "short",
            "How often agents have started, of the ten with most. An update is one.",
            "more than two: look at the last state of the pod.",
            "PodcredsAgentRestarts",
            (f"topk(10, max by (node) (changes(process_start_time_seconds{{{FLEET}}}[1h])))", "{{node}}"),
            limit=3,
        ),
        graph(
            "Memory",
            "bytes",
            "Resident, of the ten agents with most.",
            "over 64 MiB is more than any load explains.",
            "PodcredsMemoryHigh",
            (f"topk(10, max by (node) (process_resident_memory_bytes{{{FLEET}}}))", "{{node}}"),
            limit=64 * 2**20,
        ),
        graph(
            "CPU",
            "percentunit",
            "Of one processor, of the ten agents with most.",
            "find the pod that asks so often: its connections are on the node dashboard.",
            "PodcredsAnswersSlow",
            (f"topk(10, max by (node) ({rate('process_cpu_seconds_total', FLEET)}))", "{{node}}"),
        ),
    )


def dashboard():
    built = board(
        "podcreds-fleet", "podcreds / Fleet", "Do pods get their credentials, and if not, where and why?", several=True
    )
    for part in [overview, objective, traffic, errors, upstream, freshness, nodes]:
        built = part(built)
    return built
