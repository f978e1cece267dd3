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

{{/* What kubelet has to give an agent that ends, in seconds: what it takes itself, and some more. */}}
{{- define "podcreds.gracePeriod" -}}
{{- $text := get .told "shutdown-grace-period" | nospace -}}
{{- /* The agent knows units by longer names, too. */ -}}
{{- range $unit, $names := dict "h" "(hours?|hrs?)" "m" "min(ute)?s?" "s" "sec(ond)?s?" -}}
{{- $text = regexReplaceAll $names $text $unit -}}
{{- end -}}
{{- if regexMatch "^[0-9]+$" $text }}{{ $text = printf "%ss" $text }}{{ end -}}
{{- if not (regexMatch "^([0-9]+(h|m|s|ms))+$" $text) -}}
{{- fail (printf "additionalArgs: --shutdown-grace-period=%s is not written like 90s or 1m30s" $text) -}}
{{- end -}}
{{- $start := mustToDate "2006-01-02" "1970-01-01" -}}
{{- $seconds := sub (mustDateModify $text $start | unixEpoch) (unixEpoch $start) -}}
{{- add $seconds 10 | max 30 -}}
{{- end -}}
