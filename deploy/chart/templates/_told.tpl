{{/* What the agent is told and the manifest has to say as well. */}}

{{/* By flag, without its dashes, the value that it has in the end, whether by the chart's values or by additionalArgs. */}}
{{- define "podcreds.told" -}}
{{- $flags := include "podcreds.serverFlags" . | fromJson -}}
{{- $defaults := dict
  "admin-dir" "/run/podcreds"
  "cgroup-root" "/sys/fs/cgroup"
  "datapath" "auto"
  "delegate" ""
  "handover-dir" "/run/podcreds"
  "kubelet-root" "/var/lib/kubelet"
  "metrics-port" "2705"
  "probe-port" "2703"
  "probe-socket" ""
  "shutdown-grace-period" "20s"
-}}
{{- $told := dict -}}
{{- range $name, $default := $defaults -}}
{{- $value := get $flags (printf "--%s" $name) -}}
{{- if kindIs "slice" $value }}{{ $value = last $value }}{{ end -}}
{{- $text := include "podcreds.text" $value -}}
{{- $_ := set $told $name (ternary $default $text (has $text (list "" "true" "false"))) -}}
{{- end -}}
{{- toJson $told -}}
{{- end -}}

{{/* Fails where the manifest cannot follow. */}}
{{- define "podcreds.checkTold" -}}
{{- $agent := .root.Values.agent -}}
{{- $asked := or $agent.readinessEndpoint $agent.livenessEndpoint -}}
{{- if and $asked (ne (get .told "probe-socket") "/run/probe/agent.sock") -}}
{{- fail "additionalArgs: leave --probe-socket out, the chart has one of its own for its probes" -}}
{{- end -}}
{{- if ne (get .told "handover-dir") "none" -}}
{{- include "podcreds.checkFolder" (dict "context" . "flag" "handover-dir" "own" "/run/podcreds") -}}
{{- include "podcreds.checkFolder" (dict "context" . "flag" "admin-dir" "own" "/run/podcreds") -}}
{{- else -}}
{{- include "podcreds.checkFolder" (dict "context" . "flag" "admin-dir" "own" "/run") -}}
{{- end -}}
{{- end -}}

{{/* A folder that the agent makes has to be in a volume, the chart's own or one of the user's. */}}
{{- define "podcreds.checkFolder" -}}
{{- $folder := get .context.told .flag -}}
{{- $own := list (dict "mountPath" .own) (dict "mountPath" "/run/probe") -}}
{{- $mounts := concat $own (.context.set.volumeMounts | default list) -}}
{{- if and (ne $folder "none") (not (include "podcreds.isMounted" (dict "folder" $folder "mounts" $mounts))) -}}
{{- $ways := "use handover.hostPath, or mount a volume there with volumes and volumeMounts of daemonsets" -}}
{{- fail (printf "additionalArgs: --%s=%s is in no volume: %s" .flag $folder $ways) -}}
{{- end -}}
{{- end -}}

{{/* Not empty where a folder is in one of these mounts. */}}
{{- define "podcreds.isMounted" -}}
{{- $folder := printf "%s/" .folder -}}
{{- range .mounts -}}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $folder }}yes{{ end -}}
{{- end -}}
{{- end -}}

{{/* Not empty where the agent is to see the host's cgroups, and no volume of the user's has them. */}}
{{- define "podcreds.mountsCgroups" -}}
{{- $own := dict "folder" (include "podcreds.cgroupFolder" .told) "mounts" .set.volumeMounts -}}
{{- if and (ne .told.datapath "node") (not (include "podcreds.isMounted" $own)) }}yes{{ end -}}
{{- end -}}

{{/* The same for kubelet's folder, which only delegates need. */}}
{{- define "podcreds.mountsKubelet" -}}
{{- $own := dict "folder" (get .told "kubelet-root") "mounts" .set.volumeMounts -}}
{{- if and .told.delegate (not (include "podcreds.isMounted" $own)) }}yes{{ end -}}
{{- end -}}
