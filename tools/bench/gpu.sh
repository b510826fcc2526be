#!/usr/bin/env bash
# Does all checks that need a GPU, in less than 8 minutes, and prints a table of them at the end.
#
#     tools/bench/gpu.sh          # with python3, or with the interpreter in $PYTHON
#     tools/bench/gpu.sh --cpu    # each part on the CPU, and small: only shows that the script works
#
# Needs one GPU of NVIDIA and a Python from 3.11 with torch, numpy, safetensors and tqdm, and a C compiler for
# torch.compile. Nothing has to be installed or built, and nothing is downloaded.
#
# Exit status: 0 all targets are met; 1 a target is missed, or a part failed or ran into its time limit;
# 2 wrong command line; 77 the checks did not run, because there is no GPU or because a requirement is missing.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
here=$PWD/packages
export PYTHONPATH=$here/callback-core:$here/trainer-torch${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1

case "${1-}" in
    "") on_gpu=true ;;
    --cpu) on_gpu=false ;;
    *) echo "usage: tools/bench/gpu.sh [--cpu]" >&2; exit 2 ;;
esac

if ! "$python" -c 'import numpy, safetensors, torch, tqdm'; then
    echo "gpu.sh: the checks did not run. Install what is missing: $python -m pip install numpy safetensors torch tqdm" >&2
    exit 77
fi
if $on_gpu; then
    if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        echo "gpu.sh: the checks did not run: torch finds no GPU of NVIDIA here." >&2
        exit 77
    fi
    "$python" -c 'import torch; print(torch.cuda.get_device_name(), "torch", torch.__version__)'
    mode=--check accelerator=--accelerator
else
    export CUDA_VISIBLE_DEVICES=
    mode=--quick accelerator=
fi

missed=0
table=$(printf '%-18s%10s  %s' part seconds result)
part() { # part NAME LIMIT COMMAND...: the limit is in seconds
    local name=$1 limit=$2 began=$SECONDS status result
    shift 2
    $on_gpu || limit=1200
    printf '\n=== %s\n' "$name"
    timeout --kill-after 5 "$limit" "$python" "$@"
    status=$?
    case $status in
        0) result=passed ;;
        124 | 137) result="TOOK MORE THAN $limit s" ;;
        *) result="FAILED ($status)" ;;
    esac
    [ "$status" = 0 ] || missed=1
    table+=$(printf '\n%-18s%10s  %s' "$name" $((SECONDS - began)) "$result")
}

# The limits add up to less than 8 minutes.
part precision 190 tools/bench/precision.py $mode
part synchronization 75 tools/bench/synchronization.py $mode
part throughput 35 tools/bench/throughput.py $mode
part callbacks 65 tools/bench/callbacks.py $mode
part kills 110 packages/trainer-torch/tests/kills.py --kills 2 $accelerator \
    --kinds "fp16 with overflows" "averaged weights" "augmentation in workers"

printf '\n%s\n' "$table"
exit $missed
