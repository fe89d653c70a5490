{{/* Applies the values of a program's pods: (dict "root" root "object" Deployment "values" values).
With "extends" the nodes need the labels of the manifests as well. */}}
{{- define "kerf.pods" -}}
{{- $template := .object.spec.template -}}
{{- $pod := $template.spec -}}
{{- $annotations := merge (dict) (default dict .values.podAnnotations) (default dict $template.metadata.annotations) -}}
{{- if $annotations }}{{ $_ := set $template.metadata "annotations" $annotations }}{{ end -}}
{{- /* what selectors match stays */ -}}
{{- $_ := set $template.metadata "labels" (merge (dict) $template.metadata.labels (default dict .values.podLabels)) -}}
{{- if .root.Values.global.imagePullSecrets -}}
{{- $_ := set $pod "imagePullSecrets" .root.Values.global.imagePullSecrets -}}
{{- end -}}
{{- $selector := merge (dict) (default dict .values.nodeSelector) (and .extends $pod.nodeSelector | default dict) -}}
{{- if $selector }}{{ $_ := set $pod "nodeSelector" $selector }}{{ else }}{{ $_ := unset $pod "nodeSelector" }}{{ end -}}
{{- if .values.tolerations -}}
{{- $_ := set $pod "tolerations" (concat (default list $pod.tolerations) .values.tolerations) -}}
{{- end -}}
{{- if .values.affinity }}{{ $_ := set $pod "affinity" .values.affinity }}{{ end -}}
{{- if .values.priorityClassName -}}
{{- $_ := set $pod "priorityClassName" .values.priorityClassName -}}
{{- else }}{{ $_ := unset $pod "priorityClassName" }}{{ end -}}
{{- end -}}

{{/* Applies the values of a container: (dict "root" root "container" container "image" values "tag" default "values" values). */}}
{{- define "kerf.container" -}}
{{- $container := .container -}}
{{- $_ := set $container "image" (include "kerf.image" .) -}}
{{- $_ := set $container "imagePullPolicy" .image.pullPolicy -}}
{{- $_ := set $container "resources" .values.resources -}}
{{- if not .values.resources }}{{ $_ := unset $container "resources" }}{{ end -}}
{{- $_ := include "kerf.arguments" (list $container (default list .values.extraArgs)) -}}
{{- $env := list -}}
{{- range $variable := $container.env -}}
{{- $again := false -}}
{{- range $own := default list $.values.extraEnv }}{{ if eq $own.name $variable.name }}{{ $again = true }}{{ end }}{{ end -}}
{{- if not $again }}{{ $env = append $env $variable }}{{ end -}}
{{- end -}}
{{- $env = concat $env (default list .values.extraEnv) -}}
{{- if $env }}{{ $_ := set $container "env" $env }}{{ end -}}
{{- end -}}

{{/* Adds flags to a container's, in the place of those of the same name, with one dash or two: (list container flags). */}}
{{- define "kerf.arguments" -}}
{{- $container := index . 0 -}}
{{- $more := index . 1 -}}
{{- $names := list -}}
{{- range $own := $more }}{{ $names = append $names (regexFind "[^-=][^=]*" $own) }}{{ end -}}
{{- $arguments := list -}}
{{- range $argument := $container.args -}}
{{- if not (has (regexFind "[^-=][^=]*" $argument) $names) }}{{ $arguments = append $arguments $argument }}{{ end -}}
{{- end -}}
{{- $_ := set $container "args" (concat $arguments $more) -}}
{{- end -}}

{{/* Applies the values about the hosts of a plugin to its pod: (list root pod seLinuxType). */}}
{{- define "kerf.host" -}}
{{- $values := (index . 0).Values -}}
{{- $pod := index . 1 -}}
{{- $type := index . 2 -}}
{{- if $type }}{{ $_ := set $pod.securityContext "seLinuxOptions" (dict "type" $type) }}
{{- else }}{{ $_ := unset $pod.securityContext "seLinuxOptions" }}{{ end -}}
{{- range $volume := $pod.volumes -}}
{{- if eq $volume.name "features" }}{{ $_ := set $volume.hostPath "path" $values.nfdFeaturesDir }}{{ end -}}
{{- if eq $volume.name "pod-resources" }}{{ $_ := set $volume.hostPath "path" (printf "%s/pod-resources" $values.kubeletDir) }}{{ end -}}
{{- end -}}
{{- end -}}
