"""The CVAT function, through cvat-sdk's own driver."""

import io
import logging
import types

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import InputError
from pnp_ovss.data import rle
from pnp_ovss.mini import HELD_OUT_SEED, draw

auto = pytest.importorskip("cvat_sdk.auto_annotation")
models = pytest.importorskip("cvat_sdk.models")

from cvat_sdk.masks import decode_mask, encode_mask  # noqa: E402

from pnp_ovss.apps import cvat  # noqa: E402


class Tasks:
    """Stands in for a CVAT server: keeps what is uploaded."""

    logger = logging.getLogger("cvat")

    def __init__(self) -> None:
        self.tasks = self.api = self
        self.shapes: list = []

    def partial_update_annotations(self, action, task, *, patched_labeled_data_request) -> None:
        assert (action, task) == ("create", 5)
        self.shapes = patched_labeled_data_request.shapes


@pytest.fixture
def annotate(segmenter, scene, monkeypatch):
    """Run the function on a task with one photo, the labels in another order; return the shapes by label."""

    def run(
        threshold: float | None = None,
        polygons: bool = False,
        photo: Image.Image | None = None,
        instances: bool = False,
    ) -> list[tuple[str, object]]:
        kind = "polygon" if polygons else "mask"
        labels = [
            models.Label(id=90 + index, name=name, attributes=[], sublabels=[], type=kind)
            for index, name in enumerate(reversed(scene.things))
        ]
        media = types.SimpleNamespace(load_image=lambda: photo or Image.fromarray(scene.image))
        sample = types.SimpleNamespace(frame_name="a.png", frame_index=3, media=media)
        task = types.SimpleNamespace(labels=labels, samples=[sample])
        monkeypatch.setattr("cvat_sdk.auto_annotation.driver.TaskDataset", lambda *_, **__: task)
        client, function = Tasks(), cvat.Function(segmenter, scene.things, instances)
        auto.annotate_task(client, 5, function, conf_threshold=threshold, conv_mask_to_poly=polygons)
        names = {label.id: label.name for label in labels}
        return [(names[shape.label_id], shape) for shape in client.shapes]

    return run


def test_a_task_gets_a_mask_per_class(annotate, masks):
    shapes = annotate()
    found = {name: decode_mask(shape.points, image_width=112, image_height=112) for name, shape in shapes}
    assert found.keys() == masks.keys()
    assert all(np.array_equal(found[name], masks[name]) for name in masks)
    assert {(shape.frame, shape.source, shape.type.value) for _, shape in shapes} == {(3, "auto", "mask")}


def test_a_task_may_ask_for_polygons(annotate, masks):
    found = {name: np.zeros((112, 112), np.uint8) for name in masks}
    for name, shape in annotate(polygons=True):
        assert shape.type.value == "polygon"
        found[name] |= rle.decode([list(shape.points)], 112, 112)
    assert all(np.array_equal(found[name], mask) for name, mask in masks.items())


def test_objects_have_masks_of_their_own(annotate, expected):
    shapes, objects = annotate(instances=True), expected.instances()
    assert len(objects) > len(expected.to_hf())
    assert [shape.points for _, shape in shapes] == [encode_mask(one.mask) for one in objects]


def test_a_class_below_the_threshold_is_left_out(annotate, expected):
    scores = sorted(entry["score"] for entry in expected.to_hf())
    assert len(annotate(threshold=scores[0])) == len(scores)
    assert len(annotate(threshold=(scores[0] + scores[1]) / 2)) == len(scores) - 1


def test_cvats_command_line_finds_what_it_calls(tiny_blip_folder):
    function = cvat.create("dog, traffic light=lamp|traffic light", model=str(tiny_blip_folder), preset="mini")
    assert [(label.name, label.id) for label in function.spec.labels] == [("dog", 1), ("traffic light", 2)]
    assert function.vocabulary.flat == ("dog", "lamp", "traffic light")
    with pytest.raises(InputError, match="twice"):
        cvat.create("dog, dog", model="no-such-model")  # found before the model is looked for


def photos() -> list:
    """Photos that are more than 8-bit RGB: of 16 bits, of floats, half transparent, turned by its EXIF."""
    image = draw(HELD_OUT_SEED, 1, 112).image
    grey = np.asarray(Image.fromarray(image).convert("L"))
    half = np.dstack([image, np.full((112, 112), 255, np.uint8)])
    half[:, 56:] = 0
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(turned, format="PNG", exif=exif)
    return [
        pytest.param(Image.fromarray(grey.astype(np.uint16) * 257), np.dstack([grey] * 3), id="16 bits"),
        pytest.param(Image.fromarray(grey.astype(np.float32) / 255), np.dstack([grey] * 3), id="floats"),
        pytest.param(Image.fromarray(half), np.where(half[..., 3:] > 0, image, 255), id="transparent"),
        pytest.param(Image.open(turned), image, id="not turned"),
    ]


@pytest.mark.parametrize(("photo", "pixels"), photos())
def test_photos_are_read_as_everywhere(annotate, segmenter, scene, photo, pixels):
    found = {
        name: decode_mask(shape.points, image_width=112, image_height=112) for name, shape in annotate(photo=photo)
    }
    expected = segmenter(pixels, scene.things)
    assert found
    for label, name in enumerate(expected.classes[1:], start=1):
        assert np.array_equal(found.get(name, np.zeros((112, 112), bool)), expected.labels == label)


def test_a_photo_that_cannot_be_read_has_no_masks_and_a_warning(annotate, caplog):
    content = io.BytesIO()
    Image.new("RGB", (90, 80)).save(content, "PNG")
    assert annotate(photo=Image.open(io.BytesIO(content.getvalue()[:60]))) == []
    assert "a.png: the PIL image cannot be read" in caplog.text
