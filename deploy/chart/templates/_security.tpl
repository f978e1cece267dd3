{{/* What the agent may do. */}}

{{/* The agent's capabilities, and what each of them is for. */}}
{{- define "podcreds.capabilities" -}}
{{- if ne .datapath "node" }}
BPF: load the programs that redirect pods
NET_ADMIN: attach them
SYS_ADMIN: enter the pods' network namespaces, to listen there
SYS_PTRACE: see which network namespace a pod's process is in
{{- end }}
{{- if ne .datapath "ebpf" }}
NET_BIND_SERVICE: listen on port 80 of the host's addresses
{{- end }}
{{- if .delegate }}
DAC_READ_SEARCH: read the tokens that kubelet has mounted for other users
{{- end }}
{{- end -}}

{{- define "podcreds.serverSecurity" -}}
{{- $capabilities := include "podcreds.capabilities" .told | fromYaml | keys | sortAlpha -}}
{{- $security := include "podcreds.security" (dict "root" .root "capabilities" $capabilities) | fromYaml -}}
{{- /* The usual AppArmor profile lets no process look at those of another profile, which pods' processes are. */ -}}
{{- if ne .told.datapath "node" -}}
{{- $_ := set $security "appArmorProfile" (dict "type" "Unconfined") -}}
{{- end -}}
{{- mergeOverwrite $security (deepCopy (.set.additionalSecurityContext | default dict)) | toYaml -}}
{{- end -}}

{{/* Root with these capabilities only, on a root file system that cannot be written to. */}}
{{- define "podcreds.security" -}}
runAsUser: 0
runAsGroup: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: {{ toJson .capabilities }}
seccompProfile:
  type: RuntimeDefault
{{- with .root.Values.seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
