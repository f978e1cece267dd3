{{/* The agent's container: what it sees of the host, and how kubelet asks it how it is. */}}
{{- define "podcreds.container" -}}
{{- $values := .root.Values -}}
{{- $command := include "podcreds.command" $values.agent.command -}}
{{- $told := .told -}}
{{- $capabilities := include "podcreds.capabilities" $told | fromYaml -}}
{{- $region := toString ($values.env.AWS_REGION | default "") -}}
name: agent
image: {{ include "podcreds.image" .root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
{{- with $command }}
command: {{ . }}
{{- end }}
args:
  {{- if not $command }}
  - server
  {{- end }}
  {{- include "podcreds.serverFlags" . | fromJson | include "podcreds.flags" | trim | nindent 2 }}
{{- if or $values.env (contains "-iso" $region) }}
env:
  {{- range $name, $value := $values.env }}
  - name: {{ $name | quote }}
    value: {{ include "podcreds.text" $value | quote }}
  {{- end }}
  {{- if contains "-iso" $region }}
  - name: SSL_CERT_FILE
    value: /etc/pki/tls/certs/ca-bundle.crt
  {{- end }}
{{- end }}
# Root without the capabilities that are not named here, since Kubernetes gives capabilities to nobody else.
{{- range $name, $purpose := $capabilities }}
# {{ $name }}: {{ $purpose }}
{{- end }}
securityContext:
  {{- include "podcreds.serverSecurity" . | nindent 2 }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
{{- with include "podcreds.probes" . | trim }}
{{ . }}
{{- end }}
volumeMounts:
  - name: probe
    mountPath: /run/probe
  {{- if ne (get $told "handover-dir") "none" }}
  - name: handover
    mountPath: /run/podcreds
  {{- else }}
  - name: admin
    mountPath: /run
  {{- end }}
  {{- if include "podcreds.mountsCgroups" . }}
  - name: cgroup
    mountPath: {{ include "podcreds.cgroupFolder" $told }}
    readOnly: true
  {{- end }}
  {{- if include "podcreds.mountsKubelet" . }}
  - name: kubelet
    mountPath: {{ get $told "kubelet-root" }}
    # New pods' tokens are mounts that come later.
    mountPropagation: HostToContainer
    readOnly: true
  {{- end }}
  {{- if contains "-iso" $region }}
  - name: ca-bundle
    mountPath: /etc/pki/tls/certs/ca-bundle.crt
    readOnly: true
  {{- end }}
  {{- with .set.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* How kubelet asks the agent how it is. */}}
{{- define "podcreds.probes" -}}
{{- $agent := .root.Values.agent -}}
{{- if $agent.readinessEndpoint }}
# While two agents overlap, the port for probes is the older one's. The socket is this container's own: through it kubelet asks
# whether *this* agent serves pods, until it does for the first time. The port is cheaper, and is asked from then on.
startupProbe:
  exec:
    command: [/podcreds, probe, --socket=/run/probe/agent.sock, {{ $agent.readinessEndpoint }}]
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 300
readinessProbe:
  httpGet:
    host: 127.0.0.1
    path: {{ $agent.readinessEndpoint }}
    port: {{ get .told "probe-port" }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}
{{- if $agent.livenessEndpoint }}
# Through the socket, which no other program of the node can flood or listen on. An agent that stands still is killed 21 seconds
# later at most: 5 until it is asked for the first time, 3 that each of the three questions takes it to fail, and 3 to end.
livenessProbe:
  exec:
    command: [/podcreds, probe, --socket=/run/probe/agent.sock, {{ $agent.livenessEndpoint }}]
  periodSeconds: 5
  timeoutSeconds: 4
  failureThreshold: 3
  terminationGracePeriodSeconds: 3
{{- end }}
{{- end -}}
