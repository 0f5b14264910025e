"""The command `astroml-plugin VERB`: a thin skin over the workflows. It imports only the verb it runs."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, NoReturn

from astroml_plugin import __version__
from astroml_plugin.errors import AstromlError
from workflows.progress import Reporter

DONE, UNEXPECTED, WRONG_INPUT, SOME_FAILED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

_DISK = {errno.ENOSPC: "no space is left on the disk", errno.EDQUOT: "the disk quota is used up"}


class _Terminated(BaseException):
    """SIGTERM."""


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are one sentence and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status of the contract."""
    # Threads of torch that spin at barriers starve each other where cores are shared; asked before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = _parsed(_parser(), arguments)
    with contextlib.suppress(ValueError):  # not in the main thread: signals stay the caller's
        signal.signal(signal.SIGTERM, _on_terminate)
    try:
        return int(options.run(options))
    except AstromlError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("stopped; what is finished is kept, run the same command to go on", INTERRUPTED)
    except _Terminated:
        return _complain("terminated; what is finished is kept, run the same command to go on", TERMINATED)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader of our output has gone
        return DONE
    except OSError as error:
        return _complain(_os_sentence(error), WRONG_INPUT)
    except Exception as error:
        if os.environ.get("ASTROML_DEBUG"):
            raise
        if _is_remote_failure(error):
            return _complain(
                f"the store cannot be reached or read: {error}; check URL, network and credentials", WRONG_INPUT
            )
        return _complain(
            f"unexpected failure: {type(error).__name__}: {error} (ASTROML_DEBUG=1 shows the trace)", UNEXPECTED
        )


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; the SQL of `query` may come after them too (argparse fills an optional argument only once)."""
    given = [_plain_number(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    options, left = parser.parse_known_args(given)
    if options.verb == "query" and options.sql is None and len(left) == 1 and not left[0].startswith("-"):
        options.sql = left.pop()
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def _plain_number(word: str) -> str:
    """Negative numbers such as -1e-5 without their exponent: argparse takes them for options before Python 3.14."""
    if not word.startswith("-") or "e" not in word.lower():
        return word
    with contextlib.suppress(ValueError):
        return f"{float(word):.17f}"
    return word


def entry() -> NoReturn:
    """The console script: after trouble it leaves at once, without waiting for threads that still read, or hang."""
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if status != DONE:
        os._exit(status)
    sys.exit(status)


def _on_terminate(signum: int, frame: Any) -> None:
    raise _Terminated


def _complain(sentence: str, status: int) -> int:
    from astroml_plugin.storage import redact

    print(f"astroml-plugin: {redact(' '.join(sentence.split()))}", file=sys.stderr)
    return status


def _is_remote_failure(error: Exception) -> bool:
    from astroml_plugin.storage import is_remote_failure

    return is_remote_failure(error)


def _os_sentence(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in _DISK:
        return f"{_DISK[error.errno]}{place}: free some and run the same command again, finished work is kept"
    return f"{error.strerror or error}{place}: check the path and its permissions"


# ---- the verbs ---------------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    from workflows.demo import demo

    with _quiet(), Reporter() as report:
        result = demo(out=options.out, images=options.images, progress=report)
    return _finish(options, result, result.summary)


def _ingest(options: argparse.Namespace) -> int:
    from workflows.ingest import ingest

    with_defaults = "bands tile_size halo name npz_map layout table zero_point psf hdu saturation block pixel_scale"
    patterns = "variance_pattern weight_pattern mask_pattern mask_map"
    settings = _chosen(options, *with_defaults.split(), *patterns.split())
    with _quiet(), _client(options) as client, Reporter() as report:
        result = ingest(options.inputs, out=options.out, client=client, progress=report, **settings)
    what = "stamps" if result.kind == "stamps" else "tiles"
    line = (
        f"ingested {result.units_done} units ({result.units_skipped} there already), {result.rows} {what}, "
        f"{result.bytes / 1e6:.1f} MB into {result.source} in {result.seconds:.1f} s"
    )
    if result.left_out:
        left = ", ".join(result.left_out)
        _complain(f"warning: arrays that do not belong to the stamps were left out: {left} (see --npz-map)", DONE)
    for unit, reason in result.failed:
        _complain(f"{unit} failed: {reason}", SOME_FAILED)
    if result.failed and not result.units_done + result.units_skipped:
        return WRONG_INPUT
    return _finish(options, result, line, SOME_FAILED if result.failed else DONE)


def _simulate(options: argparse.Namespace) -> int:
    from workflows.simulate import simulate

    general = "kind count seed size bands tile_size halo density snr block preset hst pairs shear psf_leakage"
    settings = _chosen(options, *general.split(), settings="changes")
    with _quiet(), _client(options) as client, Reporter() as report:
        result = simulate(out=options.out, client=client, progress=report, **settings)
    for unit, reason in result.failures.items():
        _complain(f"{unit} failed: {reason}", SOME_FAILED)
    line = f"simulated {result.rows} objects in {result.units_done} units at {result.source} in {result.seconds:.1f} s"
    return _finish(options, result, line, SOME_FAILED if result.units_failed else DONE)


def _draw(options: argparse.Namespace) -> int:
    from workflows.draw import draw

    settings = _chosen(options, "count", "seed", "conditions", "noise")
    with Reporter() as report:
        result = draw(options.bundle, out=options.out, progress=report, **settings)
    line = f"drew {result.rows} galaxies that nobody saw into {result.source} in {result.seconds:.1f} s"
    return _finish(options, result, line)


def _train(options: argparse.Namespace) -> int:
    from workflows.train import train

    settings = _chosen(options, "epochs", "seed", "device", "processes", "response")
    with _quiet(), Reporter() as report:
        result = train(options.recipe, data=options.data, out=options.out, progress=report, **settings)
    return _finish(options, result, f"trained {result.bundle} in {result.epochs} epochs, {result.seconds:.0f} s")


def _search(options: argparse.Namespace) -> int:
    from workflows.search import SETTINGS, search

    settings = _chosen(options, *SETTINGS, "ray_address", "device", "retrain", "leave_open", "retry_failed")
    with _quiet("ray"), Reporter() as report:
        result = search(options.recipe, data=options.data, out=options.out, progress=report.search, **settings)
    counts = ", ".join(f"{count} {name}" for name, count in result.statuses.items() if count)
    what = result.bundle or f"no bundle yet (left open), recipe {result.study}/best.toml"
    own = "" if result.baseline is None else f" (the recipe's own values: {result.baseline:.5g})"
    line = f"searched {result.trials} trials ({counts}); best is trial {result.best}, {result.value:.5g}{own}: {what}"
    return _finish(options, result, f"{line}, {result.seconds:.0f} s")


def _infer(options: argparse.Namespace) -> int:
    from astroml_plugin.objects import ObjectSettings
    from workflows.infer import dry_run, infer

    shared = _chosen(options, "band", "pixel_scale_tolerance", "assume_psf_fwhm", "prior", "symmetries", "objects")
    if options.dry_run:
        planned = dry_run(options.source, bundle=options.bundle, threads=options.threads, **shared)
        line = (
            f"{planned.units} units, {planned.bytes / 1e9:.2f} GB to read,"
            f" about {planned.memory / 1e9:.2f} GB of memory "
            f"per worker; nothing was written"
        )
        if planned.detecting:
            line += f"; how many objects there are is known when {planned.detecting} has found them"
        return _finish(options, planned, line)
    settings = ObjectSettings(**_chosen(options, "columns", "frame", "pixel_origin", objects_format="format"))
    shared |= _chosen(options, "scheduler", "workers", "threads", "batch", "device", "shard")
    shared |= _chosen(options, "precision", "compiling", "labels", "unit_timeout", "memory")
    with _quiet(), Reporter() as report:
        result = infer(
            options.source,
            bundle=options.bundle,
            out=options.out,
            objects_settings=settings,
            progress=report.tally,
            objects_progress=report.objects,
            connected=lambda client: _show(report, client),
            **shared,
        )
    if result.unplaced:
        warn = f"warning: {result.unplaced} objects are on no tile or have no usable position; see the view `unplaced`"
        print(warn, file=sys.stderr)
    if result.units_failed:
        print(_why_failed(result.catalog), file=sys.stderr)
    rate = result.rows / result.seconds if result.seconds else 0.0
    line = (
        f"{result.rows} rows in {result.units_done} units ({result.units_skipped} done before, {result.units_failed} "
        f"failed) at {result.catalog} in {result.seconds:.1f} s, {rate:,.0f} objects/s"
    )
    return _finish(options, result, line, SOME_FAILED if result.units_failed else DONE)


def _show(report: Reporter, client: Any) -> None:
    """Say where Dask shows what it does."""
    from astroml_plugin.cluster import looking_glasses

    for name, url in looking_glasses(client).items():
        report.say(f"Dask {name}: {url}")


def _why_failed(catalog: str) -> str:
    """One failed unit's reason, and where the others are."""
    from astroml_plugin.catalog import Catalog

    first = Catalog.open(catalog).failures().slice(0, 1).to_pylist()
    example = f", for example {first[0]['unit']}: {' '.join(first[0]['reason'].split())}" if first else ""
    return f"warning: units failed{example}; see the view `failures`, the same command tries them again"


def _evaluate(options: argparse.Namespace) -> int:
    from workflows.evaluate import evaluate, show

    settings = _chosen(options, "band", "device", "baselines", "robustness", "prior", "symmetries")
    with _quiet():
        result = evaluate(options.source, bundle=options.bundle, out=options.out, **settings)
    return _finish(options, result, show(result))


def _classes(options: argparse.Namespace) -> int:
    from workflows.classes import classes, show

    settings = _chosen(options, "top", "prior", "where", "to", "purity", name="class_name")
    result = classes(options.catalog, evaluation=options.evaluation, **settings)
    return _finish(options, result, show(result))


def _respond(options: argparse.Namespace) -> int:
    from workflows.respond import respond

    settings = _chosen(options, "out", "band", "method", "psf_pairs", "draws", "seed")
    with _quiet():
        result = respond(options.bundle, data=options.data, **settings)
    used = result.report.get("images") or sum(result.report["pairs"])
    line = f"response of {result.bundle.name} fitted on {used} {result.report['from']}: {result.bundle.url}"
    line += f", {result.seconds:.0f} s; the mean response of such galaxies is known to {result.precision:.2%}"
    return _finish(options, {"bundle": result.bundle.url, **result.report}, line)


def _compare(options: argparse.Namespace) -> int:
    from workflows.compare import compare

    settings = _chosen(options, "folds", "methods", "test", "bundle", "device")
    with _quiet(), Reporter() as report:
        result = compare(options.recipe, data=options.data, out=options.out, progress=report, **settings)
    line = f"compared {len(result.table)} methods on {result.objects} objects into {result.out}"
    return _finish(options, result, f"{result.text}{line}")


def _learning_curve(options: argparse.Namespace) -> int:
    from workflows.learning_curve import learning_curve

    settings = _chosen(options, "sizes", "methods", "metric", "target", "seeds", "test", "device")
    with _quiet(), Reporter() as report:
        result = learning_curve(options.recipe, data=options.data, out=options.out, progress=report, **settings)
    return _finish(options, result, "\n".join(result.answers.values()))


def _shear(options: argparse.Namespace) -> int:
    from workflows.shear import shear, show

    with_defaults = "by edges bins where weight frame prefix labels calibration calibration_labels step"
    settings = _chosen(options, *with_defaults.split(), "resample_by", "bootstrap", "seed", "to")
    result = shear(options.catalog, **settings)
    return _finish(options, result, show(result))


def _query(options: argparse.Namespace) -> int:
    from workflows.query import query, show

    cone = tuple(options.cone) if options.cone else None
    result = query(options.catalog, options.sql, cone=cone, **_chosen(options, "to", "limit"))
    if options.json:
        print(json.dumps({"rows": result.rows, "to": options.to}))
    elif options.to:
        print(f"{result.rows} rows written to {options.to}")
    else:
        print(show(result))
    return DONE


def _outlines(options: argparse.Namespace) -> int:
    from workflows.outlines import outlines

    box = tuple(options.box) if options.box else None
    result = outlines(options.catalog, to=options.to, box=box, **_chosen(options, "tile", "image"))
    for name in result.missing:
        _complain(f"warning: tile {name} has no label map yet, its objects are left out", DONE)
    return _finish(options, result, f"{result.objects} objects on {result.width} x {result.height} px in {result.to}")


def _rank(options: argparse.Namespace) -> int:
    from workflows.rank import rank, show

    names = "top score where like learn scores latent features learner fold_radius fold_latent to"
    result = rank(options.catalog, **_chosen(options, *names.split()))
    if options.json:
        told = {name: getattr(result, name) for name in ("catalog", "by", "objects", "ranked", "folded", "seconds")}
        print(json.dumps({**told, "rows": len(result), "to": options.to}))
        return DONE
    if options.to:
        print(f"{len(result)} rows by {result.by} written to {options.to}")
    else:
        print(show(result))
    return DONE


def _label(options: argparse.Namespace) -> int:
    from astroml_plugin.labelling.server import LabelServer
    from astroml_plugin.labelling.session import SessionSettings
    from workflows.label import label

    def ready(server: LabelServer) -> None:
        session = server.session
        if session.no_pixels:
            _complain(f"warning: {session.no_pixels}", DONE)
        if session.scores.skipped:
            _complain(f"warning: {session.scores.skipped} lines of {session.scores.path} are no scores", DONE)
        print(f"{len(session.ranking)} objects by {session.ranking.by}; scores go to {session.scores.path}")
        print(f"open {server.url}  (Ctrl-C ends; every score is stored as it is given)", flush=True)

    settings = SessionSettings(
        **_chosen(options, "top", "score", "where", "latent", "features", "learner", "size", "index")
    )
    chosen = _chosen(options, "source", "scores", "who", "port")
    count = label(options.catalog, settings=settings, ready=ready, **chosen)
    return _finish(options, {"catalog": options.catalog, "scored": count}, f"{count} objects have scores")


def _compact(options: argparse.Namespace) -> int:
    from workflows.compact import compact

    result = compact(options.catalog, **_chosen(options, "target_bytes"))
    line = f"merged {result.parts_merged} parts into {result.files_written} files at {options.catalog}"
    return _finish(options, result, line)


# ---- what the verbs share ----------------------------------------------------------------------------------------


def _chosen(options: argparse.Namespace, *names: str, **renamed: str) -> dict[str, Any]:
    """The options a person gave, by name; the others keep the workflow's defaults."""
    pairs = {**{name: name for name in names}, **renamed}
    values = {target: getattr(options, name, None) for name, target in pairs.items()}
    return {name: value for name, value in values.items() if value is not None}


def _finish(options: argparse.Namespace, result: Any, line: str, status: int = DONE) -> int:
    """The last line: what, where, how fast; as JSON on request."""
    if options.json:
        print(json.dumps(asdict(result) if is_dataclass(result) else result, default=str))  # type: ignore[arg-type]
    else:
        print(line)
    return status


@contextlib.contextmanager
def _client(options: argparse.Namespace) -> Iterator[Any]:
    from astroml_plugin.cluster import connect

    with connect(options.scheduler or "local", workers=options.workers, threads=options.threads) as client:
        yield client


@contextlib.contextmanager
def _quiet(library: str = "distributed") -> Iterator[None]:
    """Dask's or Ray's own log only where someone asks for it: our outcomes say the same in one sentence."""
    import logging

    if not os.environ.get("ASTROML_DEBUG"):
        for name in (library, f"{library}.client", "tornado.application", "asyncio"):  # levels of their own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    yield


def _batch(text: str) -> int | None:
    return None if text == "auto" else int(text)


def _gigabytes(text: str) -> int:
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of gigabytes such as 8 or 0.5") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in _names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number or list of numbers such as 30,30.5") from None


def _counts(text: str) -> tuple[int, ...]:
    values = _floats(text)
    if any(value != int(value) for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 100,200,400")
    return tuple(int(value) for value in values)


def _pair(text: str) -> tuple[float, float]:
    values = _floats(text)
    if len(values) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no range: write LOW,HIGH, for example 10,200")
    return values[0], values[1]


def _fractions(text: str) -> dict[str, float]:
    pairs = [part.partition("=") for part in _names(text)]
    try:
        found = {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        found = {}
    if not found or len(found) < len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is no prior: write CLASS=FRACTION,…, for example lens=0.001")
    return found


def _toml(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read as TOML: {error}") from error


def _shard(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(second) > 0 and int(first) <= int(second)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: write I/N, for example 0/4 ... 3/4")
    return int(first), int(second)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="astroml-plugin",
        description="Survey images in, catalogs out: Dask and Zarr feed resident PyTorch models.",
        epilog="exit status: 0 done, 1 unexpected failure, 2 wrong input or settings, 3 some units failed",
    )
    parser.add_argument("--version", action="version", version=f"astroml-plugin {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (run, describe, example, add) in _VERBS.items():
        verb = verbs.add_parser(
            name,
            help=describe,
            description=describe,
            epilog=f"example:\n  astroml-plugin {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add(verb)
        verb.add_argument("--json", action="store_true", help="print the result as one line of JSON")
        verb.set_defaults(run=run)
    return parser


def _add_cluster(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--scheduler", metavar="WHERE", help="local (default), processes, cuda, slurm or an address")
    verb.add_argument("--workers", type=int, metavar="N", help="worker processes of a cluster started here")
    verb.add_argument("--threads", type=int, metavar="N", help="compute threads per worker")


def _add_demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", default="demo-output", metavar="DIR", help="where everything goes (default demo-output)")
    verb.add_argument("--images", metavar="DIR", help="run on the FITS images of this folder instead")


def _add_ingest(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("inputs", nargs="+", metavar="INPUT", help="FITS files (URLs too), one .npz, or a folder")
    verb.add_argument("--out", required=True, metavar="ZARR", help="the Survey or Stamps to write or extend")
    verb.add_argument("--tile-size", type=int, metavar="PX", help="outer side of a tile, halo included (4096)")
    verb.add_argument("--halo", type=int, metavar="PX", help="border shared with the neighbours (128)")
    verb.add_argument("--bands", type=_names, metavar="A,B,…", help="bands of one field, one file each in this order")
    verb.add_argument("--name", help="name of the parent image (default: the file's)")
    verb.add_argument("--hdu", metavar="NAME|N", help="the only HDU to take (default: every image)")
    verb.add_argument(
        "--variance-pattern", metavar="OLD=NEW", help="how a variance file's name follows from the image's"
    )
    verb.add_argument("--weight-pattern", metavar="OLD=NEW", help="the same for inverse-variance weights")
    verb.add_argument("--mask-pattern", metavar="OLD=NEW", help="the same for mask or data-quality files")
    verb.add_argument("--mask-map", metavar="MAP", help="auto, codes, bits, nonzero, or codes:1=BAD,3=SATURATED")
    verb.add_argument("--saturation", type=float, metavar="LEVEL", help="pixels from here on are saturated (header)")
    verb.add_argument("--psf", type=_names, metavar="FITS,…", help="PSF image(s): one, or one per band")
    verb.add_argument("--zero-point", type=_floats, metavar="MAG,…", help="magnitude of one unit, one or one per band")
    verb.add_argument("--npz-map", metavar="K=KEY,…", help="names of the arrays, as images=x,label=y")
    verb.add_argument("--layout", metavar="AXES", help="order of the axes of the images, as nyxc (default ncyx)")
    verb.add_argument("--pixel-scale", type=float, metavar="ARCSEC", help="arcsec per pixel of stamps")
    verb.add_argument("--block", type=int, metavar="N", help="stamps per unit (about 32 MB)")
    verb.add_argument("--table", metavar="TABLE", help="CSV or Parquet with id_str, file_loc for a folder of stamps")
    _add_cluster(verb)


def _add_simulate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", required=True, metavar="DIR", help="where the sources and their truth go")
    verb.add_argument("--kind", choices=["survey", "stamps"], help="tiles of a sky, or stamps (default)")
    verb.add_argument("--count", type=int, metavar="N", help="stamps, or tiles of the survey")
    verb.add_argument("--seed", type=int, metavar="S", help="of everything (1)")
    verb.add_argument("--size", type=int, metavar="PX", help="side of a stamp (48; lenses 64)")
    verb.add_argument("--bands", type=_names, metavar="A,B,…", help="band names")
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
    verb.add_argument("--snr", type=_pair, metavar="LOW,HIGH", help="signal-to-noise of stamps, log-uniform (10,200)")
    verb.add_argument("--block", type=int, metavar="N", help="galaxies per unit of stamps (1024; 256 sets; 512 lenses)")
    verb.add_argument("--settings", type=_toml, metavar="TOML", help="any other setting of the simulation")
    _add_cluster(verb)


def _add_draw(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", metavar="BUNDLE", help="of the task generate")
    verb.add_argument("--out", required=True, metavar="DIR", help="stamps.zarr is put there")
    verb.add_argument("--count", type=int, metavar="N", help="galaxies (as many as conditions, else 1000)")
    verb.add_argument("--seed", type=int, metavar="S")
    verb.add_argument("--conditions", metavar="TABLE", help="columns flux, size (pixels), e1, e2, or some of them")
    verb.add_argument("--noise", type=float, metavar="SIGMA", help="white noise to add, in the stamps' units (0)")


def _add_train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", metavar="RECIPE", help="a shipped recipe or a TOML file")
    verb.add_argument("--data", required=True, nargs="+", metavar="SOURCE", help="Stamps with labels")
    verb.add_argument("--out", required=True, metavar="BUNDLE", help="folder of the trained bundle")
    verb.add_argument("--epochs", type=int, metavar="N", help="instead of the recipe's")
    verb.add_argument("--seed", type=int, metavar="S", help="instead of the recipe's")
    verb.add_argument("--device", help="torch device (default: CUDA where there is one)")
    verb.add_argument("--processes", type=int, metavar="N", help="processes here that train together (one per GPU)")
    verb.add_argument("--response", metavar="SOURCE", help="sheared pairs of simulate --pairs shear: fits r11 ... r22")


def _add_search(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", metavar="RECIPE", help="a shipped recipe or a TOML file, with [search.space]")
    verb.add_argument("--data", required=True, nargs="+", metavar="SOURCE", help="Stamps with labels")
    verb.add_argument("--out", required=True, metavar="DIR", help="folder or URL of the study")
    verb.add_argument("--algorithm", metavar="NAME", help="asha (default), random, grid, tpe, tpe-asha or pbt")
    verb.add_argument(
        "--trials", type=int, metavar="N", help="configurations (32 without another budget); pbt: members (8)"
    )
    verb.add_argument("--hours", type=float, metavar="H", help="wall time to search, earlier calls included")
    verb.add_argument("--total-epochs", type=int, metavar="N", help="epochs over all trials")
    verb.add_argument("--epochs", type=int, metavar="N", help="of one trial, at most (the recipe's)")
    verb.add_argument(
        "--objective",
        dest="objectives",
        action="append",
        metavar="NAME[:min|:max]",
        help="(validation_loss)",
    )
    verb.add_argument("--seed", type=int, metavar="S", help="of the configurations (0)")
    verb.add_argument("--grace", type=int, metavar="N", help="epochs before asha stops a trial (the warm-up)")
    verb.add_argument("--reduction", type=float, metavar="R", help="asha: one trial of R goes on at each rung (3)")
    verb.add_argument("--interval", type=int, metavar="N", help="pbt: epochs between exchanges (1)")
    verb.add_argument("--retries", type=int, metavar="N", help="further attempts of a trial whose process fails (2)")
    verb.add_argument("--cpus", type=float, metavar="N", help="cores of each process of a trial (1)")
    verb.add_argument("--gpus", type=float, metavar="N", help="GPUs of each process of a trial, also fractions (0)")
    verb.add_argument("--processes", type=int, metavar="N", help="processes that train one trial together (1)")
    verb.add_argument("--concurrent", type=int, metavar="N", help="trials at once, at most (as many as fit)")
    verb.add_argument("--ray-address", metavar="ADDRESS", help="of a running Ray cluster, or auto (else a local one)")
    verb.add_argument(
        "--no-baseline",
        dest="baseline",
        action="store_false",
        default=None,
        help="do not try the recipe's own values first",
    )
    verb.add_argument("--device", help="torch device of trials (CUDA where they have one)")
    for name, what in (
        ("--retrain", "train the winner once more instead of keeping its weights"),
        ("--leave-open", "do not measure on test, so that a larger budget can follow"),
        ("--retry-failed", "try trials again that failed in an earlier call"),
    ):
        verb.add_argument(name, action="store_true", default=None, help=what)


def _add_infer(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("source", metavar="SOURCE", help="a Survey or Stamps")
    verb.add_argument(
        "--bundle", action="append", required=True, metavar="BUNDLE", help="path, URL or name; repeatable"
    )
    verb.add_argument("--out", required=True, metavar="CATALOG", help="folder of the catalog")
    verb.add_argument("--objects", metavar="TABLE", help="what to measure in a Survey, unless a bundle finds it")
    verb.add_argument("--objects-format", choices=["parquet", "csv", "fits", "votable", "sextractor"])
    verb.add_argument("--columns", metavar="K=COLUMN,…", help="as object_id=NUMBER,ra=ALPHA_J2000 (#row: row number)")
    verb.add_argument(
        "--frame", choices=["icrs", "galactic", "pixel"], help="of the positions (default: by column names)"
    )
    verb.add_argument("--pixel-origin", type=int, choices=[0, 1], help="of pixel positions (0; *_IMAGE names imply 1)")
    verb.add_argument("--band", help="band for bundles that take any single one")
    verb.add_argument(
        "--pixel-scale-tolerance", type=float, metavar="F", help="accept this relative difference of scale"
    )
    verb.add_argument(
        "--assume-psf-fwhm",
        type=float,
        metavar="ARCSEC",
        help="a Gaussian PSF for objects that have none (flag NO_PSF)",
    )
    _add_classes_options(verb)
    verb.add_argument(
        "--batch", type=_batch, metavar="N", help="stamps per forward (auto: 128 on a CPU, on CUDA what memory holds)"
    )
    verb.add_argument("--device", help="torch device (default: CUDA where there is one)")
    verb.add_argument("--precision", choices=["float32", "auto"], help="auto: half precision on CUDA; changes rows")
    verb.add_argument(
        "--compile",
        dest="compiling",
        choices=["auto", "always", "never"],
        help="networks by torch.compile (auto: in long runs on CUDA)",
    )
    verb.add_argument(
        "--no-labels", dest="labels", action="store_false", default=None, help="no label maps of objects that are found"
    )
    verb.add_argument("--shard", type=_shard, metavar="I/N", help="every N-th unit, for array jobs")
    verb.add_argument(
        "--memory",
        type=_gigabytes,
        metavar="GB",
        help="pixels that a worker holds at once (default: half of what is free)",
    )
    verb.add_argument("--unit-timeout", type=float, metavar="S", help="a unit hangs after so long (3600; 0: never)")
    verb.add_argument("--dry-run", action="store_true", help="print units, bytes and memory, write nothing")
    _add_cluster(verb)


def _add_classes_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--prior", type=_fractions, metavar="CLASS=F,…", help="class fractions of the survey, as lens=0.001"
    )
    verb.add_argument("--symmetries", type=int, choices=[1, 2, 4, 8], help="average class probabilities over so many")


def _add_evaluate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("source", metavar="SOURCE", help="Stamps with labels")
    verb.add_argument("--bundle", required=True, metavar="BUNDLE")
    verb.add_argument("--out", required=True, metavar="DIR", help="metrics.json and figures go there")
    verb.add_argument("--band", help="band for bundles that take any single one")
    verb.add_argument(
        "--baselines", type=_names, metavar="A,B,…", help="other methods on the same pixels, as hsm,moments"
    )
    verb.add_argument(
        "--no-robustness", dest="robustness", action="store_false", default=None, help="no errors of PSF and background"
    )
    _add_classes_options(verb)
    verb.add_argument("--device", help="torch device (default: CUDA where there is one)")


def _add_respond(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", metavar="BUNDLE", help="of ellipticities")
    verb.add_argument(
        "--data", required=True, nargs="+", metavar="SOURCE", help="Stamps: sheared pairs, or any galaxies"
    )
    verb.add_argument("--out", required=True, metavar="BUNDLE", help="folder of the new bundle")
    verb.add_argument(
        "--from",
        dest="method",
        choices=["images", "pairs"],
        help="counterfactuals of the stamps themselves, no truth needed; or simulate --pairs shear (what the data are)",
    )
    verb.add_argument("--psf-pairs", nargs="+", metavar="SOURCE", help="simulate --pairs psf: mends PSF leakage first")
    verb.add_argument("--band", metavar="NAME", help="of the data, for a bundle that takes any")
    verb.add_argument("--draws", type=int, metavar="N", help="of noise per image (1)")
    verb.add_argument("--seed", type=int, metavar="S", help="of that noise (0)")


def _add_compare(verb: argparse.ArgumentParser) -> None:
    _add_labelled(verb)
    verb.add_argument("--folds", type=int, metavar="K", help="cross-validation (5); 0: the recipe's own split")
    verb.add_argument("--methods", type=_names, metavar="A,B,…", help="network and classical ones (all)")
    verb.add_argument("--bundle", action="append", metavar="BUNDLE", help="judge a finished bundle as well; repeatable")


def _add_learning_curve(verb: argparse.ArgumentParser) -> None:
    _add_labelled(verb)
    verb.add_argument(
        "--sizes", type=_counts, metavar="N,M,…", help="training objects (six, each twice the one before)"
    )
    verb.add_argument("--methods", type=_names, metavar="A,B,…", help="network,random_forest,svm_both unless given")
    verb.add_argument("--metric", help="accuracy, balanced_accuracy, macro_f1, ece, brier, nll or auroc (accuracy)")
    verb.add_argument("--target", type=float, metavar="X", help="value of the metric to reach (half of the best error)")
    verb.add_argument("--seeds", type=int, metavar="N", help="subsets of each size (3)")


def _add_labelled(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", metavar="RECIPE", help="a shipped recipe or a TOML file, of a task that classifies")
    verb.add_argument("--data", required=True, nargs="+", metavar="SOURCE", help="Stamps with labels")
    verb.add_argument("--out", required=True, metavar="DIR", help="where table, figure and predictions go")
    verb.add_argument("--test", nargs="+", metavar="SOURCE", help="judge on these instead of a test side of the data")
    verb.add_argument("--device", help="torch device of networks (default: CUDA where there is one)")


def _add_classes(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG", help="with p_<class> and label")
    verb.add_argument(
        "--evaluation", required=True, metavar="JSON", help="metrics.json of evaluate with the same bundle"
    )
    verb.add_argument("--class", dest="name", metavar="CLASS", help="the only class to choose thresholds for")
    verb.add_argument("--purity", type=_floats, metavar="P,…", help="expected purity of at least this (0.5 ... 0.99)")
    verb.add_argument("--top", type=int, metavar="N", help="instead: the N most probable objects")
    verb.add_argument("--prior", type=_fractions, metavar="CLASS=F,…", help="class fractions instead of the catalog's")
    verb.add_argument("--where", metavar="SQL", help="which objects (all that could be measured)")
    verb.add_argument("--to", metavar="FILE", help=".parquet, .csv, .fits or .vot for the thresholds")


def _add_shear(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG", help="with e1, e2 and the responses r11, r12, r21, r22")
    verb.add_argument("--by", metavar="SQL", help="column or expression to bin by")
    verb.add_argument("--edges", type=_floats, metavar="A,B,…", help="edges of the bins")
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


def _add_query(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG")
    verb.add_argument("sql", nargs="?", metavar="SQL", help="over the views catalog, failures, unplaced")
    verb.add_argument("--cone", nargs=3, type=float, metavar=("RA", "DEC", "RADIUS_DEG"), help="rows in this circle")
    verb.add_argument("--to", metavar="FILE", help=".parquet, .csv, .fits or .vot")
    verb.add_argument("--limit", type=int, metavar="N", help="rows at most")


def _add_outlines(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG", help="of an infer run with a bundle that finds objects")
    verb.add_argument("--tile", metavar="NAME", help="a tile's outer box")
    verb.add_argument("--image", metavar="NAME", help="instead: a parent image (the only one)")
    verb.add_argument(
        "--box", nargs=4, type=int, metavar=("X0", "Y0", "X1", "Y1"), help="pixels [x0, x1) x [y0, y1) of it (all)"
    )
    verb.add_argument("--to", required=True, metavar="FILE.fits", help="labels with WCS, and the objects as a table")


def _add_ranking(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG")
    verb.add_argument("--score", metavar="SQL", help="column or expression, higher first (anomaly_score)")
    verb.add_argument("--where", metavar="SQL", help="which objects compete, as 'flags = 0'")
    verb.add_argument("--scores", metavar="FILE", help="people's scores (CATALOG.scores.jsonl beside the catalog)")
    verb.add_argument("--latent", metavar="COLUMN", help="vectors that likeness and learning go by (latent)")
    verb.add_argument("--features", type=_names, metavar="A,B,…", help="instead: columns of numbers")
    verb.add_argument(
        "--learner", choices=["forest", "astronomaly", "gaussian_process"], help="of what people score (astronomaly)"
    )


def _add_rank(verb: argparse.ArgumentParser) -> None:
    _add_ranking(verb)
    verb.add_argument("--top", type=int, metavar="N", help="objects of the list (100)")
    verb.add_argument("--like", type=int, metavar="OBJECT_ID", help="instead: nearest to this object in latent space")
    verb.add_argument("--learn", action="store_true", default=None, help="instead: learned from people's scores")
    verb.add_argument("--fold-radius", type=float, metavar="ARCSEC", help="near-duplicates on the sky (1; 0: none)")
    verb.add_argument("--fold-latent", type=float, metavar="D", help="near-duplicates in latent space (0: none)")
    verb.add_argument("--to", metavar="FILE", help=".parquet, .csv, .fits or .vot")


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


def _add_compact(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("catalog", metavar="CATALOG")
    verb.add_argument("--target-bytes", type=int, metavar="N", help="size of the merged files (512 MB)")


_Verb = tuple[Callable[[argparse.Namespace], int], str, str, Callable[[argparse.ArgumentParser], None]]
_VERBS: dict[str, _Verb] = {
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
    "draw": (
        _draw,
        "Draw galaxies that were never seen from a generator.",
        "bundles/galaxies --count 1000 --out drawn --noise 2.5",
        _add_draw,
    ),
    "train": (
        _train,
        "Train a recipe on stamps with labels.",
        "ellipticity --data sky/stamps.zarr --out bundles/shapes",
        _add_train,
    ),
    "search": (
        _search,
        "Search hyperparameters with Ray Tune; run again to resume.",
        "ellipticity --data sky/stamps.zarr --out study --trials 50",
        _add_search,
    ),
    "infer": (
        _infer,
        "Measure every object and write the catalog; run again to resume.",
        "survey.zarr --bundle bundles/shapes --objects objects.parquet --out catalog",
        _add_infer,
    ),
    "evaluate": (
        _evaluate,
        "Measure how good a bundle is on labelled stamps.",
        "test.zarr --bundle bundles/shapes --out report",
        _add_evaluate,
    ),
    "respond": (
        _respond,
        "Fit the shear response of an ellipticity bundle to your galaxies, no truth needed.",
        "ellipticity --data stamps.zarr --out my-shapes",
        _add_respond,
    ),
    "compare": (
        _compare,
        "Networks and classical methods on the same folds (needs the extra classical).",
        "classify --data galaxies.zarr --out comparison --folds 5",
        _add_compare,
    ),
    "learning-curve": (
        _learning_curve,
        "How many labels does a target need?",
        "classify --data galaxies.zarr --out curve --target 0.9",
        _add_learning_curve,
    ),
    "classes": (
        _classes,
        "Class fractions of a catalog and thresholds with the purity and completeness that they give.",
        "catalog --evaluation report/metrics.json --class lens --purity 0.9 --prior lens=0.001",
        _add_classes,
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
    "outlines": (
        _outlines,
        "Which pixels belong to which found object, as FITS: a tile, or any box of an image.",
        "catalog --tile field_r0_c0 --to outlines.fits",
        _add_outlines,
    ),
    "compact": (_compact, "Merge finished parts into large files.", "catalog", _add_compact),
}

if __name__ == "__main__":
    entry()
