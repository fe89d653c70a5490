{{/* The first part of the objects' names. A release's name may have dots, which the name of a Service has not. */}}
{{- define "kerf.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels that helm's objects have by convention; none of them is in a selector. */}}
{{- define "kerf.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{/* The values of a program's account: (list root "plugin"). */}}
{{- define "kerf.accountValues" -}}
{{- $values := (index . 0).Values -}}
{{- $all := dict "scheduler" $values.scheduler "extender" $values.remote "plugin" $values.plugin "profiles" $values.profiles.account -}}
{{- (get $all (index . 1)).serviceAccount | toYaml -}}
{{- end -}}

{{/* The name of a program's account: (list root "plugin"). */}}
{{- define "kerf.account" -}}
{{- $own := include "kerf.accountValues" . | fromYaml -}}
{{- default (printf "%s-%s" (include "kerf.fullname" (index . 0)) (index . 1)) $own.name -}}
{{- end -}}

{{/* An image's name: (dict "root" root "image" values "tag" default). */}}
{{- define "kerf.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry -}}
{{- if $registry }}{{ $registry }}/{{ end }}{{ .image.repository -}}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ default .tag .image.tag }}{{ end -}}
{{- end -}}

{{/*
Text of manifests/ with the release's names: (list root text). Those of the manifests begin with "kerf-", their accounts are
named after the programs, and their domain is the default one.
*/}}
{{- define "kerf.renamed" -}}
{{- $root := index . 0 -}}
{{- $text := index . 1 -}}
{{- $programs := list "scheduler" "extender" "plugin" "profiles" -}}
{{- /* what is replaced is marked first, so that no name of the release is taken for one of the manifests */ -}}
{{- range $program := $programs -}}
{{- $text = $text | replace (printf "system:serviceaccount:kerf-system:kerf-%s'" $program) (printf "@%s@'" $program) -}}
{{- end -}}
{{- $names := "\\bkerf-(scheduler|extender|plugin|profiles|placement-records|pods|bindings|requests|reserved-nodes|simulated-gpus|alerts|dashboards|priority|prune|viewer)\\b" -}}
{{- $text = regexReplaceAll $names $text "@first@-${1}" -}}
{{- $text = regexReplaceAll "\\bkerf-system\\b" $text "@namespace@" -}}
{{- $text = $text | replace "inspur.com" $root.Values.domain -}}
{{- $text = $text | replace "@first@" (include "kerf.fullname" $root) | replace "@namespace@" $root.Release.Namespace -}}
{{- range $program := $programs -}}
{{- $user := printf "system:serviceaccount:%s:%s" $root.Release.Namespace (include "kerf.account" (list $root $program)) -}}
{{- $text = $text | replace (printf "@%s@'" $program) (printf "%s'" $user) -}}
{{- end -}}
{{- $text -}}
{{- end -}}
