"""The zoo model inside FiftyOne itself, where it and a database for it are there (FIFTYONE_DATABASE_URI)."""

import os
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from local_server import running
from pnp_ovss import Segmenter
from pnp_ovss.export import export
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.runs.record import load_results, write_result

if "FIFTYONE_DATABASE_URI" not in os.environ:
    pytest.skip("needs FIFTYONE_DATABASE_URI, the address of a MongoDB", allow_module_level=True)
os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
fo = pytest.importorskip("fiftyone")
foz = pytest.importorskip("fiftyone.zoo")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SOURCE = Path(__file__).parents[2] / "src/pnp_ovss/apps/fiftyone"
CLASSES = ["rocket", "cactus", "sail boat", "ice cream"]


@pytest.fixture
def dataset(tmp_path):
    dataset = fo.Dataset()
    for index, size in ((0, 112), (3, 112), (0, 160)):
        place = tmp_path / f"scene-{index}-{size}.png"
        Image.fromarray(draw(HELD_OUT_SEED, index, size).image).save(place)
        dataset.add_sample(fo.Sample(filepath=str(place)))
    yield dataset
    dataset.delete()


@pytest.fixture
def archive(tmp_path):
    """The address of the zoo source, as an archive of the repository has it."""
    repository = tmp_path / "repository"
    shutil.copytree(SOURCE, repository / "pnp-ovss-main/src/pnp_ovss/apps/fiftyone")
    (tmp_path / "served").mkdir()
    shutil.make_archive(str(tmp_path / "served/pnp-ovss"), "zip", repository)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with running(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as url:
        yield f"{url}/pnp-ovss.zip"


def test_fiftyone_fetches_the_model_and_applies_it(dataset, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "zoo"))
    foz.register_zoo_model_source(archive)
    model = foz.load_zoo_model("pnp-ovss", classes=CLASSES, model="mini-blip", device="cpu")
    dataset.apply_model(model, label_field="found")
    segmenter = Segmenter.from_pretrained("mini-blip", device="cpu")
    for sample in dataset:
        assert np.array_equal(sample.found.mask, segmenter(sample.filepath, CLASSES).labels)
    assert model.mask_targets == dict(enumerate(["background", *CLASSES]))


def test_fiftyone_loads_an_export_with_the_same_masks(dataset, tmp_path):
    segmenter = Segmenter.from_pretrained("mini-blip", device="cpu")
    results = {sample.filepath: segmenter(sample.filepath, CLASSES) for sample in dataset}
    for place, result in results.items():
        write_result(tmp_path / "results", Path(place), result.photo, result, 0.0)
    export(load_results(tmp_path / "results"), "coco", tmp_path / "coco", fetch=lambda place: Path(place).read_bytes())
    loaded = fo.Dataset.from_dir(
        dataset_type=fo.types.COCODetectionDataset,
        data_path=str(tmp_path / "coco/images"),
        labels_path=str(tmp_path / "coco/instances.json"),
        label_types="segmentations",
    )
    seen = 0
    for sample in loaded:
        result = results[str(tmp_path / Path(sample.filepath).name)]
        height, width = result.labels.shape
        for detection in sample.ground_truth.detections:
            left, top, wide, high = detection.bounding_box
            rows, columns = round(top * height), round(left * width)
            mask = np.zeros(result.labels.shape, bool)
            mask[rows : rows + round(high * height), columns : columns + round(wide * width)] = detection.mask
            assert np.array_equal(mask, result.labels == result.classes.index(detection.label))
            seen += 1
    assert seen == sum(len(np.unique(result.labels[result.labels > 0])) for result in results.values())
    loaded.delete()
