"""Attributions are right: exact where the answer is known, as captum's, and they add up; plug-ins and maps as well."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from astroml_plugin.catalog.schema import vectors
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.explanation import (
    DreamOptions,
    Filter,
    Layout,
    MethodOptions,
    Seen,
    Target,
    attributed,
    dream,
    explainable,
    faithfulness,
    feature_maps,
    in_words,
    layers,
    randomised,
    seen_by,
    summarised,
)
from astroml_plugin.explanation.baselines import blank_sky, noise_draw
from astroml_plugin.explanation.checks import rank_correlations
from astroml_plugin.explanation.outlines import outlines
from astroml_plugin.explanation.paths import PathOptions, integrated_gradients
from astroml_plugin.networks.strided_cnn import StridedCNN
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.tasks.example_stamps import example_stamps
from astroml_plugin.training.bundle import ModelBundle, shipped
from tests import planted

pytestmark = pytest.mark.usefixtures("one_thread")


class PlainTask(Task):
    """A task of others that knows nothing of explanations."""

    outputs = 2
    labels = ()

    def columns(self):
        raise NotImplementedError

    targets = loss = decode = columns


class Weighted(nn.Module):
    """The sum of the pixels with weights, twice; its square root in the second output."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)))

    def forward(self, image):
        total = (image * self.weight).sum((1, 2, 3))
        return torch.stack([total, total.abs().sqrt()], 1)


class Lowered(ClassifyTask):
    """Log odds less 100."""

    def explained_value(self, name, outputs, place):
        return super().explained_value(name, outputs, place) - 100


class Deaf(nn.Module):
    """Numbers that follow from a rounded image: no gradient passes."""

    def forward(self, image):
        return image.detach().sum((2, 3))[:, :2]


def _seen(count=6, side=16, bands=3, seed=0):
    image = torch.randn(count, bands, side, side, generator=torch.Generator().manual_seed(seed))
    usable = torch.ones_like(image, dtype=torch.bool)
    at = torch.full((count, 2), side // 2)
    return Seen(image, (), usable, at, torch.zeros(count, dtype=torch.int64))


def _target(network, number="output_0"):
    return Target(PlainTask(), explainable(network), number)


def _rectified(activation="relu"):
    torch.manual_seed(3)
    return StridedCNN(3, 2, widths=(8, 16), hidden=16, batch_norm=False, activation=activation)


def test_the_attributions_of_a_sum_are_its_terms():
    network, seen = Weighted(), _seen()
    target = _target(network)
    found = attributed(target, seen, MethodOptions())
    torch.testing.assert_close(found.maps, seen.image * network.weight, rtol=1e-4, atol=1e-5)
    assert found.error.max() < 1e-4
    assert found.forwards.tolist() == [17] * len(seen)  # a straight line needs no more
    gradient = attributed(target, seen, MethodOptions(method="gradient"))
    torch.testing.assert_close(gradient.maps, network.weight.detach().expand_as(gradient.maps))
    assert gradient.error.isnan().all()


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_integrated_gradients_are_those_of_captum(activation):
    captum = pytest.importorskip("captum.attr")
    seen, target = _seen(), _target(_rectified(activation))
    found = attributed(target, seen, MethodOptions())
    exact = captum.IntegratedGradients(target).attribute(
        seen.image, baselines=0.0, n_steps=300, additional_forward_args=seen.given()
    )
    off = (found.maps - exact).abs().sum((1, 2, 3)) / exact.abs().sum((1, 2, 3))
    assert off.max() < 0.03
    assert found.error.max() <= 1e-3
    assert (found.error >= 0).all()


def test_more_looks_where_they_are_needed_and_a_flag_where_they_do_not_suffice():
    seen, target = _seen(), _target(Weighted(), "output_1")  # the slope is infinite at the baseline
    baseline = torch.zeros_like(seen.image)
    few = integrated_gradients(target, seen, baseline, PathOptions(most=20))
    many = integrated_gradients(target, seen, baseline, PathOptions(most=200))
    assert (few.forwards <= 20).all()
    assert (few.error > 1e-3).all()
    assert (many.error < few.error / 5).all()


def test_guided_backpropagation_and_deconvnet_are_those_of_captum():
    captum = pytest.importorskip("captum.attr")
    seen, target = _seen(), _target(_rectified())
    for method, kind in (("guided", captum.GuidedBackprop), ("deconvnet", captum.Deconvolution)):
        found = attributed(target, seen, MethodOptions(method=method))
        with pytest.warns(UserWarning, match="Setting backward hooks"):
            wanted = kind(target).attribute(seen.image.clone().requires_grad_(), additional_forward_args=seen.given())
        torch.testing.assert_close(found.maps, wanted)
        assert found.maps.abs().sum() > 0
    plain = attributed(target, seen, MethodOptions(method="gradient"))
    assert (plain.maps - found.maps).abs().max() > 0.1 * plain.maps.abs().max()


def test_occlusion_of_a_sum_is_what_is_missing():
    pytest.importorskip("captum")
    network, seen = Weighted(), _seen(2)
    found = attributed(_target(network), seen, MethodOptions(method="occlusion", window=4, stride=4))
    terms = (seen.image * network.weight).reshape(2, 3, 4, 4, 4, 4).sum((3, 5))
    torch.testing.assert_close(found.maps[:, :, ::4, ::4], terms.detach(), rtol=1e-3, atol=1e-3)
    assert found.forwards.tolist() == [3 * 16 + 1] * 2


def test_a_network_without_gradient_is_refused_in_words():
    with pytest.raises(InputError, match=r"has no gradient .* --method occlusion"):
        attributed(_target(Deaf()), _seen(), MethodOptions())
    with pytest.raises(InputError, match="no layers of activation"):
        attributed(_target(Weighted()), _seen(), MethodOptions(method="guided"))
    with pytest.raises(InputError, match="did you mean 'output_1'"):
        _target(Weighted(), "output_11")
    with pytest.raises(InputError, match="tolerance"):
        MethodOptions(tolerance=0.0)
    with pytest.raises(InputError, match="must be one of"):
        MethodOptions(method="magic")


def test_noise_follows_the_object_and_its_border():
    seen, target = _seen(3, 32), _target(_rectified())
    seen.image[1] *= 5
    seen.usable[:, :, 0] = False
    drawn = noise_draw(target, seen, np.array([7, 8, 9]), 0)
    again = noise_draw(target, seen.take(torch.tensor([1])), np.array([8]), 0)
    torch.testing.assert_close(drawn[1:2], again)
    assert drawn[1].std() == pytest.approx(5, rel=0.15)
    assert drawn[0].std() == pytest.approx(1, rel=0.15)
    torch.testing.assert_close(drawn[:, :, 0], seen.image[:, :, 0])  # nothing is known there
    assert (drawn - noise_draw(target, seen, np.array([7, 8, 9]), 1)).abs().max() > 1
    found = attributed(target, seen, MethodOptions(baseline="noise", draws=3))
    assert found.error.max() <= 2e-3


def test_outlines_are_the_light_at_the_place():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    image = rng.normal(0, 1, (3, 1, 48, 48))
    disc = np.hypot(x - 24, y - 24) < 8
    image[0, 0] += 6 * disc
    image[1, 0] += 6 * (np.hypot(x - 40, y - 10) < 5)  # beside the place
    image[2, 0, 24, 24] = np.nan
    usable = np.isfinite(image)
    image = np.nan_to_num(image)
    found = outlines(torch.from_numpy(image), torch.from_numpy(usable), torch.full((3, 2), 24))
    assert (found[0] & disc).sum() / (found[0] | disc).sum() > 0.7
    assert not found[1][10, 40]
    assert found[2].sum() < 100


def test_summaries_say_where_the_attribution_is():
    seen = _seen(2, 32)
    maps = torch.zeros_like(seen.image)
    maps[0, 1, 16, 16], maps[0, 0, 0, 31] = 3.0, -1.0
    found = attributed(_target(_rectified()), seen, MethodOptions(method="gradient"))
    found = type(found)(maps, found.value, found.reference, found.error, found.forwards)
    columns = summarised(found, seen, 1e-3)
    assert columns["positive_fraction"].to_pylist() == [0.75, None]  # the second has no attribution at all
    assert columns["core_fraction"][0].as_py() == 0.75
    assert columns["band_fraction"][0].as_py() == pytest.approx([0.25, 0.75, 0])
    assert columns["cell_fraction"][0].as_py() == pytest.approx([0, 0, 0.25, 0, 0.75, 0, 0, 0, 0])
    assert columns["radial_profile"][0].as_py() == pytest.approx([0.75, *[0] * 15])
    assert columns["top_pixels"][0].as_py()[:2] == [16 * 32 + 16, 31]
    assert columns["complete"].to_pylist() == [None, None]
    names = {one.name for one in Layout(("a", "b", "c"), 32).columns("e1")} - {"rank", "map_row"}
    assert set(columns) == names


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Target and stamps of each planted cause."""
    made = {}
    for cause in ("corner", "band", "watermark"):
        bundle = ModelBundle.load(planted.bundle(str(tmp_path_factory.mktemp(cause) / "marks"), cause))
        target = Target(bundle.task(), explainable(bundle.network(fused=True)))
        image, kind = planted.stamps(cause, 32, seed=9)
        stamps = from_stamps(image, None, None, bands=planted.BANDS, pixel_scale=0.2, zero_points=(None,) * 3)
        seen = seen_by(target, stamps)
        made[cause] = target, seen.take(torch.from_numpy(np.flatnonzero(kind == 1)))
    return made


@pytest.mark.parametrize("method", ["integrated-gradients", "gradient", "guided", "deconvnet", "occlusion"])
@pytest.mark.parametrize("cause", ["corner", "band"])
def test_a_planted_cause_is_named(learned, cause, method):
    if method == "occlusion":
        pytest.importorskip("captum")
    target, seen = learned[cause]
    assert target.number == "logit_marked"
    found = attributed(target, seen, MethodOptions(method=method, window=4, stride=2))
    words = in_words(pa.table(summarised(found, seen, 1e-3)), planted.BANDS, seen.image.shape[-1])
    if cause == "corner":
        assert "one ninth of the stamp, at high x and low y" in words
    elif method == "integrated-gradients":  # others also show what speaks against it, in the other bands
        assert "of the attribution lies in band r" in words


def test_a_mark_over_the_whole_stamp_is_named(learned):
    for cause, named in (("watermark", True), ("band", False)):
        target, seen = learned[cause]
        found = attributed(target, seen, MethodOptions())
        words = in_words(pa.table(summarised(found, seen, 1e-3)), planted.BANDS, seen.image.shape[-1])
        assert ("such as a watermark" in words) is named, words


def test_channels_of_a_finder_are_no_bands_and_small_parts_have_digits(learned):
    target, seen = learned["band"]
    table = pa.table(summarised(attributed(target, seen, MethodOptions(forwards=17)), seen, 1e-3))
    small = table.set_column(
        table.column_names.index("outline_area"), "outline_area", pa.array(np.full(len(table), 4, np.int32))
    )
    assert "in band" in in_words(table, planted.BANDS, 32)
    two = small.set_column(
        small.column_names.index("band_fraction"), "band_fraction", vectors(np.tile([1.0, 0.0], (len(table), 1)))
    )
    words = in_words(two, ("signal", "usable"), 32)
    assert "in band" not in words
    assert "which have 0.39% of the pixels" in words


def test_what_a_catalog_has_no_number_for_has_no_attribution(learned):
    target, _ = learned["corner"]
    image, _ = planted.stamps("corner", 3, seed=9)
    image[1, 2] = np.nan  # a band was not observed
    stamps = from_stamps(image, None, None, bands=planted.BANDS, pixel_scale=0.2, zero_points=(None,) * 3)
    seen = seen_by(target, stamps)
    columns = summarised(attributed(target, seen, MethodOptions(forwards=17)), seen, 1e-3)
    for name in ("value", "completeness_error", "outline_fraction", "band_fraction"):
        assert [one is None for one in columns[name].to_pylist()] == [False, True, False], name


def test_faithful_attributions_beat_chance_and_follow_the_weights(learned):
    target, seen = learned["corner"]
    how = MethodOptions()
    found, baseline = attributed(target, seen, how), blank_sky(target, seen)
    score = faithfulness(target, seen, baseline, found)
    assert score.deletion.low > 0.05
    assert score.insertion.low > 0.05
    assert score.objects == len(seen)
    backwards = type(found)(-found.maps, found.value, found.reference, found.error, found.forwards)
    assert faithfulness(target, seen, baseline, backwards).deletion.high < 0
    below = Target(Lowered(target.task.settings), target.network)  # all numbers are negative, the differences are not
    for method in ("integrated-gradients", "gradient"):
        maps = attributed(below, seen, MethodOptions(method=method))
        assert (maps.value < 0).all()
        assert faithfulness(below, seen, baseline, maps).deletion.low > 0.05, method
    changed = randomised(target, seen, lambda one, stamps: attributed(one, stamps, how))
    assert len(changed) == 6
    assert list(changed.values())[-1].value < 0.9
    assert rank_correlations(found.maps, found.maps).tolist() == pytest.approx([1.0] * len(seen))


def test_dreams_grow_what_was_planted(learned):
    target, seen = learned["corner"]
    some = seen.take(slice(0, 2))
    blank = Seen(torch.zeros_like(some.image), (), some.usable, some.at, some.place)
    found = dream(target, blank, DreamOptions(steps=20), real=seen.image)
    assert (found.after > found.before + 3).all()
    light = found.image[0].sum(0).clamp_min(0).reshape(3, 8, 3, 8).sum((1, 3))  # of each ninth
    assert light.argmax() == 2, light  # low y, high x
    assert found.image.min() >= seen.image.min()
    name = next(iter(layers(target.network)))
    one = dream(Filter(target, name, 1), blank, DreamOptions(steps=10), real=seen.image)
    assert (one.after > one.before).all()
    each = Seen(blank.image, (), blank.usable, blank.at, torch.tensor([1, 2]))
    both = dream(Filter(target, name, None), each, DreamOptions(steps=10), real=seen.image)
    torch.testing.assert_close(both.image[:1], one.image[:1])  # channel 1 as before, channel 2 beside it
    assert (both.after > both.before).all()
    with pytest.raises(InputError, match="has 8 channels, there is no 8"):
        Filter(target, name, 8)
    with pytest.raises(InputError, match="the layers of this network"):
        Filter(target, "nothing", 0)
    maps = feature_maps(target, some)
    assert {key: value.shape[1] for key, value in maps.items()} == layers(target.network)


@pytest.mark.parametrize("name", shipped())
def test_numbers_of_shipped_bundles_are_those_of_their_catalogs(name):
    bundle = ModelBundle.load(name)
    task = bundle.task()
    network = explainable(task.inference_network(bundle.network(fused=True)))
    stamps = example_stamps(task.settings, task.example_side, 2)
    numbers = list(task.explained())
    for number in numbers:
        target = Target(task, network, number)
        seen = seen_by(target, stamps)
        value = target(seen.image, *seen.given()).detach()
        assert value.isfinite().all()
        found = attributed(target, seen, MethodOptions(method="gradient"))
        torch.testing.assert_close(found.value, value)
        assert found.maps.isfinite().all()
        assert found.maps.abs().sum() > 0 or len(value.unique()) == 1  # at the end of its range a sign has no slope
        if name == "segmentation":
            continue
        with torch.no_grad():
            outputs = network(seen.image, *seen.others)
        columns, _ = task.to_columns(outputs, stamps, torch.zeros(2, dtype=torch.int32))
        if number in columns:
            np.testing.assert_allclose(value, columns[number], rtol=1e-3, atol=1e-4)
    assert numbers[0] in {"logit_lens", "called", "e1", "anomaly_score", "logit_object"}


def test_log_odds_are_those_of_the_probabilities():
    task = ClassifyTask.from_settings({"classes": ["a", "b", "c"], "bands": ["r"], "temperature": 1.7})
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    chances = task.probabilities(outputs)
    for number, name in enumerate("abc"):
        place = task.explained_place(f"logit_{name}", outputs, None)
        odds = task.explained_value(f"logit_{name}", outputs, place)
        torch.testing.assert_close(odds, torch.logit(chances[:, number]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(task.explained_value(f"p_{name}", outputs, place), chances[:, number])
    place = task.explained_place("called", outputs, None)
    torch.testing.assert_close(task.explained_value("called", outputs, place), torch.logit(chances.amax(1)))
