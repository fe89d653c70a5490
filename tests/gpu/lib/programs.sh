# The stages with CUDA's runtime and Python's libraries.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of run.sh and of the files beside this one

# $1: module. Whether this Python has it and it sees a card; its version
python_has() { outside "$python" "$here/python/$1.py" version 2>"$work/said"; }

stage_pytorch() {
    local segments share how version each
    if ! version=$(python_has with_torch); then
        not_run "PyTorch" "$python: $(tail -n 1 "$work/said")"
        return
    fi
    say "PyTorch $version"
    for segments in False True; do
        container "$cap" 100 100
        check "PyTorch, expandable segments $segments: the cap holds" inside env "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:$segments" \
            "$python" "$here/python/with_torch.py" memory "$cap"
    done
    each=$(outside "$python" "$here/python/with_torch.py" each 2>/dev/null) || each=0
    for share in 30 90; do
        for how in eager graph; do
            container "$cap" "$share" "$share"
            check "PyTorch, $how, at $share %" inside "$python" "$here/python/with_torch.py" share "$how" "$share" "$each"
        done
    done
    container "$cap" 50 50
    check "PyTorch: a pause is not charged" inside "$python" "$here/python/with_torch.py" idle
    container "$cap" 10 10
    check "PyTorch: captures beside a thread in debt" compared "$python" "$here/python/with_torch.py" capture
    container "$cap" 100 100
    check "PyTorch: steps a second without" outside "$python" "$here/python/with_torch.py" speed
    check "PyTorch: steps a second with" inside "$python" "$here/python/with_torch.py" speed
}

stage_programs() {
    local which version each
    runtime shared
    runtime static
    for which in with_cupy with_jax with_triton; do
        if version=$(python_has "$which"); then
            say "$which $version"
            container "$cap" 100 100
            check "$which: the cap holds" inside "$python" "$here/python/$which.py" memory "$cap"
            container "$cap" 50 50
            each=$(outside "$python" "$here/python/$which.py" each 2>/dev/null) || each=0
            check "$which: at 50 %" inside "$python" "$here/python/$which.py" share 50 "$each"
            container "$cap" 50 50
            check "$which: a pause is not charged" inside "$python" "$here/python/$which.py" idle
        else
            not_run "$which" "$python: $(tail -n 1 "$work/said")"
        fi
    done
}

# $1: shared or static
runtime() {
    local compiler
    if ! compiler=$(command -v "$nvcc"); then
        not_run "CUDA's runtime, $1" "no nvcc"
        return
    fi
    if ! "$compiler" -O2 -cudart "$1" -arch=native -Xlinker "-rpath=$(dirname "$(dirname "$compiler")")/lib64" \
        -o "$work/runtime" "$here/program/runtime.cu" >"$work/said" 2>&1; then
        not_run "CUDA's runtime, $1" "nvcc: $(tail -n 1 "$work/said")"
        return
    fi
    container "$cap" 100 100
    check "CUDA's runtime, $1: the cap holds" inside "$work/runtime" memory "$cap"
    container "$cap" 50 50
    check "CUDA's runtime, $1: at 50 %" inside "$work/runtime" share 50
}
