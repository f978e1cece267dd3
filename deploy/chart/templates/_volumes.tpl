{{/* The folders of the host that the agent sees, and those of its own. */}}
{{- define "podcreds.volumes" -}}
{{- $values := .root.Values -}}
{{- $told := .told -}}
- name: probe
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- if ne (get $told "handover-dir") "none" }}
# Where an agent hands its credentials over to the next one, through a socket and from memory to memory.
- name: handover
  hostPath:
    path: {{ $values.handover.hostPath }}
    type: DirectoryOrCreate
{{- else }}
# In it the agent makes a folder that only root may write to, and "podcreds status" asks it there.
- name: admin
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- if include "podcreds.mountsCgroups" . }}
# Where kubelet makes a cgroup for each pod.
- name: cgroup
  hostPath:
    path: {{ include "podcreds.cgroupFolder" $told }}
    type: Directory
{{- end }}
{{- if include "podcreds.mountsKubelet" . }}
# Where kubelet mounts pods' tokens.
- name: kubelet
  hostPath:
    path: {{ get $told "kubelet-root" }}
    type: Directory
{{- end }}
{{- if contains "-iso" (toString ($values.env.AWS_REGION | default "")) }}
- name: ca-bundle
  hostPath:
    path: /etc/pki/tls/certs/ca-bundle.crt
    type: File
{{- end }}
{{- with .set.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where the agent sees the host's cgroups: all of them, unless it is to look elsewhere. */}}
{{- define "podcreds.cgroupFolder" -}}
{{- $root := get . "cgroup-root" -}}
{{- ternary "/sys/fs/cgroup" $root (hasPrefix "/sys/fs/cgroup/" (printf "%s/" $root)) -}}
{{- end -}}
