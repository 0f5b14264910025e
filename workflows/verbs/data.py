"""The verbs to begin with: a demonstration, and pixels brought or made."""

from __future__ import annotations

import argparse

from workflows.progress import Reporter
from workflows.verbs.options import (
    DONE,
    SOME_FAILED,
    WRONG_INPUT,
    Verb,
    add_cluster,
    chosen,
    complain,
    finish,
    floats,
    joined,
    names,
    pair,
    quiet,
    toml,
)


def _demo(options: argparse.Namespace) -> int:
    from workflows.demo import demo

    with quiet(), Reporter() as report:
        result = demo(out=options.out, images=options.images, progress=report)
    return finish(options, result, result.summary)


def _add_demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", default="demo-output", metavar="DIR", help="where everything goes (default demo-output)")
    verb.add_argument("--images", metavar="DIR", help="run on the FITS images of this folder instead")


def _ingest(options: argparse.Namespace) -> int:
    from workflows.ingest import ingest

    with_defaults = "bands tile_size halo name npz_map layout table zero_point psf hdu saturation block pixel_scale"
    patterns = "variance_pattern weight_pattern mask_pattern mask_map"
    settings = chosen(options, *with_defaults.split(), *patterns.split())
    with quiet(), joined(options) as client, Reporter() as report:
        result = ingest(options.inputs, out=options.out, client=client, progress=report, **settings)
    what = "stamps" if result.kind == "stamps" else "tiles"
    line = (
        f"ingested {result.units_done} units ({result.units_skipped} there already), {result.rows} {what}, "
        f"{result.bytes / 1e6:.1f} MB into {result.source} in {result.seconds:.1f} s"
    )
    if result.left_out:
        left = ", ".join(result.left_out)
        complain(f"warning: arrays that do not belong to the stamps were left out: {left} (see --npz-map)", DONE)
    for unit, reason in result.failed:
        complain(f"{unit} failed: {reason}", SOME_FAILED)
    if result.failed and not result.units_done + result.units_skipped:
        return WRONG_INPUT
    return finish(options, result, line, SOME_FAILED if result.failed else DONE)


def _add_ingest(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("inputs", nargs="+", metavar="INPUT", help="FITS files (URLs too), one .npz, or a folder")
    verb.add_argument("--out", required=True, metavar="ZARR", help="the Survey or Stamps to write or extend")
    verb.add_argument("--tile-size", type=int, metavar="PX", help="outer side of a tile, halo included (4096)")
    verb.add_argument("--halo", type=int, metavar="PX", help="border shared with the neighbours (128)")
    verb.add_argument("--bands", type=names, metavar="A,B,…", help="bands of one field, one file each in this order")
    verb.add_argument("--name", help="name of the parent image (default: the file's)")
    verb.add_argument("--hdu", metavar="NAME|N", help="the only HDU to take (default: every image)")
    verb.add_argument(
        "--variance-pattern", metavar="OLD=NEW", help="how a variance file's name follows from the image's"
    )
    verb.add_argument("--weight-pattern", metavar="OLD=NEW", help="the same for inverse-variance weights")
    verb.add_argument("--mask-pattern", metavar="OLD=NEW", help="the same for mask or data-quality files")
    verb.add_argument("--mask-map", metavar="MAP", help="auto, codes, bits, nonzero, or codes:1=BAD,3=SATURATED")
    verb.add_argument("--saturation", type=float, metavar="LEVEL", help="pixels from here on are saturated (header)")
    verb.add_argument("--psf", type=names, metavar="FITS,…", help="PSF image(s): one, or one per band")
    verb.add_argument("--zero-point", type=floats, metavar="MAG,…", help="magnitude of one unit, one or one per band")
    verb.add_argument("--npz-map", metavar="K=KEY,…", help="names of the arrays, as images=x,label=y")
    verb.add_argument("--layout", metavar="AXES", help="order of the axes of the images, as nyxc (default ncyx)")
    verb.add_argument("--pixel-scale", type=float, metavar="ARCSEC", help="arcsec per pixel of stamps")
    verb.add_argument("--block", type=int, metavar="N", help="stamps per unit (about 32 MB)")
    verb.add_argument("--table", metavar="TABLE", help="CSV or Parquet with id_str, file_loc for a folder of stamps")
    add_cluster(verb)


def _simulate(options: argparse.Namespace) -> int:
    from workflows.simulate import simulate

    general = "kind count seed size bands tile_size halo density snr block preset hst pairs shear psf_leakage"
    settings = chosen(options, *general.split(), settings="changes")
    with quiet(), joined(options) as client, Reporter() as report:
        result = simulate(out=options.out, client=client, progress=report, **settings)
    for unit, reason in result.failures.items():
        complain(f"{unit} failed: {reason}", SOME_FAILED)
    line = f"simulated {result.rows} objects in {result.units_done} units at {result.source} in {result.seconds:.1f} s"
    return finish(options, result, line, SOME_FAILED if result.units_failed else DONE)


def _add_simulate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", required=True, metavar="DIR", help="where the sources and their truth go")
    verb.add_argument("--kind", choices=["survey", "stamps"], help="tiles of a sky, or stamps (default)")
    verb.add_argument("--count", type=int, metavar="N", help="stamps, or tiles of the survey")
    verb.add_argument("--seed", type=int, metavar="S", help="of everything (1)")
    verb.add_argument("--size", type=int, metavar="PX", help="side of a stamp (48; lenses 64)")
    verb.add_argument("--bands", type=names, metavar="A,B,…", help="band names")
    verb.add_argument("--tile-size", type=int, metavar="PX", help="outer side of a tile (1024)")
    verb.add_argument("--halo", type=int, metavar="PX", help="border shared with the neighbours (128)")
    verb.add_argument("--density", type=float, metavar="N", help="objects per arcmin^2; neighbours of stamps")
    verb.add_argument("--preset", metavar="NAME", help="a named simulation, as field-varying (docs/simulation.md)")
    verb.add_argument("--hst", metavar="PATH", help="RealGalaxyCatalog of the presets hst-train and hst-test")
    verb.add_argument(
        "--pairs", choices=["shear", "psf"], help="sets of stamps with +-shear, or with +-PSF ellipticity"
    )
    verb.add_argument("--shear", type=float, metavar="G", help="|g| of the sets of --pairs shear (0.02)")
    verb.add_argument("--psf-leakage", type=float, metavar="E", help="|e_PSF| of the pairs of --pairs psf (0.05)")
    verb.add_argument("--snr", type=pair, metavar="LOW,HIGH", help="signal-to-noise of stamps, log-uniform (10,200)")
    verb.add_argument("--block", type=int, metavar="N", help="galaxies per unit of stamps (1024; 256 sets; 512 lenses)")
    verb.add_argument("--settings", type=toml, metavar="TOML", help="any other setting of the simulation")
    add_cluster(verb)


def _generate(options: argparse.Namespace) -> int:
    from workflows.generate import generate

    settings = chosen(options, "count", "seed", "conditions", "noise")
    with Reporter() as report:
        result = generate(options.bundle, out=options.out, progress=report, **settings)
    line = f"drew {result.rows} galaxies that nobody saw into {result.source} in {result.seconds:.1f} s"
    return finish(options, result, line)


def _add_generate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", metavar="BUNDLE", help="of the task generate")
    verb.add_argument("--out", required=True, metavar="DIR", help="stamps.zarr is put there")
    verb.add_argument("--count", type=int, metavar="N", help="galaxies (as many as conditions, else 1000)")
    verb.add_argument("--seed", type=int, metavar="S")
    verb.add_argument("--conditions", metavar="TABLE", help="columns flux, size (pixels), e1, e2, or some of them")
    verb.add_argument("--noise", type=float, metavar="SIGMA", help="white noise to add, in the stamps' units (0)")


VERBS: dict[str, Verb] = {
    "demo": (_demo, "The main job on a small sky, start to end.", "--out demo-output", _add_demo),
    "ingest": (
        _ingest,
        "FITS images into a Survey, or stamps into Stamps.",
        "g.fits r.fits i.fits --out survey.zarr --bands g,r,i",
        _add_ingest,
    ),
    "simulate": (
        _simulate,
        "A seedable sky with truth (needs the extra sim).",
        "--out sky --kind survey --count 4 --seed 7",
        _add_simulate,
    ),
    "generate": (
        _generate,
        "Draw galaxies that were never seen from a generator.",
        "bundles/galaxies --count 1000 --out drawn --noise 2.5",
        _add_generate,
    ),
}
