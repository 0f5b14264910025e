"""Add the record of training objects to a bundle that was made before there were such records.

    python -m bundles.records BUNDLE STAMPS...

The stamps must be those that the bundle was trained on, pixel for pixel: their digest is compared with the card's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.splits import SplitSettings
from astroml_plugin.training.unseen import training_objects


def with_record(url: str, sources: Sequence[str]) -> ModelBundle:
    """Write a bundle again with the record of its training objects.

    Args:
        url: folder of the bundle.
        sources: the stores that it was trained on, in their order.

    Raises:
        InputError: other data.
    """
    model, data = ModelBundle.load(url), LabelledStamps(sources)
    training, task = model.card.training, model.task()
    if data.digest != training["digest"]:
        raise InputError(f"bundle {model.name} was trained on other data than {', '.join(sources)}")
    rows = data.split(from_mapping(SplitSettings, training["split"], "the split of the card"), task.usable(data.labels))
    if data.split_identity(rows) != training["split_ids"]:
        raise InputError(f"these data do not divide as they did when bundle {model.name} was trained")
    return ModelBundle.save(
        url, model.network(), model.card, training_objects(data, task.bands, rows), model.typicality_file()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bundles.records", description=__doc__)
    parser.add_argument("bundle", help="folder of the bundle")
    parser.add_argument("stamps", nargs="+", help="the stores that it was trained on")
    options = parser.parse_args(arguments)
    with_record(options.bundle, options.stamps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
