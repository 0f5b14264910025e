#!/usr/bin/env bash
# Usage: submit.sh [options of sbatch for the array] -- SOURCE --bundle BUNDLE --out CATALOG [any option of infer]
# For example: submit.sh --array=0-63 --time=08:00:00 -- survey.zarr --bundle shapes --objects objects.parquet --out catalog
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1") && shift; done
[ $# -gt 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
shift
array=$(sbatch --parsable "${options[@]}" "$here/infer-array.sbatch" "$@")
finish=$(sbatch --parsable --dependency="afterany:${array%%;*}" "$here/finish.sbatch" "$@")
echo "array ${array%%;*}, then ${finish%%;*}"
