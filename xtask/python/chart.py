"""Renders the chart with Helm, and holds the result against the schemas of Kubernetes.

    chart.py manifests CHART FOLDER   for each NAME.values.yaml in the folder: writes NAME.yaml
    chart.py lint CHART               what Helm has against it; 1 if there is anything
    chart.py check CHART < requests   as JSON what each request renders to, and what is wrong with it

A request is {"name": ..., "values": {...}, "versions": ["1.34.0", ...]}. Its answer has "manifests" as objects and as "text", the
"notes", and "complaints".
"""

import json
import pathlib
import sys

import helm_python
import kubernetes_validate
import yaml

RELEASE = "podcreds"
NAMESPACE = "kube-system"
NOTES = "NOTES.txt"
# Labels by which Helm and others know what Helm has installed.
OF_HELM = ("app.kubernetes.io/managed-by:", "helm.sh/chart:")
# Helm's lowest severity.
HINT = 1
# What others need comes first.
ORDER = ["serviceaccount", "rbac", "metrics", "prometheusrule", "dashboards", "daemonsets"]
HEADER = """\
# Rendered from the chart in deploy/chart by `cargo xtask chart`: a change belongs there.
# CLUSTER_NAME{region} must be replaced, and so must the image by one in a registry of yours.
"""


def place(template):
    stem = pathlib.Path(template).stem
    return ORDER.index(stem) if stem in ORDER else len(ORDER)


def render(chart, values):
    """The text of all manifests, and the notes."""
    texts = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    notes = "".join(text for name, text in texts.items() if name.endswith(NOTES))
    parts = [
        part.strip()
        for name in sorted(texts, key=place)
        if not name.endswith(NOTES)
        for part in ("\n" + texts[name]).split("\n---")
        if part.strip()
    ]
    return "\n---\n".join(parts) + "\n", notes


def without_helm(text):
    """The same manifests for those who install them in another way."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.lstrip().startswith(OF_HELM))


def write_manifests(chart, folder):
    for path in sorted(pathlib.Path(folder).glob("*.values.yaml")):
        values = yaml.safe_load(path.read_text())
        text, _ = render(chart, values)
        header = HEADER.format(region=" and REGION" if "env" in values else "")
        path.with_name(path.name.replace(".values", "")).write_text(header + without_helm(text))


def complaints(manifest, version):
    """What the schema of a version of Kubernetes has against a manifest."""
    # Custom resources are in no schema of Kubernetes.
    if not manifest["apiVersion"].startswith("monitoring.coreos.com/"):
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            yield f"{version}: {manifest['kind']}: {path}: {error.message}"


def check(chart, request):
    answer = {"name": request["name"], "text": "", "notes": "", "manifests": [], "complaints": []}
    try:
        chart.validate_schema(request["values"])
        answer["text"], answer["notes"] = render(chart, request["values"])
    except helm_python.HelmError as error:
        answer["complaints"].append(str(error))
        return answer
    answer["manifests"] = list(yaml.safe_load_all(answer["text"]))
    for version in request["versions"]:
        for manifest in answer["manifests"]:
            answer["complaints"].extend(complaints(manifest, version))
    return answer


def lint(path):
    """Prints Helm's findings, and says whether there are any."""
    messages = helm_python.lint(path, {"clusterName": "lint"})["messages"]
    findings = [message for message in messages if message["severity"] > HINT]
    for finding in findings:
        print(f"{finding['path']}: {finding['error']}")
    return bool(findings)


def main():
    command, path, *rest = sys.argv[1:]
    if command == "lint":
        sys.exit(lint(path))
    with helm_python.Chart.load(path) as chart:
        if command == "manifests":
            write_manifests(chart, *rest)
        elif command == "check":
            requests = json.load(sys.stdin)
            json.dump([check(chart, request) for request in requests], sys.stdout)
        else:
            sys.exit(__doc__)


main()
