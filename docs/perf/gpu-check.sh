#!/usr/bin/env bash
# Measures the suite's speed on one GPU in at most six minutes, and writes all of it into one JSON file.
#
# usage: EXITBENCH_DATA=FOLDER docs/perf/gpu-check.sh OUT.json [STEP ...]
#
# It needs a Python in which exitbench is installed (PYTHON, else `python`) with a torch that sees the GPU, and a data folder with
# CIFAR-10 (docs/data.md). Each step has a limit of its own: what fails or takes too long is told in the file, and the rest goes on.
# The steps, all of them by default: gradients run autoattack all perf training. DEVICE=cpu N=4 EPOCHS=1 tries the script without a GPU.
set -u
out=${1:?usage: docs/perf/gpu-check.sh OUT.json [STEP ...]}
shift
: "${EXITBENCH_DATA:?set EXITBENCH_DATA to the data folder}"
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
export EXITBENCH_CACHE="$parts/cache" MPLBACKEND=Agg  # timings of an earlier run are not believed

declare -A limit=([gradients]=50 [run]=45 [autoattack]=40 [all]=100 [perf]=50 [training]=60)
for step in ${*:-gradients run perf training autoattack all}; do
    echo "== $step (at most ${limit[$step]} s)"
    SECONDS=0
    timeout --kill-after=5 "${limit[$step]}" "$python" "$here/gpu_check.py" "$step" "$parts/$step.json" 2>&1 | tee "$parts/$step.log"
    code=${PIPESTATUS[0]}
    [ "$code" = 0 ] || echo "$step ended with $code after $SECONDS s"
    echo "$code $SECONDS" > "$parts/$step.code"
done
"$python" "$here/gpu_check.py" join "$parts" "$out"
