"""Parts of run.sh: rows of a GPU beside those of a CPU, and a short training: `python kit.py same|train OUT.json`.

`python kit.py metadata SITE` writes the package's entry points by hand, where setuptools cannot.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SMALL = bool(os.environ.get("KIT_SMALL"))
BANDS = {"ellipticity": "r", "lens": "gri", "anomaly": "gri"}
OPTIONS: dict[str, dict[str, Any]] = {"lens": {"zero_point": 31.4}}
SIDE = 64


def metadata(site: str) -> None:
    """Write the metadata that entry points are read from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = Path(site) / "astroml_plugin-0.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: astroml-plugin\nVersion: 0\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {where}" for name, where in names.items())])
        for group, names in project["entry-points"].items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(groups) + "\n")


def stamps(folder: Path, bands: str, count: int) -> str:
    """A store of galaxies with PSF, variance and labels; one has a hole, one has no pixel at all."""
    from workflows.ingest import ingest

    random = np.random.default_rng(5)
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE // 2).astype(np.float32)
    e = random.uniform(-0.4, 0.4, (2, count))
    size, angle = np.hypot(*e), 0.5 * np.arctan2(e[1], e[0])
    axis, sigma = (1 - size) / (1 + size), random.uniform(2.0, 4.5, count)
    image = random.normal(0, 2.5, (count, len(bands), SIDE, SIDE)).astype(np.float32)
    for number in range(count):
        cosine, sine = np.cos(angle[number]), np.sin(angle[number])
        along, across = (x * cosine + y * sine) / sigma[number], (y * cosine - x * sine) / sigma[number]
        light = np.exp(-0.5 * (along**2 * axis[number] + across**2 / axis[number]))
        image[number] += random.uniform(30, 300) * light
    image[3, :, 10:14] = np.nan
    image[5] = np.nan
    psf = np.exp(-0.5 * ((np.mgrid[:25, :25] - 12) ** 2).sum(0) / 4.0).astype(np.float32)
    path, store = folder / f"{bands}.npz", folder / f"{bands}.zarr"
    np.savez(
        path,
        images=image,
        variance=np.full_like(image, 6.25),
        psf=np.broadcast_to(psf, (count, len(bands), 25, 25)).copy(),
        bands=np.array(list(bands)),
        object_id=np.arange(count),
        e1=e[0],
        e2=e[1],
        pixel_scale=np.array(0.2),
        **{"class": np.where(sigma > 3.2, "large", "small")},
    )
    ingest([str(path)], out=str(store))
    return str(store)


def rows(catalog: Path) -> Any:
    """The catalog as an Arrow table in the order of the ids."""
    from workflows.query import query

    return query(str(catalog), "SELECT * FROM catalog").to_arrow().sort_by("object_id")


def differences(one: Any, two: Any) -> dict[str, Any]:
    """Column -> largest difference, its RMS, and how many values differ; equal columns are left out."""
    found: dict[str, Any] = {"rows": [one.num_rows, two.num_rows]}
    if one["object_id"].to_pylist() != two["object_id"].to_pylist():
        return found | {"objects": "differ"}
    for name in one.schema.names:
        left, right = (np.asarray(table[name].to_pandas()) for table in (one, two))
        if left.dtype.kind not in "fiu":
            unequal = [str(a) != str(b) for a, b in zip(left, right, strict=True)]
            if any(unequal):
                found[name] = {"unequal": sum(unequal)}
            continue
        left, right = left.astype(float), right.astype(float)
        step = np.abs(left - right)[~((left == right) | (np.isnan(left) & np.isnan(right)))]
        if len(step):
            rms = float(np.sqrt(np.nanmean(step**2)))
            found[name] = {"max": float(np.nanmax(step)), "rms": rms, "unequal": len(step)}
    return found


def device() -> str:
    """What is looked at: the GPU, or a CPU where this is only tried."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def same(out: str) -> None:
    """Rows of a CPU beside those of the GPU: float32, again, compiled, and half precision eager and compiled."""
    from astroml_plugin.compute.cluster import connect
    from workflows.infer import infer

    ways: dict[str, dict[str, Any]] = {
        "gpu": {"compiling": "never"},
        "again": {"compiling": "never"},
        "compiled": {"compiling": "always"},
        "half": {"precision": "auto", "compiling": "never"},
        "half compiled": {"precision": "auto", "compiling": "always"},
    }
    found: dict[str, Any] = {"device": device()}
    with tempfile.TemporaryDirectory() as name, connect("local", threads=2) as client:
        folder = Path(name)
        stores = {bands: stamps(folder, bands, 60 if SMALL else 600) for bands in {*BANDS.values()}}
        for bundle, bands in BANDS.items():
            record: dict[str, Any] = {}
            found[bundle] = record
            tables = {}
            for way, settings in {"cpu": {}, **ways}.items():
                if SMALL and "compiled" in way:
                    continue
                where = "cpu" if way == "cpu" else device()
                settings = {**settings, **OPTIONS.get(bundle, {})}
                catalog, begun = folder / f"{bundle} {way}", time.perf_counter()

                def measure(
                    bundle: str = bundle,
                    bands: str = bands,
                    catalog: Path = catalog,
                    where: str = where,
                    settings: dict[str, Any] = settings,
                ) -> None:
                    infer(
                        stores[bands],
                        bundle=bundle,
                        out=str(catalog),
                        client=client,
                        device=where,
                        backend="torch",
                        **settings,
                    )

                record[way] = tried(measure) | {"seconds": round(time.perf_counter() - begun, 2)}
                if "error" not in record[way]:
                    tables[way] = rows(catalog)
                    against = "half" if way == "half compiled" and "half" in tables else "cpu"
                    record[way] |= {"against": against, "differences": differences(tables[against], tables[way])}
                Path(out).write_text(json.dumps(found, indent=1))
            print(bundle, json.dumps(record)[:1500], flush=True)


def tried(work: Callable[[], Any]) -> dict[str, Any]:
    """Nothing, or the error: the next part may do."""
    try:
        work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:600]}
    return {}


def train_(out: str) -> None:
    """Short trainings on the device and on a CPU: seconds and last losses."""
    from workflows.train import TrainExecution, train

    found: dict[str, Any] = {"device": device()}
    with tempfile.TemporaryDirectory() as name:
        folder, count = Path(name), 200 if SMALL else 8000
        stores = {"ellipticity": stamps(folder, "r", count), "classify": stamps(folder, "gri", count)}
        for recipe, store in stores.items():
            for where in dict.fromkeys([device(), "cpu"]):
                begun, bundle, losses = time.perf_counter(), str(folder / f"{recipe} {where}"), []

                def work(
                    recipe: str = recipe,
                    store: str = store,
                    where: str = where,
                    bundle: str = bundle,
                    losses: list[str] = losses,
                ) -> None:
                    how = TrainExecution(device=where)
                    told = lambda *note: losses.append(str(note[-1]))  # noqa: E731
                    train(recipe, data=store, out=bundle, epochs=1 if SMALL else 3, execution=how, progress=told)

                record = tried(work) | {"seconds": round(time.perf_counter() - begun, 2), "told": losses[-3:]}
                found[f"{recipe} on {where}"] = record
                Path(out).write_text(json.dumps(found, indent=1))
                print(recipe, where, json.dumps(record)[:800], flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    {"same": same, "train": train_, "metadata": metadata}[sys.argv[1]](sys.argv[2])
