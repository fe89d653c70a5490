{{/*
What the manifests say. The chart has no copy of them: files/ is manifests/, whose objects are read here, and whose
kustomizations' patches are applied to them. Templates can return text only, so these work on a stage,
(dict "root" root "objects" list), and change it.
*/}}

{{/* Adds the objects of files: (dict "stage" stage "paths" list). */}}
{{- define "kerf.read" -}}
{{- range $path := .paths -}}
{{- $text := $.stage.root.Files.Get (printf "files/%s" $path) -}}
{{- if not $text }}{{ fail (printf "the chart has no files/%s" $path) }}{{ end -}}
{{- range $document := regexSplit "(?m)^---$" $text -1 -}}
{{- $object := fromYaml $document -}}
{{- if hasKey $object "Error" }}{{ fail (printf "files/%s: %s" $path $object.Error) }}{{ end -}}
{{- if and $object (ne $object.kind "Namespace") -}}
{{- $_ := set $.stage "objects" (append $.stage.objects $object) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Applies one operation of a JSON patch, `add` or `replace`, in a list `add` at its end: (list object operation). */}}
{{- define "kerf.operation" -}}
{{- $at := index . 0 -}}
{{- $operation := index . 1 -}}
{{- $keys := splitList "/" (trimPrefix "/" $operation.path) -}}
{{- $holder := dict -}}
{{- $name := "" -}}
{{- range $key := initial $keys -}}
{{- if kindIs "slice" $at -}}
{{- $at = index $at (int $key) -}}
{{- else -}}
{{- $holder = $at -}}
{{- $name = $key | replace "~1" "/" | replace "~0" "~" -}}
{{- $at = get $holder $name -}}
{{- end -}}
{{- end -}}
{{- $key := last $keys | replace "~1" "/" | replace "~0" "~" -}}
{{- if and (kindIs "slice" $at) (eq $key "-") -}}
{{- $_ := set $holder $name (append $at $operation.value) -}}
{{- else if kindIs "slice" $at -}}
{{- $changed := list -}}
{{- range $index, $value := $at -}}
{{- if eq $index (int $key) }}{{ $changed = append $changed $operation.value }}{{ else }}{{ $changed = append $changed $value }}{{ end -}}
{{- end -}}
{{- $_ := set $holder $name $changed -}}
{{- else -}}
{{- $_ := set $at $key $operation.value -}}
{{- end -}}
{{- end -}}

{{/* Applies the JSON patches of kustomizations: (dict "stage" stage "paths" list). Other patches have no list. */}}
{{- define "kerf.patch" -}}
{{- range $path := .paths -}}
{{- $kustomization := $.stage.root.Files.Get (printf "files/%s/kustomization.yaml" $path) | fromYaml -}}
{{- range $patch := $kustomization.patches -}}
{{- range $object := $.stage.objects -}}
{{- $kind := regexMatch (printf "^(%s)$" $patch.target.kind) $object.kind -}}
{{- if and $kind (regexMatch (printf "^(%s)$" (default ".*" $patch.target.name)) $object.metadata.name) -}}
{{- range $operation := fromYamlArray $patch.patch -}}
{{- $_ := include "kerf.operation" (list $object $operation) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Keeps the objects whose `kind/name` does not match: (dict "stage" stage "without" expression). */}}
{{- define "kerf.drop" -}}
{{- $kept := list -}}
{{- range $object := .stage.objects -}}
{{- if not (regexMatch (printf "^(%s)$" $.without) (printf "%s/%s" $object.kind $object.metadata.name)) -}}
{{- $kept = append $kept $object -}}
{{- end -}}
{{- end -}}
{{- $_ := set .stage "objects" $kept -}}
{{- end -}}

{{/* Gives the objects the release's names, and applies the values of accounts: stage. */}}
{{- define "kerf.own" -}}
{{- $root := .root -}}
{{- $fullname := include "kerf.fullname" $root -}}
{{- $accounts := dict -}}
{{- range $program := list "scheduler" "extender" "plugin" "profiles" -}}
{{- $_ := set $accounts (printf "%s-%s" $fullname $program) $program -}}
{{- end -}}
{{- $objects := list -}}
{{- range $old := .objects -}}
{{- $object := include "kerf.renamed" (list $root (toYaml $old)) | fromYaml -}}
{{- if eq $object.metadata.name "kerf" }}{{ $_ := set $object.metadata "name" $fullname }}{{ end -}}
{{- if $object.subjects -}}
{{- range $subject := $object.subjects -}}
{{- $program := get $accounts $subject.name -}}
{{- if $program }}{{ $_ := set $subject "name" (include "kerf.account" (list $root $program)) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if eq $object.kind "FlowSchema" -}}
{{- if eq $object.spec.priorityLevelConfiguration.name "kerf" -}}
{{- $_ := set $object.spec.priorityLevelConfiguration "name" $fullname -}}
{{- end -}}
{{- range $rule := $object.spec.rules }}{{ range $subject := $rule.subjects -}}
{{- $_ := set $subject.serviceAccount "name" (include "kerf.account" (list $root (get $accounts $subject.serviceAccount.name))) -}}
{{- end }}{{ end -}}
{{- else if or (eq $object.kind "CSIStorageCapacity") (and (eq $object.kind "Role") (has "csistoragecapacities" (index $object.rules 0).resources)) -}}
{{- /* the extender knows this one object by its name */ -}}
{{- if eq $object.kind "Role" }}{{ $_ := set (index $object.rules 0) "resourceNames" (index $old.rules 0).resourceNames }}
{{- else -}}
{{- /* whose class no upgrade could change */ -}}
{{- $_ := set $object.metadata "name" $old.metadata.name -}}
{{- $_ := set $object "storageClassName" $old.storageClassName -}}
{{- end -}}
{{- end -}}
{{- if or (eq $object.kind "DaemonSet") (eq $object.kind "Deployment") -}}
{{- $pod := $object.spec.template.spec -}}
{{- if $pod.serviceAccountName -}}
{{- $_ := set $pod "serviceAccountName" (include "kerf.account" (list $root (get $accounts $pod.serviceAccountName))) -}}
{{- end -}}
{{- end -}}
{{- $wanted := true -}}
{{- $program := get $accounts $object.metadata.name -}}
{{- if and (eq $object.kind "ServiceAccount") $program -}}
{{- $own := include "kerf.accountValues" (list $root $program) | fromYaml -}}
{{- $wanted = $own.create -}}
{{- $_ := set $object.metadata "name" (include "kerf.account" (list $root $program)) -}}
{{- if $own.annotations }}{{ $_ := set $object.metadata "annotations" $own.annotations }}{{ end -}}
{{- end -}}
{{- if $wanted }}{{ $objects = append $objects $object }}{{ end -}}
{{- end -}}
{{- $_ := set . "objects" $objects -}}
{{- end -}}

{{/* The objects' text, with helm's labels: stage. */}}
{{- define "kerf.text" -}}
{{- $labels := include "kerf.labels" .root | fromYaml -}}
{{- range $object := .objects }}
{{- $_ := set $object.metadata "labels" (merge (default dict $object.metadata.labels) $labels) }}
---
{{ toYaml $object }}
{{ end -}}
{{- end -}}
