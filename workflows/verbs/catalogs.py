"""The verbs for those who have a catalog."""

from __future__ import annotations

import argparse
import json

from workflows.verbs.options import DONE, SOME_FAILED, Verb, chosen, complain, finish, floats, fractions, names


def _class_statistics(options: argparse.Namespace) -> int:
    from workflows.class_statistics import class_statistics, show

    settings = chosen(options, "top", "prior", "where", "to", "purity", name="class_name")
    result = class_statistics(options.catalog, evaluation=options.evaluation, **settings)
    return finish(options, result, show(result))


def _add_class_statistics(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG", help="with p_<class> and label")
    verb.add_argument(
        "--evaluation", required=True, metavar="JSON", help="metrics.json of evaluate with the same bundle"
    )
    verb.add_argument("--class", dest="name", metavar="CLASS", help="the only class to choose thresholds for")
    verb.add_argument("--purity", type=floats, metavar="P,…", help="expected purity of at least this (0.5 ... 0.99)")
    verb.add_argument("--top", type=int, metavar="N", help="instead: the N most probable objects")
    verb.add_argument("--prior", type=fractions, metavar="CLASS=F,…", help="class fractions instead of the catalog's")
    verb.add_argument("--where", metavar="SQL", help="which objects (all that could be measured)")
    verb.add_argument("--to", metavar="FILE", help=".parquet, .csv, .fits or .vot for the thresholds")


def _shear(options: argparse.Namespace) -> int:
    from workflows.shear import shear, show

    with_defaults = "by edges bins where weight frame prefix labels calibration calibration_labels step"
    settings = chosen(options, *with_defaults.split(), "resample_by", "bootstrap", "seed", "to")
    result = shear(options.catalog, **settings)
    return finish(options, result, show(result))


def _add_shear(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG", help="with e1, e2 and the responses r11, r12, r21, r22")
    verb.add_argument("--by", metavar="SQL", help="column or expression to bin by")
    verb.add_argument("--edges", type=floats, metavar="A,B,…", help="edges of the bins")
    verb.add_argument("--bins", type=int, metavar="N", help="instead: so many bins of equal numbers (else every value)")
    verb.add_argument("--where", metavar="SQL", help="what is selected (flags = 0)")
    verb.add_argument("--weight", metavar="SQL", help="weight of each object (1)")
    verb.add_argument("--frame", choices=["pixel", "sky"], help="of the shear (pixel)")
    verb.add_argument("--prefix", metavar="BUNDLE", help="whose columns, in a catalog of several bundles")
    verb.add_argument("--labels", metavar="SOURCE", help="truth by object_id: Stamps or a Parquet file")
    verb.add_argument("--calibration", metavar="CATALOG", help="simulated branches for the selection response")
    verb.add_argument("--calibration-labels", metavar="SOURCE", help="their truth")
    verb.add_argument("--step", type=float, metavar="G", help="shear of columns like snr_1p (0.01)")
    verb.add_argument("--resample-by", metavar="SQL", help="objects that share it are resampled together")
    verb.add_argument("--bootstrap", type=int, metavar="N", help="samples (500)")
    verb.add_argument("--seed", type=int, metavar="S", help="of the bootstrap (0)")
    verb.add_argument("--to", metavar="FILE", help=".parquet, .csv, .fits or .vot for the bins")


def _rank(options: argparse.Namespace) -> int:
    from workflows.rank import rank, show

    names = "top score where like learn scores latent features learner fold_radius fold_latent to"
    result = rank(options.catalog, **chosen(options, *names.split()))
    if options.json:
        told = {name: getattr(result, name) for name in ("catalog", "by", "objects", "ranked", "folded", "seconds")}
        print(json.dumps({**told, "rows": len(result), "to": options.to}))
        return DONE
    if options.to:
        print(f"{len(result)} rows by {result.by} written to {options.to}")
    else:
        print(show(result))
    return DONE


def _add_ranking(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG")
    verb.add_argument("--score", metavar="SQL", help="column or expression, higher first (anomaly_score)")
    verb.add_argument("--where", metavar="SQL", help="which objects compete, as 'flags = 0'")
    verb.add_argument("--scores", metavar="FILE", help="people's scores (CATALOG.scores.jsonl beside the catalog)")
    verb.add_argument("--latent", metavar="COLUMN", help="vectors that likeness and learning go by (latent)")
    verb.add_argument("--features", type=names, metavar="A,B,…", help="instead: columns of numbers")
    verb.add_argument(
        "--learner",
        choices=["forest", "astronomaly", "score_process", "gaussian_process"],
        help="of what people score (astronomaly)",
    )


def _add_rank(verb: argparse.ArgumentParser) -> None:
    _add_ranking(verb)
    verb.add_argument("--top", type=int, metavar="N", help="objects of the list (100)")
    verb.add_argument("--like", type=int, metavar="OBJECT_ID", help="instead: nearest to this object in latent space")
    verb.add_argument("--learn", action="store_true", default=None, help="instead: learned from people's scores")
    verb.add_argument("--fold-radius", type=float, metavar="ARCSEC", help="near-duplicates on the sky (1; 0: none)")
    verb.add_argument("--fold-latent", type=float, metavar="D", help="near-duplicates in latent space (0: none)")
    verb.add_argument("--to", metavar="FILE", help=".parquet, .csv, .fits or .vot")


def _label(options: argparse.Namespace) -> int:
    from astroml_plugin.labelling.server import LabelServer
    from astroml_plugin.labelling.session import SessionSettings
    from workflows.label import label

    def ready(server: LabelServer) -> None:
        session = server.session
        if session.no_pixels:
            complain(f"warning: {session.no_pixels}", DONE)
        if session.scores.skipped:
            complain(f"warning: {session.scores.skipped} lines of {session.scores.path} are no scores", DONE)
        print(f"{len(session.ranking)} objects by {session.ranking.by}; scores go to {session.scores.path}")
        print(f"open {server.url}  (Ctrl-C ends; every score is stored as it is given)", flush=True)

    settings = SessionSettings(
        **chosen(options, "top", "score", "where", "latent", "features", "learner", "size", "index")
    )
    given = chosen(options, "source", "scores", "who", "port")
    count = label(options.catalog, settings=settings, ready=ready, **given)
    return finish(options, {"catalog": options.catalog, "scored": count}, f"{count} objects have scores")


def _add_label(verb: argparse.ArgumentParser) -> None:
    _add_ranking(verb)
    verb.add_argument("--source", metavar="SOURCE", help="with the pixels (what the catalog was made from)")
    verb.add_argument("--top", type=int, metavar="N", help="objects of the page (200)")
    verb.add_argument("--size", type=int, metavar="PX", help="side of a picture (that of the stamps; 64)")
    verb.add_argument(
        "--index", action="store_true", default=None, help="answer m from an index (needs the extra index)"
    )
    verb.add_argument("--port", type=int, metavar="N", help="of the page on 127.0.0.1 (0: any free one)")
    verb.add_argument("--who", metavar="NAME", help="who scores (your user name)")


def _query(options: argparse.Namespace) -> int:
    from workflows.query import query, show

    cone = tuple(options.cone) if options.cone else None
    result = query(options.catalog, options.sql, cone=cone, **chosen(options, "to", "limit"))
    if options.json:
        print(json.dumps({"rows": result.rows, "to": options.to}))
    elif options.to:
        print(f"{result.rows} rows written to {options.to}")
    else:
        print(show(result))
    return DONE


def _add_query(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG")
    verb.add_argument("sql", nargs="?", metavar="SQL", help="over the views catalog, failures, unplaced")
    verb.add_argument("--cone", nargs=3, type=float, metavar=("RA", "DEC", "RADIUS_DEG"), help="rows in this circle")
    verb.add_argument("--to", metavar="FILE", help=".parquet, .csv, .fits or .vot")
    verb.add_argument("--limit", type=int, metavar="N", help="rows at most")


def _segmentation_map(options: argparse.Namespace) -> int:
    from workflows.segmentation_map import segmentation_map

    box = tuple(options.box) if options.box else None
    result = segmentation_map(options.catalog, to=options.to, box=box, **chosen(options, "tile", "image"))
    for name in result.missing:
        complain(f"warning: tile {name} has no label map yet, its objects are left out", DONE)
    return finish(options, result, f"{result.objects} objects on {result.width} x {result.height} px in {result.to}")


def _add_segmentation_map(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG", help="of an infer run with a bundle that finds objects")
    verb.add_argument("--tile", metavar="NAME", help="a tile's outer box")
    verb.add_argument("--image", metavar="NAME", help="instead: a parent image (the only one)")
    verb.add_argument(
        "--box", nargs=4, type=int, metavar=("X0", "Y0", "X1", "Y1"), help="pixels [x0, x1) x [y0, y1) of it (all)"
    )
    verb.add_argument("--to", required=True, metavar="FILE.fits", help="labels with WCS, and the objects as a table")


def _compact(options: argparse.Namespace) -> int:
    from workflows.compact import compact

    result = compact(options.catalog, **chosen(options, "target_bytes"))
    line = f"merged {result.parts_merged} parts into {result.files_written} files at {options.catalog}"
    return finish(options, result, line)


def _add_compact(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG")
    verb.add_argument("--target-bytes", type=int, metavar="N", help="size of the merged files (512 MB)")


def _verify(options: argparse.Namespace) -> int:
    from workflows.verify import verify

    result = verify(options.catalog, repair=options.repair)
    for damage in result.damages:
        concerned = f" ({damage.units} units, {damage.rows} rows)" if damage.units else ""
        complain(f"{'mended' if damage.mended else 'damaged'}: {damage.path}: {damage.what}{concerned}", DONE)
    state = "whole" if not result.damages else f"{len(result.damages)} damages"
    line = f"{options.catalog}: {result.files} files, {result.rows} rows read, {state}"
    return finish(options, result, line, DONE if result.is_whole else SOME_FAILED)


def _add_verify(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG")
    verb.add_argument("--repair", action="store_true", help="make derived files again, move unusable ones aside")


VERBS: dict[str, Verb] = {
    "class-statistics": (
        _class_statistics,
        "Class fractions of a catalog and thresholds with the purity and completeness that they give.",
        "catalog --evaluation report/metrics.json --class lens --purity 0.9 --prior lens=0.001",
        _add_class_statistics,
    ),
    "shear": (
        _shear,
        "Mean shear of a catalog in bins, with bootstrap errors.",
        "catalog --by half_light_radius --bins 5 --where 'flags = 0 AND e1_err < 0.2' --frame sky",
        _add_shear,
    ),
    "rank": (
        _rank,
        "The top of a catalog of any size, near-duplicates folded; or what is like an object.",
        "catalog --top 100 --score p_lens --where 'flags = 0' --fold-radius 2 --to lenses.fits",
        _add_rank,
    ),
    "label": (
        _label,
        "A page of pictures on this machine to score the top objects, and a ranking that learns from the scores.",
        "catalog --source survey.zarr --top 500 --where 'flags & 2 = 0'",
        _add_label,
    ),
    "query": (
        _query,
        "Ask a catalog: SQL, a cone, or both.",
        'catalog "SELECT object_id, e1, e2 FROM catalog WHERE flags = 0" --cone 150.1 2.2 0.05 --to near.fits',
        _add_query,
    ),
    "segmentation-map": (
        _segmentation_map,
        "Which pixels belong to which found object, as FITS: a tile, or any box of an image.",
        "catalog --tile field_r0_c0 --to outlines.fits",
        _add_segmentation_map,
    ),
    "verify": (_verify, "Check a catalog for damage, and mend what can be mended.", "catalog --repair", _add_verify),
    "compact": (_compact, "Merge finished parts into large files.", "catalog", _add_compact),
}
