{{/* Names. */}}
{{- define "sluice.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "sluice.fullname" -}}
{{- $name := include "sluice.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sluice.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sluice.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The reporter's own account where accounts are made here; else the one that there is. */}}
{{- define "sluice.reporterAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- printf "%s-reporter" (include "sluice.serviceAccountName" .) | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- include "sluice.serviceAccountName" . -}}
{{- end -}}
{{- end -}}

{{/* Labels. A DaemonSet's selector can never change, so only what never changes is in it. */}}
{{- define "sluice.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sluice.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sluice.labels" -}}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sluice.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* One in a cluster. */}}
{{- define "sluice.reporterArguments" -}}
- --kubernetes
- --report
- --metrics-bind-address={{ .Values.reporter.bindAddress }}:{{ .Values.metrics.port }}
- --log={{ .Values.logFormat }}
{{- end -}}

{{/* The agents' own: pods of the DaemonSet that uninstalls are not among them. */}}
{{- define "sluice.agentLabels" -}}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/component: agent
{{- end -}}

{{/* Where control serves health and metrics: as near as whoever asks allows. */}}
{{- define "sluice.isScraped" -}}
{{- if or .Values.metrics.annotations .Values.metrics.serviceMonitor.enabled }}true{{ end -}}
{{- end -}}

{{- define "sluice.bindAddress" -}}
{{- default (ternary "$(HOST_IP)" "127.0.0.1" (eq (include "sluice.isScraped" .) "true")) .Values.metrics.bindAddress -}}
{{- end -}}

{{/* The kubelet asks from the node itself: on the pod's address, which is the node's, unless only loopback is listened on. */}}
{{- define "sluice.probeAddress" -}}
port: {{ .Values.metrics.port }}
{{- $address := include "sluice.bindAddress" . }}
{{- if or (hasPrefix "127." $address) (eq $address "[::1]") }}
host: {{ trimSuffix "]" (trimPrefix "[" $address) | quote }}
{{- end }}
{{- end -}}

{{/* What the two processes are told. */}}
{{- define "sluice.dataplaneArguments" -}}
- --workers={{ .Values.dataplane.workers }}
{{- with .Values.dataplane.cpus }}
- --cpus={{ join "," . }}
{{- end }}
- --established={{ .Values.dataplane.established }}
- --direct={{ .Values.dataplane.direct }}
{{- if .Values.dataplane.failOpen }}
- --fail-open
{{- end }}
- --existing-pods={{ .Values.dataplane.existingPods }}
- --control-user=65532:65532
- --proc-sys-net=/host/proc/sys/net
- --log={{ .Values.logFormat }}
{{- with .Values.dataplane.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sluice.controlArguments" -}}
- --kubernetes
- --node-name=$(NODE_NAME)
- --tell-status
- --metrics-bind-address={{ include "sluice.bindAddress" . }}:{{ .Values.metrics.port }}
- --log={{ .Values.logFormat }}
{{- with .Values.control.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}
