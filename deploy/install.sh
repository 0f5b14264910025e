#!/bin/sh
# Usage: install.sh SOURCE cpu|cuda [PACKAGE…]
# The step that images share (Dockerfile, apptainer.def): package and tested dependencies into /opt/astroml, checked.
set -eu
source=$1 variant=$2
shift 2
case $variant in
cpu) extras=s3,fast,kuberay ;;
cuda) extras=s3,fast,kuberay,cuda ;;
*)
    echo "install.sh: the variant is cpu or cuda, not '$variant'" >&2
    exit 2
    ;;
esac
python3 -m venv /opt/astroml
/opt/astroml/bin/pip install --no-cache-dir --constraint "$source/constraints.txt" "${source}[$extras]" "$@"
cd /opt/astroml/lib/python3*/site-packages
# tests and Java of others, 0.35 GB
rm -rf torch/test torch/bin/test_* torch/bin/*_test ray/jars pandas/tests
find scipy sklearn sympy -type d -name tests -prune -exec rm -rf {} +
if [ "$variant" = cpu ]; then rm -rf torch/include; fi
cd /
/opt/astroml/bin/python - "$variant" <<'PYTHON'
import sys

import torch

from astroml_plugin.pixels import native

if (torch.version.cuda is not None) != (sys.argv[1] == "cuda"):
    sys.exit(
        f"install.sh: pip installed torch {torch.__version__}, which is not for {sys.argv[1]}: for an image without GPU "
        "give pip the index of PyTorch's CPU wheels (PIP_EXTRA_INDEX_URL), for one with GPUs leave pip's index alone"
    )
if not native.usable():
    sys.exit("install.sh: the compiled part (astroml_plugin/pixels/native.c) is missing: install gcc and libc6-dev before")
PYTHON
