{{/* How one agent follows another. */}}

{{/*
Of the two, Kubernetes wants one to be 0 and the other one not to be, and takes maxSurge for 0 and maxUnavailable for 1 where
nothing is said.
*/}}
{{- define "podcreds.rollingUpdate" -}}
{{- $rolling := deepCopy (. | default (dict "maxSurge" 1)) -}}
{{- $surge := get $rolling "maxSurge" | include "podcreds.text" -}}
{{- $unavailable := get $rolling "maxUnavailable" | include "podcreds.text" -}}
{{- $zero := list "0" "0%" -}}
{{- if and (not $unavailable) $surge (not (has $surge $zero)) -}}
{{- $_ := set $rolling "maxUnavailable" 0 -}}
{{- else if and (not $surge) (has $unavailable $zero) -}}
{{- $_ := set $rolling "maxSurge" 1 -}}
{{- end -}}
{{- toYaml $rolling -}}
{{- end -}}
