"""Segmentation learns from label maps of any origin, end to end."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.pixels import Tile
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.segmentation.task import SegmentTask
from astroml_plugin.tasks.segmentation.truth import LAYERS, layers_of_labels
from astroml_plugin.tasks.segmentation.whole_tile import field_of, maps_of
from astroml_plugin.training.bundle import ModelBundle
from workflows.train import train

torch.set_num_threads(1)

SIDE = 64
RECIPE = """
task = "segment"
network = "unet"
[network_arguments]
widths = [16, 16]
depth = [1, 1]
head = 8
[settings]
bands = ["r"]
stamp_size = 64
[training]
batch_size = 4
learning_rate = 0.01
[split]
check_pixels = false
"""


def labelled(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(n, h, w) images of four bright blobs each in noise, and label maps as a person would draw them: discs."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images, labels = rng.normal(0, 1, (count, SIDE, SIDE)), np.zeros((count, SIDE, SIDE), np.int32)
    for image, label in zip(images, labels):
        for number in range(4):
            y, x = (16 + 32 * np.array(divmod(number, 2))) + rng.uniform(-6, 6, 2)
            square = (rows - y) ** 2 + (columns - x) ** 2
            image += 40 * np.exp(-0.5 * square / 4)
            label[square < 25] = 10 * number + 7
    return images.astype(np.float32), labels


def test_label_maps_teach_it_to_find_their_objects(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = labelled(96, rng)
    size = (SIDE, SIDE)
    store = Stamps.create(
        str(tmp_path / "s.zarr"), bands=["r"], size=size, variance=True, block=96, pixel_scale=0.2, layers=LAYERS
    )
    truth = np.stack([layers_of_labels(*pair) for pair in zip(labels, images)])
    index = store.reserve(1)
    checksum = store.write_block(index, images[:, None], np.ones_like(images[:, None]), truth=truth)
    store.commit_objects(index, pa.table({"object_id": np.arange(96)}), checksum)
    (tmp_path / "r.toml").write_text(RECIPE)
    train(str(tmp_path / "r.toml"), data=str(tmp_path / "s.zarr"), out=tmp_path / "b", epochs=14)
    model = ModelBundle.load(tmp_path / "b")
    task, (image, label) = model.task(), labelled(1, rng)
    assert isinstance(task, SegmentTask)
    tile = Tile(image, np.ones_like(image))
    found = task.detect(maps_of(task, model.network(fused=True), tile), field_of(tile, ("r",)))
    light = found.labels > 0
    assert (light & (label[0] > 0)).sum() / (light | (label[0] > 0)).sum() > 0.6
    assert np.isin([7, 17, 27, 37], label[0][found.peak_y, found.peak_x]).all()
