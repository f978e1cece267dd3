{{/* The command lines of both containers. */}}

{{/* A value as it was written, and nothing for none. Helm keeps numbers as floats, which would be printed as 1e+06. */}}
{{- define "podcreds.text" -}}
{{- if has (kindOf .) (list "float64" "int64" "int") -}}
{{- toJson . -}}
{{- else if not (kindIs "invalid" .) -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/*
Flags and their values as a list. "true" is a switch, "false" is none, and a list is a flag that comes more
than once.
*/}}
{{- define "podcreds.flags" -}}
{{- range $flag, $value := . -}}
{{- if kindIs "slice" $value -}}
{{- range $value }}
- {{ printf "%s=%s" $flag (include "podcreds.text" .) | quote }}
{{- end -}}
{{- else -}}
{{- $text := include "podcreds.text" $value -}}
{{- if has $text (list "" "true") }}
- {{ $flag | quote }}
{{- else if ne $text "false" }}
- {{ printf "%s=%s" $flag $text | quote }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A command as a list or as the text of one. That of AWS's agent is in AWS's image only. */}}
{{- define "podcreds.command" -}}
{{- if kindIs "slice" . -}}
{{- toJson . -}}
{{- else if not (contains "/go-runner" .) -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* What the server is told: the chart's flags, the user's, and those of this kind of node; the last one wins. */}}
{{- define "podcreds.serverFlags" -}}
{{- $values := .root.Values -}}
{{- $name := required "clusterName is required: the name of the EKS cluster" $values.clusterName -}}
{{- $flags := dict "--cluster-name" $name "--datapath" $values.datapath -}}
{{- /* What is optional is not named where it is the default: without what was named the agent does not start. */ -}}
{{- if not $values.handover.enabled }}{{ $_ := set $flags "--handover-dir" "none" }}{{ end -}}
{{- if ne (int $values.metrics.port) 2705 }}{{ $_ := set $flags "--metrics-port" $values.metrics.port }}{{ end -}}
{{- if ne (int $values.agent.probePort) 2703 }}{{ $_ := set $flags "--probe-port" $values.agent.probePort }}{{ end -}}
{{- $_ := set $flags "--probe-socket" "/run/probe/agent.sock" -}}
{{- with $values.delegates }}{{ $_ := set $flags "--delegate" . }}{{ end -}}
{{- with $values.clusterKeys.url }}{{ $_ := set $flags "--jwks-url" . }}{{ end -}}
{{- $short := dict "-b" "--bind-hosts" "-c" "--cluster-name" "-p" "--port" "-v" "--verbosity" -}}
{{- range $given := list $values.agent.additionalArgs .set.additionalArgs -}}
{{- range $flag, $value := $given -}}
{{- $_ := set $flags (get $short $flag | default $flag) $value -}}
{{- end -}}
{{- end -}}
{{- /* "podcreds status" looks for agents there, wherever and whether they hand over. */ -}}
{{- if and (hasKey $flags "--handover-dir") (not (hasKey $flags "--admin-dir")) -}}
{{- $_ := set $flags "--admin-dir" "/run/podcreds" -}}
{{- end -}}
{{- toJson $flags -}}
{{- end -}}
