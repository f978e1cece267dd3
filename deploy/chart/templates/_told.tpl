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
{{- if ne (get .told "probe-socket") "/run/probe/agent.sock" -}}
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
{{- $mounts := list .own -}}
{{- range .context.set.volumeMounts }}{{ $mounts = append $mounts .mountPath }}{{ end -}}
{{- $found := eq $folder "none" -}}
{{- range $mounts -}}
{{- $found = or $found (hasPrefix (printf "%s/" (trimSuffix "/" .)) (printf "%s/" $folder)) -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "additionalArgs: --%s=%s is in no volume, but %s is: see handover.hostPath" .flag $folder .own) -}}
{{- end -}}
{{- end -}}
