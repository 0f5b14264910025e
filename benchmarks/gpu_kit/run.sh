#!/bin/bash
# Ten minutes on a machine with a GPU: `bash benchmarks/gpu_kit/run.sh` from the root of the checkout; see README.md.
# Each stage has its own limit and writes its own file as it goes: what is cut takes nothing with it.
set -u
OUT=${OUT:-gpu-kit}; mkdir -p "$OUT"; OUT=$(cd "$OUT" && pwd)
KIT=$(cd "$(dirname "$0")" && pwd); ROOT=$(cd "$KIT/../.." && pwd); cd "$ROOT" || exit 1
PYTHON=${PYTHON:-python3}; LIMIT=${KIT_LIMIT:-560}; SMALL=${KIT_SMALL:-}; START=$(date +%s)
WORK=$(mktemp -d); trap 'rm -rf "$WORK"' EXIT
export PYTHONUNBUFFERED=1 ASTROML_BENCH="$WORK/bench" TMPDIR="$WORK"
note() { echo "[$(( $(date +%s) - START )) s] $*" | tee -a "$OUT/stages.log"; }
stage() {  # stage NAME SECONDS COMMAND...
  local name=$1 most=$2 left; shift 2; left=$(( LIMIT - $(date +%s) + START ))
  [ "$left" -lt 15 ] && { note "$name: no time left"; return; }
  [ "$most" -gt "$left" ] && most=$left
  note "$name begins, at most $most s"
  timeout -k 5 "$most" "$@" > "$OUT/$name.log" 2>&1; note "$name ends, status $?"; tail -n 3 "$OUT/$name.log"
}
if ls "$KIT"/wheels/*.whl > /dev/null 2>&1; then  # packages that the machine lacks, carried along
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$WORK/site" "$KIT"/wheels/*.whl || exit 1
fi
# entry points of tasks and networks need the package's metadata: it is installed without what it needs
"$PYTHON" -m pip install -q --no-index --no-deps --no-build-isolation --no-compile --target "$WORK/site" "$ROOT" \
  2> "$OUT/install.log" || "$PYTHON" "$KIT/kit.py" metadata "$WORK/site"
export PYTHONPATH="$ROOT:$WORK/site"
nvidia-smi > "$OUT/machine.txt" 2>&1; "$PYTHON" -m pip list >> "$OUT/machine.txt" 2>/dev/null
stage tests  100 "$PYTHON" -m pytest -q -p no:cacheprovider -W ignore -m cuda tests/test_device.py tests/test_cuda_engine.py
stage same   120 "$PYTHON" "$KIT/kit.py" same "$OUT/same.json"
stage bench  250 "$PYTHON" benchmarks/gpu.py --minutes "${KIT_MINUTES:-3.5}" --out "$OUT/gpu.json" ${SMALL:+--quick}
stage train   90 "$PYTHON" "$KIT/kit.py" train "$OUT/train.json"
note "done"
