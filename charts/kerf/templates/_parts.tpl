{{/* Refuses values that contradict each other: what a schema cannot say. */}}
{{- define "kerf.check" -}}
{{- $values := .Values -}}
{{- $names := list -}}
{{- range $program := list "scheduler" "extender" "plugin" "profiles" -}}
{{- $own := include "kerf.accountValues" (list $ $program) | fromYaml -}}
{{- $at := get (dict "scheduler" "scheduler" "extender" "remote" "plugin" "plugin" "profiles" "profiles.account") $program -}}
{{- if not (or $own.create $own.name) -}}
{{- fail (printf "%s.serviceAccount.name: name the account that is there already, or set %s.serviceAccount.create to true" $at $at) -}}
{{- end -}}
{{- $names = append $names (include "kerf.account" (list $ $program)) -}}
{{- end -}}
{{- if ne (len $names) (len (uniq $names)) -}}
{{- fail (printf "serviceAccount.name: two programs have the same account (%s); rights and policies are for one program each" (join ", " $names)) -}}
{{- end -}}
{{- if eq $values.placement "scheduler" -}}
{{- if ne (include "kerf.routes" .) "true" -}}
{{- range $name := list "runtimeClassName" "reservedNodes" -}}
{{- if get $values.routing $name -}}
{{- fail (printf "routing.%s: needs pods that are routed, which routing.mutate=%s does not do on Kubernetes %s" $name $values.routing.mutate $.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.routing.reservedNodes (not $values.plugin.nodeSelector) -}}
{{- fail "routing.reservedNodes: plugin.nodeSelector is empty, so that all nodes would be tainted" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.placement "none") $values.placedResources -}}
{{- fail "placedResources: placement is none, so that no extender places them" -}}
{{- end -}}
{{- if and $values.remote.legacy (ne $values.placement "remote") -}}
{{- fail (printf "remote.legacy: only with placement remote, which is %s" $values.placement) -}}
{{- end -}}
{{- if and $values.remote.tls.secretName (ne $values.placement "remote") -}}
{{- fail (printf "remote.tls.secretName: only with placement remote, which is %s" $values.placement) -}}
{{- end -}}
{{- $served := 0 -}}
{{- range $name := include "kerf.profiles" . | fromYamlArray -}}
{{- $profile := get $values.profiles $name -}}
{{- if $profile.enabled -}}
{{- $served = add1 $served -}}
{{- if and $profile.placed (eq $values.placement "none") -}}
{{- fail (printf "profiles.%s.placed: placement is none, so that no extender places its pods" $name) -}}
{{- end -}}
{{- if and (eq $values.nodeLabels "node") (not (or $profile.placed $values.profiles.account.enabled)) -}}
{{- fail (printf "nodeLabels: node needs an account for profiles.%s: set profiles.account.enabled" $name) -}}
{{- end -}}
{{- if and $values.openshift (not (or $profile.placed $values.profiles.account.enabled)) -}}
{{- fail (printf "openshift: its constraints are given to accounts, and profiles.%s has none: set profiles.account.enabled" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.placement "none") (eq $served 0) -}}
{{- fail "placement: none, and no profile is enabled: nothing would be installed" -}}
{{- end -}}
{{- end -}}

{{/*
Refuses a second installation of one domain: both would give the same GPUs. Nothing is found where no cluster is asked, as by
`helm template`. Names that are the same are helm's own to refuse, or to take over.
*/}}
{{- define "kerf.alone" -}}
{{- $own := printf "%s-placement-records" (include "kerf.fullname" .) -}}
{{- range $policy := (lookup "admissionregistration.k8s.io/v1" "ValidatingAdmissionPolicy" "" "").items -}}
{{- $name := $policy.metadata.name -}}
{{- $labels := default dict $policy.metadata.labels -}}
{{- if and (eq (get $labels "app.kubernetes.io/part-of") "kerf") (hasSuffix "-placement-records" $name) (ne $name $own) -}}
{{- $annotations := default dict $policy.metadata.annotations -}}
{{- $release := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- $domain := false -}}
{{- range $variable := dig "spec" "variables" list $policy -}}
{{- if and (eq $variable.name "domain") (eq $variable.expression (printf "'%s'" $.Values.domain)) }}{{ $domain = true }}{{ end -}}
{{- end -}}
{{- if and $domain (or (ne $release $.Release.Name) (ne $namespace $.Release.Namespace)) -}}
{{- $by := printf "objects that kubectl applied (ValidatingAdmissionPolicy %s)" $name -}}
{{- if $release }}{{ $by = printf "the release %s in the namespace %s" $release $namespace }}{{ end -}}
{{- fail (printf "domain: GPUs are given as %s already, by %s; two would give the same GPU twice. Upgrade that one or take it away first, or set another domain" $.Values.domain $by) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The profiles' names. */}}
{{- define "kerf.profiles" -}}
[amd, intel, nvidia, deepomatic]
{{- end -}}

{{/* Whether pods are routed by a MutatingAdmissionPolicy. */}}
{{- define "kerf.routes" -}}
{{- $mutate := .Values.routing.mutate -}}
{{- $new := semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version -}}
{{- or (eq $mutate "always") (and (eq $mutate "auto") $new) -}}
{{- end -}}

{{/* The ConfigMap of kube-scheduler's configuration, with the values' changes: stage. */}}
{{- define "kerf.schedulerConfiguration" -}}
{{- $values := .root.Values -}}
{{- $generator := index (.root.Files.Get "files/base/kustomization.yaml" | fromYaml).configMapGenerator 0 -}}
{{- $file := index $generator.files 0 -}}
{{- $configuration := include "kerf.renamed" (list .root (.root.Files.Get (printf "files/base/%s" $file))) | fromYaml -}}
{{- $extender := index $configuration.extenders 0 -}}
{{- range $resource := $values.placedResources -}}
{{- $managed := append $extender.managedResources (dict "name" $resource "ignoredByScheduler" false) -}}
{{- $_ := set $extender "managedResources" $managed -}}
{{- end -}}
{{- $_ := mergeOverwrite $configuration (deepCopy $values.scheduler.configuration) -}}
{{- $labels := dict "app.kubernetes.io/component" "scheduler" -}}
{{- $metadata := dict "name" $generator.name "namespace" "kerf-system" "labels" $labels -}}
{{- $map := dict "apiVersion" "v1" "kind" "ConfigMap" "metadata" $metadata "data" (dict $file (toYaml $configuration)) -}}
{{- $_ := set . "objects" (append .objects $map) -}}
{{- end -}}

{{/* Takes kerf's own scheduler out: stage. */}}
{{- define "kerf.withoutScheduler" -}}
{{- $kept := list -}}
{{- range $object := .objects -}}
{{- if ne (dig "labels" "app.kubernetes.io/component" "" $object.metadata) "scheduler" -}}
{{- $kept = append $kept $object -}}
{{- end -}}
{{- end -}}
{{- $_ := set . "objects" $kept -}}
{{- end -}}

{{/* Gives the plugin simulated GPUs: stage. */}}
{{- define "kerf.simulate" -}}
{{- $patch := .root.Files.Get "files/overlays/simulated/plugin.yaml" | fromYaml -}}
{{- $change := $patch.spec.template.spec -}}
{{- range $object := .objects -}}
{{- if eq $object.kind "DaemonSet" -}}
{{- include "kerf.merge" (list $object.spec.template.spec $change) -}}
{{- end -}}
{{- end -}}
{{- $gpus := default (.root.Files.Get "files/overlays/simulated/gpus.toml") .root.Values.simulated.gpus -}}
{{- $metadata := dict "name" "kerf-simulated-gpus" "namespace" "kerf-system" -}}
{{- $map := dict "apiVersion" "v1" "kind" "ConfigMap" "metadata" $metadata "data" (dict "gpus.toml" $gpus) -}}
{{- $_ := set . "objects" (append .objects $map) -}}
{{- end -}}

{{/* Merges a part of a pod with one container into a pod: its lists of names are added, its arguments replace: (list pod part). */}}
{{- define "kerf.merge" -}}
{{- $pod := index . 0 -}}
{{- $part := index . 1 -}}
{{- $container := index $pod.containers 0 -}}
{{- range $key, $value := index $part.containers 0 -}}
{{- if has $key (list "env" "volumeMounts") -}}
{{- $_ := set $container $key (concat $value (default list (get $container $key))) -}}
{{- else -}}
{{- $_ := set $container $key $value -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := omit $part "containers" -}}
{{- if eq $key "volumes" }}{{ $_ := set $pod $key (concat $value (default list $pod.volumes)) }}
{{- else }}{{ $_ := set $pod $key $value }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Applies the values to objects that have the release's names: stage. */}}
{{- define "kerf.values" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $version := $root.Chart.AppVersion -}}
{{- $extender := dict "root" $root "image" $values.extender.image "tag" $version "values" $values.extender -}}
{{- range $object := .objects -}}
{{- $component := dig "labels" "app.kubernetes.io/component" "" $object.metadata -}}
{{- if and (eq $object.kind "Deployment") (eq $component "scheduler") -}}
{{- $pod := $object.spec.template.spec -}}
{{- $_ := set $object.spec "replicas" $values.scheduler.replicas -}}
{{- include "kerf.pods" (dict "root" $root "object" $object "values" $values.scheduler) -}}
{{- include "kerf.container" (set $extender "container" (index $pod.initContainers 0)) -}}
{{- $tag := regexFind "^v[0-9]+[.][0-9]+[.][0-9]+" $root.Capabilities.KubeVersion.Version -}}
{{- include "kerf.container" (dict "root" $root "container" (index $pod.containers 0) "image" $values.scheduler.image "tag" $tag "values" $values.scheduler) -}}
{{- /* a change of the configuration reaches the pods */ -}}
{{- $stage := dict "root" $root "objects" list -}}
{{- include "kerf.schedulerConfiguration" $stage -}}
{{- $_ := set $object.spec.template.metadata.annotations "checksum/configuration" ((index $stage.objects 0).data | toYaml | sha256sum) -}}
{{- else if eq $object.kind "Deployment" -}}
{{- include "kerf.pods" (dict "root" $root "object" $object "values" $values.remote) -}}
{{- include "kerf.container" (set $extender "container" (index $object.spec.template.spec.containers 0)) -}}
{{- range $volume := $object.spec.template.spec.volumes -}}
{{- if eq $volume.name "tls" }}{{ $_ := set $volume.secret "secretName" $values.remote.tls.secretName }}{{ end -}}
{{- end -}}
{{- else if eq $object.kind "DaemonSet" -}}
{{- include "kerf.pods" (dict "root" $root "object" $object "values" $values.plugin) -}}
{{- include "kerf.container" (dict "root" $root "container" (index $object.spec.template.spec.containers 0) "image" $values.plugin.image "tag" $version "values" $values.plugin) -}}
{{- include "kerf.host" (list $root $object.spec.template.spec $values.plugin.seLinuxType) -}}
{{- if $values.plugin.runtimeClassName -}}
{{- $_ := set $object.spec.template.spec "runtimeClassName" $values.plugin.runtimeClassName -}}
{{- end -}}
{{- else if and (eq $object.kind "MutatingAdmissionPolicy") $object.spec.matchConstraints.objectSelector -}}
{{- /* the nodes that the plugin runs on */ -}}
{{- $_ := set $object.spec.matchConstraints.objectSelector "matchLabels" $values.plugin.nodeSelector -}}
{{- else if and (eq $object.kind "NetworkPolicy") (eq $object.metadata.name (printf "%s-extender" (include "kerf.fullname" $root))) $values.remote.from -}}
{{- $_ := set (index $object.spec.ingress 0) "from" $values.remote.from -}}
{{- end -}}
{{- range $variable := dig "spec" "variables" list $object -}}
{{- if and (eq $variable.name "counted") $values.placedResources -}}
{{- $_ := set $variable "expression" (printf "['%s']" (join "', '" $values.placedResources)) -}}
{{- end -}}
{{- end -}}
{{- range $mutation := dig "spec" "mutations" list $object -}}
{{- if and (contains "runtimeClassName" $mutation.jsonPatch.expression) $values.routing.runtimeClassName -}}
{{- $_ := set $mutation.jsonPatch "expression" ($mutation.jsonPatch.expression | replace "'nvidia'" (printf "'%s'" $values.routing.runtimeClassName)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
