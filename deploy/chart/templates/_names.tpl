{{/* Names and labels. */}}

{{- define "podcreds.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "podcreds.fullname" -}}
{{- $name := include "podcreds.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of one DaemonSet. The suffix is what tells it from the others, so it is kept whole. */}}
{{- define "podcreds.daemonSetName" -}}
{{- $full := include "podcreds.fullname" .root -}}
{{- with .set.nameSuffix -}}
{{- $room := sub 62 (len .) | int -}}
{{- printf "%s-%s" ($full | trunc $room | trimSuffix "-") . -}}
{{- else -}}
{{- $full -}}
{{- end -}}
{{- end -}}

{{- define "podcreds.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "podcreds.fullname" .) "" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "podcreds.selectorLabels" -}}
app.kubernetes.io/name: {{ include "podcreds.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "podcreds.labels" -}}
{{ include "podcreds.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "podcreds.image" -}}
{{- $image := .Values.image -}}
{{- if $image.override -}}
{{- $image.override -}}
{{- else -}}
{{- $name := $image.repository -}}
{{- with $image.containerRegistry -}}
{{- $name = printf "%s/%s" (trimSuffix "/" .) $name -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (include "podcreds.text" ($image.tag | default $.Chart.AppVersion)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A file that points to the runbook, with the runbook's own address. */}}
{{- define "podcreds.withRunbook" -}}
{{- .text | replace "docs/runbook.md" (.root.Values.runbookUrl | default "docs/runbook.md") -}}
{{- end -}}
