"""The verbs for those who have a catalog."""

from __future__ import annotations

import argparse

from workflows.progress import Reporter
from workflows.verbs.arguments import Verb, call
from workflows.verbs.asking import add_views, ask
from workflows.verbs.options import DONE, SOME_FAILED, complain, complain_of, finish


def _class_statistics(options: argparse.Namespace) -> int:
    from workflows.class_statistics import show

    result = call(options)
    return finish(options, result, show(result))


def _shear(options: argparse.Namespace) -> int:
    from workflows.shear import show

    result = call(options)
    return finish(options, result, show(result))


def _rank(options: argparse.Namespace) -> int:
    from workflows.rank import show

    result = call(options)
    told = {name: getattr(result, name) for name in ("catalog", "by", "objects", "ranked", "folded", "seconds")}
    line = f"{len(result)} rows by {result.by} written to {options.to}" if options.to else show(result)
    return finish(options, {**told, "rows": len(result), "to": options.to}, line)


def _annotate(options: argparse.Namespace) -> int:
    from workflows.annotate import show

    with Reporter() as report:
        result = call(options, progress=report)
    return finish(options, result, show(result))


def _cluster(options: argparse.Namespace) -> int:
    from workflows.cluster import show

    with Reporter() as report:
        result = call(options, progress=report)
    return finish(options, result, show(result))


def _explain(options: argparse.Namespace) -> int:
    from workflows.explain import show

    with Reporter() as report:
        result = call(options, progress=report)
    complain_of(result.failed)
    return finish(options, result, show(result), SOME_FAILED if result.failed else DONE)


def _label(options: argparse.Namespace) -> int:
    from astroml_plugin.labelling.server import LabelServer

    def ready(server: LabelServer) -> None:
        session = server.session
        if session.no_pixels:
            complain(f"warning: {session.no_pixels}", DONE)
        if session.scores.headless:
            told = "has lost its first line: that its scores are of this catalog is taken for granted"
            complain(f"warning: {session.scores.path} {told}", DONE)
        if session.scores.skipped:
            complain(f"warning: {session.scores.skipped} lines of {session.scores.path} are no scores", DONE)
        print(f"{len(session.ranking)} objects by {session.ranking.by}; scores go to {session.scores.path}")
        print(f"open {server.url}  (Ctrl-C ends; every score is stored as it is given)", flush=True)

    count = call(options, watched=False, ready=ready)
    return finish(options, {"catalog": options.catalog, "scored": count}, f"{count} objects have scores")


def _report(options: argparse.Namespace) -> int:
    from workflows.report import show

    result = call(options)
    return finish(options, result, show(result))


def _show(options: argparse.Namespace) -> int:
    from workflows.show import describe

    result = call(options)
    return finish(options, result, describe(result))


def _segmentation_map(options: argparse.Namespace) -> int:
    result = call(options)
    for name in result.missing:
        complain(f"warning: tile {name} has no label map yet, its objects are left out", DONE)
    return finish(options, result, f"{result.objects} objects on {result.width} x {result.height} px in {result.to}")


def _compact(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report.files)
    line = f"merged {result.parts_merged} parts into {result.files_written} files at {options.catalog}"
    return finish(options, result, line)


def _verify(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report.files)
    for damage in result.damages:
        concerned = f" ({damage.units} units, {damage.rows} rows)" if damage.units else ""
        complain(f"{'mended' if damage.mended else 'damaged'}: {damage.path}: {damage.what}{concerned}", DONE)
    state = "whole" if not result.damages else f"{len(result.damages)} damages"
    line = f"{options.catalog}: {result.files} files, {result.rows} rows read, {state}"
    return finish(options, result, line, DONE if result.is_whole else SOME_FAILED)


_CONE_HELP = (
    "a circle on the sky: degrees as 150.1 2.2 0.05, or 10h00m28.6s +02d12m21s 5arcsec; names are not looked up, as "
    "there is no network"
)
_CONE = {"metavar": "RA DEC RADIUS", "help": _CONE_HELP}
_LEARNERS = {"choices": ("forest", "astronomaly", "score_process", "gaussian_process"), "metavar": None}

VERBS = {
    "class-statistics": Verb(
        _class_statistics,
        "workflows.class_statistics:class_statistics",
        "Class fractions of a catalog and thresholds with the purity and completeness that they give.",
        "catalog --evaluation report/metrics.json --class lens --purity 0.9 --prior lens=0.001",
        more=("astroml_plugin.evaluation.class_statistics:class_statistics",),
        flags={"class_name": "--class"},
    ),
    "shear": Verb(
        _shear,
        "workflows.shear:shear",
        "Mean shear of a catalog in bins, with bootstrap errors.",
        "catalog --by half_light_radius --bins 5 --where 'flags = 0 AND e1_err < 0.2' --frame sky",
    ),
    "rank": Verb(
        _rank,
        "workflows.rank:rank",
        "The top of a catalog of any size, near-duplicates folded; or what is like an object.",
        "catalog --top 100 --score p_lens --where 'flags = 0' --fold-radius 2 --to lenses.fits",
        changed={"learner": _LEARNERS},
    ),
    "label": Verb(
        _label,
        "workflows.label:label",
        "A page of pictures on this machine to score the top objects, and a ranking that learns from the scores.",
        "catalog --source survey.zarr --top 500 --where 'flags & 2 = 0'",
        changed={"learner": _LEARNERS},
    ),
    "annotate": Verb(
        _annotate,
        "workflows.annotate:annotate",
        "New columns for the rows of a catalog from its stored vectors: classes, distances. No pixels.",
        "catalog --name kinds --labels labels.csv --label kind",
    ),
    "cluster": Verb(
        _cluster,
        "workflows.cluster:cluster",
        "Groups of like objects without labels: columns beside the rows, with stability and medoids. No pixels.",
        "catalog --name groups --clusters 8",
    ),
    "report": Verb(
        _report,
        "workflows.report:report",
        "A page about a run, an evaluation, a search, a comparison or a survey: one HTML file, no network.",
        "catalog --out report.html --by p_lens",
    ),
    "explain": Verb(
        _explain,
        "workflows.explain:explain",
        "Which pixels made a number of the top objects: columns beside the rows, maps in Zarr.",
        "catalog --top 10000 --by p_lens --name lenses",
    ),
    "show": Verb(
        _show,
        "workflows.show:show",
        "A picture of a survey, or of what a catalog found on it, with outlines, ids, scale bar and compass.",
        "catalog --tile field_r0_c0 --out tile.png",
        flags={"object_id": "--object"},
        changed={"cone": _CONE},
    ),
    "query": Verb(
        ask,
        "workflows.query:query",
        "Ask a catalog: SQL, a cone, or both.",
        'catalog "SELECT object_id, e1, e2 FROM catalog WHERE flags = 0" --cone 150.1 2.2 0.05 --to near.fits',
        changed={"cone": _CONE},
        hidden={"tables": "they are in memory"},
        add=add_views,
    ),
    "segmentation-map": Verb(
        _segmentation_map,
        "workflows.segmentation_map:segmentation_map",
        "Which pixels belong to which found object, as FITS: a tile, or any box of an image.",
        "catalog --tile field_r0_c0 --to outlines.fits",
    ),
    "verify": Verb(
        _verify,
        "workflows.verify:verify",
        "Check a catalog for damage, and mend what can be mended.",
        "catalog --repair",
    ),
    "compact": Verb(_compact, "workflows.compact:compact", "Merge finished parts into large files.", "catalog"),
}
