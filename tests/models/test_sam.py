"""SAM and SAM 2 against transformers' own: prompts, and masks of everything in a photo."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate
from transformers import Sam2Model, SamModel
from transformers.models.sam import image_processing_pil_sam as theirs

import pnp_ovss.models.sam as sam_module
from pnp_ovss.errors import ModelError
from pnp_ovss.models.sam import Sam, _best, _boxes, load_sam
from tiny import tiny_sam

KINDS = {"sam": SamModel, "sam2": Sam2Model}
Models = tuple[Sam, torch.nn.Module]


@pytest.fixture(scope="module", params=KINDS)
def models(request, tmp_path_factory) -> Models:
    """Ours and transformers' of one folder."""
    folder = tiny_sam(tmp_path_factory.mktemp(request.param), request.param)
    return load_sam(folder, device="cpu"), KINDS[request.param].from_pretrained(folder).eval()


def photo_of(h: int, w: int) -> np.ndarray:
    colours = gaussian_filter(np.random.default_rng(0).random((h, w, 3)), (4, 4, 0))
    return np.uint8(255 * (colours - colours.min()) / np.ptp(colours))


def processor() -> theirs.SamImageProcessorPil:
    return theirs.SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})


def pixels_of(sam: Sam, photo: np.ndarray) -> torch.Tensor:
    """Return what transformers' processor gives; that for SAM 2, which stretches, needs torchvision."""
    photo = photo if sam.pads else np.array(Image.fromarray(photo).resize((64, 64), Image.Resampling.BILINEAR))
    return processor()(photo, return_tensors="pt")["pixel_values"]


def full_size(sam: Sam, logits: torch.Tensor, photo: np.ndarray) -> torch.Tensor:
    """Return logits (1, prompt, mask, h, w) as transformers' processors enlarge them."""
    if not sam.pads:
        return interpolate(logits[0], photo.shape[:2], mode="bilinear")
    inner = [processor()._get_preprocess_shape(photo.shape[:2], 64)]
    return processor().post_process_masks(logits, [photo.shape[:2]], inner, binarize=False)[0]


@pytest.mark.parametrize("size", [(48, 80), (90, 70)])
def test_masks_of_points_and_boxes_are_those_of_transformers(models, size):
    sam, model = models
    photo, scale = photo_of(*size), torch.tensor([64 / size[1], 64 / size[0]])
    if sam.pads:
        h, w = processor()._get_preprocess_shape(size, 64)
        scale = torch.tensor([w / size[1], h / size[0]])
    points = torch.tensor([[[10.0, 12.0], [30.0, 20.0]], [[40.0, 40.0], [5.0, 30.0]]])
    labels, boxes = torch.tensor([[1, 0], [1, 1]]), torch.tensor([[2.0, 3.0, 40.0, 30.0], [10.0, 10.0, 20.0, 45.0]])
    for prompt in (
        {"points": points, "labels": labels},
        {"boxes": boxes},
        {"points": points, "labels": labels, "boxes": boxes},
    ):
        given = {
            f"input_{name}": (
                part * scale if name == "points" else part * scale.repeat(2) if name == "boxes" else part
            )[None]
            for name, part in prompt.items()
        }
        with torch.no_grad():
            expected = model(pixel_values=pixels_of(sam, photo), multimask_output=False, **given)
        embedded = sam.embed(photo)
        logits, ious = sam.logits(embedded, **prompt)
        assert torch.allclose(logits, expected.pred_masks[0], atol=1e-4)
        assert torch.allclose(ious, expected.iou_scores[0], atol=1e-5)
        large = full_size(sam, expected.pred_masks, photo)[:, 0]
        differ = (torch.from_numpy(sam.masks(embedded, **prompt)) != (large > 0)) & (large.abs() > 1e-3)
        assert not differ.any()
        assert 0.01 < (large > 0).float().mean() < 0.99


def gap(values: torch.Tensor, share: float) -> float:
    """Return a number far from all values, with about this share of them above it."""
    ordered = values.flatten().sort().values
    middle = int((1 - share) * len(ordered))
    steps = ordered[middle - 5 : middle + 6].diff()
    first = middle - 5 + int(steps.argmax())
    return float(ordered[first : first + 2].mean())


def limits(sam: Sam, model: torch.nn.Module, photo: np.ndarray, monkeypatch) -> dict[str, float]:
    """Set limits that some of the random masks pass, and return them by the names of transformers' pipeline."""
    with torch.no_grad():
        points, labels = grid(photo, sam)
        found = model(pixel_values=pixels_of(sam, photo), input_points=points, input_labels=labels)
    least = gap(found.iou_scores, 0.6)
    stable = sam_module._stability(full_size(sam, found.pred_masks, photo).flatten(0, 1))
    names = {"LEAST_IOU": least, "LEAST_STABILITY": gap(stable, 0.7), "MOST_OVERLAP": 0.99}
    for name, value in names.items():
        monkeypatch.setattr(sam_module, name, value)
    keys = ("pred_iou_thresh", "stability_score_thresh", "crops_nms_thresh")
    return dict(zip(keys, names.values(), strict=True))


def grid(photo: np.ndarray, sam: Sam) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.moveaxis(photo, 2, 0)
    _, points, _, labels = theirs._generate_crop_boxes(pixels, 64, points_per_crop=8)
    points = torch.from_numpy(points).float()
    return points, torch.from_numpy(labels)


@pytest.mark.parametrize("size", [(90, 90), (48, 80)])
def test_masks_of_everything_are_those_of_the_steps_of_transformers(models, size, monkeypatch):
    """Its pipeline needs torchvision for the last step alone, which is written out here."""
    sam, model = models
    if not sam.pads and size[0] != size[1]:
        pytest.skip("transformers' grid for SAM 2 leaves out a part of photos that are not square")
    photo = photo_of(*size)
    asked = limits(sam, model, photo, monkeypatch)
    overlap = asked.pop("crops_nms_thresh")
    points, labels = grid(photo, sam)
    with torch.no_grad():
        found = model(pixel_values=pixels_of(sam, photo), input_points=points, input_labels=labels)
    box = np.array([0, 0, size[1], size[0]])
    large = full_size(sam, found.pred_masks, photo)
    rles, scores, boxes = processor().filter_masks(large, found.iou_scores[0], size, box, **asked)
    expected = [theirs._rle_to_mask(rles[mask]) for mask in by_definition(boxes.tolist(), scores.tolist(), overlap)]
    masks = sam.everything(photo, 8)
    assert len(masks) == len(expected) > 1
    assert (masks != np.stack(expected)).mean() < 1e-4


def by_definition(boxes: list, scores: list, overlap: float) -> list[int]:
    kept = []
    for number in sorted(range(len(scores)), key=lambda number: -scores[number]):
        l0, t0, r0, b0 = boxes[number]
        for l1, t1, r1, b1 in (boxes[other] for other in kept):
            shared = max(0, min(r0, r1) - max(l0, l1)) * max(0, min(b0, b1) - max(t0, t1))
            union = (r0 - l0) * (b0 - t0) + (r1 - l1) * (b1 - t1) - shared
            if union and shared / union > overlap:
                break
        else:
            kept.append(number)
    return kept


@pytest.mark.parametrize("size", [(64, 64), (60, 60), (48, 64)])
def test_masks_of_everything_are_those_of_the_pipeline(models, size, monkeypatch):
    pytest.importorskip("torchvision")
    from transformers import MaskGenerationPipeline, Sam2ImageProcessor, SamImageProcessor

    sam, model = models
    if not sam.pads and size[0] != size[1]:
        pytest.skip("its grid for SAM 2 leaves out a part of photos that are not square")
    square, photo = {"height": 64, "width": 64}, photo_of(*size)
    own = SamImageProcessor(size={"longest_edge": 64}, pad_size=square) if sam.pads else Sam2ImageProcessor(size=square)
    pipeline = MaskGenerationPipeline(model=model, image_processor=own)
    asked = limits(sam, model, photo, monkeypatch)
    expected = pipeline(Image.fromarray(photo), points_per_crop=8, **asked)["masks"]
    masks = sam.everything(photo, 8)
    assert len(masks) == len(expected) > 1
    assert (masks != np.stack([np.asarray(mask) for mask in expected])).mean() < 1e-4


def test_masks_do_not_depend_on_how_many_prompts_are_decoded_at_a_time(models, monkeypatch):
    sam, model = models
    photo = photo_of(60, 80)
    limits(sam, model, photo, monkeypatch)
    once = sam.everything(photo, 8)
    assert (once == sam.everything(photo, 8)).all()
    monkeypatch.setitem(sam_module.PROMPTS, "cpu", 64)
    monkeypatch.setattr(sam_module, "VALUES", 1)
    again = sam.everything(photo, 8)
    assert again.shape == once.shape
    assert (again != once).mean() < 1e-4


def test_a_photo_without_a_sure_mask_has_none(models, monkeypatch):
    monkeypatch.setattr(sam_module, "LEAST_IOU", 1e9)
    assert models[0].everything(photo_of(5, 7), 2).shape == (0, 5, 7)


def test_boxes_hold_the_last_pixels_and_are_0_where_there_is_no_mask():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    assert _boxes(masks).tolist() == [[2, 1, 5, 2], [0, 0, 0, 0]]


def test_of_boxes_that_overlap_the_best_stays():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 10, 6.9]])
    assert _best(boxes, torch.tensor([0.5, 0.9, 0.1, 0.4])) == [1, 2]  # 0.8 and 0.86 of the best one
    assert _best(boxes, torch.tensor([0.9, 0.5, 0.1, 0.4])) == [0, 3, 2]  # 0.8 is too much, 0.69 is not


def test_a_checkpoint_of_another_family_is_refused(tiny_blip_folder):
    with pytest.raises(ModelError, match=r"expected a checkpoint of SAM or SAM 2 such as sam-base, got 'blip'"):
        load_sam(tiny_blip_folder)


def test_a_sam_2_for_videos_is_read_as_one_for_photos(tmp_path):
    """On the hub one checkpoint is for both: ``config.json`` names the one for videos, and there are more weights."""
    plain, video = (tiny_sam(tmp_path / name, "sam2") for name in ("plain", "video"))
    settings = json.loads((video / "config.json").read_text())
    settings |= {"model_type": "sam2_video", "architectures": ["Sam2VideoModel"], "num_maskmem": 7}
    (video / "config.json").write_text(json.dumps(settings))
    more = {"memory_encoder.projection.weight": torch.ones(2, 2)}
    save_file(load_file(video / "model.safetensors") | more, video / "model.safetensors", metadata={"format": "pt"})
    photo, prompt = photo_of(20, 30), {"boxes": torch.tensor([[2.0, 3.0, 20.0, 15.0]])}
    found = [sam.logits(sam.embed(photo), **prompt)[0] for sam in (load_sam(plain, "cpu"), load_sam(video, "cpu"))]
    assert torch.equal(*found)
