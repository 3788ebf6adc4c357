{{/* The name everything is called by: the release's, with "larder" in it. What is
put behind it has to fit into 52 characters, for a StatefulSet's pods. */}}
{{- define "larder.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "larder" $name) -}}
{{- $name = printf "%s-larder" (trunc 33 $name | trimSuffix "-") -}}
{{- end -}}
{{- trunc 40 $name | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that select a role's pods: (list $ "mirror"). */}}
{{- define "larder.selector" -}}
app.kubernetes.io/name: larder
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a role's objects: (list $ "mirror"). */}}
{{- define "larder.labels" -}}
{{ include "larder.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/part-of: larder
{{- end -}}

{{- define "larder.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* What every container here is confined to. */}}
{{- define "larder.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What every pod without root is confined to. */}}
{{- define "larder.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The Go runtime stays within what the container was promised; what lies
above, up to the limit, is for pages of files. */}}
{{- define "larder.memory" -}}
- name: GOMEMLIMIT
  valueFrom:
    resourceFieldRef: {resource: requests.memory}
{{- end -}}

{{/* Whether others than the node may ask the admin ports. */}}
{{- define "larder.exposed" -}}
{{- if or .Values.metrics.expose .Values.metrics.operator -}}true{{- end -}}
{{- end -}}

{{/* The registry's configuration file: with its ingress's name as the one
tokens are had by. */}}
{{- define "larder.centralConfig" -}}
{{- $config := deepCopy .Values.central.config -}}
{{- with .Values.central.ingress -}}
{{- if and .host .tlsSecret -}}
{{- $config = mustMerge $config (dict "central" (dict "tokens" (dict "public_url" (printf "https://%s" .host)))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The webhook's configuration file: with the names this release has. */}}
{{- define "larder.webhookConfig" -}}
{{- $name := printf "%s-webhook" (include "larder.name" .) -}}
{{- $source := "self" -}}
{{- if ne .Values.webhook.certificate.source "self" -}}{{- $source = "files" -}}{{- end -}}
{{- $names := dict "webhook" (dict "certificate" $source "registration" $name "secret" (printf "%s-authority" $name)) -}}
{{- toYaml (mustMergeOverwrite (deepCopy .Values.webhook.config) $names) -}}
{{- end -}}

{{/* What the schema cannot say. Each message names the value. */}}
{{- define "larder.check" -}}
{{- with .Values -}}
{{- if eq (int .mirror.port) (int .mirror.adminPort) -}}
{{- fail (printf "mirror.adminPort: %d is mirror.port already; the two need different ports" (int .mirror.adminPort)) -}}
{{- end -}}
{{- if and .init.undo (not .mirror.enabled) -}}
{{- fail "init.undo: nothing is taken back while mirror.enabled is false" -}}
{{- end -}}
{{- if and .central.ingress.tlsSecret (not .central.ingress.host) -}}
{{- fail "central.ingress.host: it is empty; write the name clients know the registry by, since central.ingress.tlsSecret is set" -}}
{{- end -}}
{{- if and (eq .webhook.certificate.source "secret") (not .webhook.certificate.secretName) -}}
{{- fail "webhook.certificate.secretName: it is empty; name the Secret of type kubernetes.io/tls, since webhook.certificate.source is secret" -}}
{{- end -}}
{{- if and (eq .webhook.certificate.source "secret") (not .webhook.certificate.caBundle) -}}
{{- fail "webhook.certificate.caBundle: it is empty, and the API server would trust no certificate; write the authority in PEM, since webhook.certificate.source is secret" -}}
{{- end -}}
{{- if and (eq .webhook.failurePolicy "Fail") (lt (int .webhook.replicas) 2) -}}
{{- fail "webhook.replicas: 1 is too few where webhook.failurePolicy is Fail; no pod could be made while it restarts" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Secrets by name, as volumes and where they are mounted. */}}
{{- define "larder.secretVolumes" -}}
{{- $volumes := list -}}
{{- range . -}}
{{- $volumes = append $volumes (dict "name" (printf "secret-%s" (replace "." "-" .)) "secret" (dict "secretName" .)) -}}
{{- end -}}
{{- toYaml $volumes -}}
{{- end -}}

{{- define "larder.secretMounts" -}}
{{- $mounts := list -}}
{{- range . -}}
{{- $mounts = append $mounts (dict "name" (printf "secret-%s" (replace "." "-" .)) "mountPath" (printf "/etc/larder-secrets/%s" .) "readOnly" true) -}}
{{- end -}}
{{- toYaml $mounts -}}
{{- end -}}
