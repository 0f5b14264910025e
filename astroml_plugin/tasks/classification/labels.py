"""Labels of classes in all the forms that surveys and people give them: text, numbers, lists, votes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.catalog.schema import refuse_one_name
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.labels import label_texts, numbers

SEPARATOR = ";"
"""Between the names of several classes in one text; "|" is read too."""

_SPLIT = re.compile(r"[;|]")
_ROUNDING = 1e-3
_MOST_TOLD = 12


def class_names(table: pa.Table, column: str, names: Mapping[str, str]) -> np.ndarray:
    """(n,) class name of each object (object dtype), None where it has no label.

    Args:
        table: labels.
        column: label column, text or numbers.
        names: label value (as text) -> class name; empty: the values are the names.

    Raises:
        InputError: a label that `names` does not know, with counts.
    """
    texts = label_texts(table, column)
    texts[texts == ""] = None
    if not names:
        return texts
    refuse_unknown_labels([text for text in texts if text is not None], list(names), "names")
    return np.array([None if text is None else names[text] for text in texts], object)


def class_lists(table: pa.Table, column: str, names: Mapping[str, str]) -> list[list[str] | None]:
    """The classes of each object from one text of names joined by ";" or "|"; empty for none, None where unknown.

    Raises:
        InputError: a label that `names` does not know, with counts.
    """
    texts = label_texts(table, column)
    split = {text: [one.strip() for one in _SPLIT.split(text) if one.strip()] for text in set(texts) - {None}}
    lists = [None if text is None else split[text] for text in texts]
    if not names:
        return lists
    refuse_unknown_labels([one for found in lists if found is not None for one in found], list(names), "names")
    return [None if found is None else [names[one] for one in found] for found in lists]


def refuse_unknown_labels(labels: Sequence[str], known: Sequence[str], setting: str) -> None:
    """Refuse labels that are no class.

    Raises:
        InputError: names them with counts, and the classes.
    """
    classes = set(known)
    unknown = [label for label in labels if label not in classes]
    if not unknown:
        return
    values, counts = np.unique(np.array(unknown, str), return_counts=True)
    text = ", ".join(f"{str(value)!r} {count} times" for value, count in list(zip(values, counts))[:10])
    rest = f" and {len(known) - _MOST_TOLD} more" if len(known) > _MOST_TOLD else ""
    raise InputError(
        f"labels that are no class: {text}; the classes are {', '.join(known[:_MOST_TOLD])}{rest}: "
        f"extend `{setting}` or leave_out"
    )


def check_classes(classes: Sequence[str], least: int, objects: int) -> None:
    """Refuse classes that nothing can be learned of, or whose columns have no name of their own.

    Args:
        classes: names.
        least: how many there must be.
        objects: how many the labels are of.

    Raises:
        InputError: too few, or two that differ in large and small letters only.
    """
    if len(classes) < least:
        raise InputError(
            f"a classifier needs two classes or more, and the {objects} objects have only "
            f"{', '.join(classes) or 'none'}"
        )
    refuse_one_name([f"p_{name}" for name in classes])


def indices(names: np.ndarray, classes: Sequence[str], column: str) -> Tensor:
    """(n,) int64 numbers of the classes.

    Raises:
        InputError: objects without label, or with one that is no class, with counts.
    """
    refuse_missing(np.array([name is None for name in names], bool), column)
    refuse_unknown_labels(list(names), list(classes), "classes")
    position = {name: index for index, name in enumerate(classes)}
    return torch.tensor([position[name] for name in names], dtype=torch.int64)


def refuse_missing(missing: np.ndarray, column: str) -> None:
    """Refuse objects without label.

    Raises:
        InputError: how many of (n,) bool are.
    """
    if missing.any():
        raise InputError(
            f"{int(missing.sum())} of {len(missing)} objects have no label in column {column!r}: label or remove them, "
            f'or set missing = "leave_out"'
        )


def memberships(lists: Sequence[Sequence[str] | None], classes: Sequence[str]) -> np.ndarray:
    """(n, class) float32: 1 where the object has the class, 0 where not, NaN where nothing is known of the object.

    Raises:
        InputError: a label that is no class, with counts.
    """
    refuse_unknown_labels(
        [label for labels in lists if labels is not None for label in labels], list(classes), "classes"
    )
    position = {name: index for index, name in enumerate(classes)}
    result = np.zeros((len(lists), len(classes)), np.float32)
    lengths = np.array([-1 if labels is None else len(labels) for labels in lists], np.int64)
    columns = [position[label] for labels in lists if labels is not None for label in labels]
    result[np.repeat(np.arange(len(lists)), lengths.clip(0)), columns] = 1
    result[lengths < 0] = np.nan
    return result


def votes(table: pa.Table, columns: Sequence[str], count: str) -> np.ndarray:
    """(n, class) float32 votes for each class: the columns, times the column `count` where there is one.

    NaN where an object has no votes: a missing number, or none for any of the classes.

    Raises:
        InputError: negative numbers, or fractions above 1 (or summing to more) beside a number of votes.
    """
    fractions = numbers(table, columns)
    seen = fractions[~np.isnan(fractions).any(1)]
    if (seen < 0).any():
        raise InputError(
            f"{int((seen < 0).any(1).sum())} of {len(fractions)} objects have negative votes: correct them"
        )
    if count:
        above = int((seen.sum(1) > 1 + _ROUNDING).sum())
        if above:
            raise InputError(
                f"the vote fractions of {above} of {len(fractions)} objects sum to more than 1: where they are numbers "
                f"of votes already, leave `votes` empty"
            )
        fractions = fractions * numbers(table, [count])
        if (fractions < 0).any():
            raise InputError(f"column {count!r} has negative numbers of votes: correct them")
    fractions[~(fractions.sum(1) > 0)] = np.nan
    return fractions


def refuse_fractions(targets: Tensor, likelihood: str) -> None:
    """Refuse fractions of votes where their numbers are needed.

    Args:
        targets: (n, class) of a training split.
        likelihood: that of the setting.

    Raises:
        InputError: the Dirichlet-multinomial is asked for, and no object has more than one vote.
    """
    if likelihood == "dirichlet" and float(targets.sum(1).max()) <= 1 + _ROUNDING:
        raise InputError(
            'likelihood = "dirichlet" needs numbers of votes, and these are fractions: name their number in `votes`, '
            'or take "multinomial"'
        )


def known_fractions(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """(n, class) float32 from 0 to 1, NaN where unknown.

    Raises:
        InputError: other numbers, with counts.
    """
    fractions = numbers(table, columns)
    bad = (fractions < 0) | (fractions > 1)
    if bad.any():
        raise InputError(
            f"{int(bad.any(1).sum())} of {len(fractions)} objects have labels beyond 0 to 1, such as "
            f"{fractions[bad][0]:g}, in {', '.join(columns)}: write 0, 1, true, false, a fraction, or nothing where "
            f"unknown"
        )
    return fractions


def most_votes(targets: Tensor) -> Tensor:
    """(n,) class numbers; of votes (n, class) the class that has most."""
    return targets if targets.ndim == 1 else targets.argmax(1)
