"""The whole method on a model of random weights."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

import pnp_ovss
from pnp_ovss import PRESETS, ConfigError, InputError, Segmenter
from pnp_ovss.methods import resolve_config
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.methods.presence import Presence
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.models import FAMILIES, MODELS, loading
from pnp_ovss.models.loading import resolve_device, resolve_dtype
from pnp_ovss.refine.budget import need
from pnp_ovss.segmenter import Located, _alike
from pnp_ovss.types import ClassMaps, Vocabulary
from tiny import tiny_blip2, tiny_bridgetower, tiny_vilt

PHOTO = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
OVERRIDES = {"size": 32, "layer": 0, "head": 1, "drop": 3}


@pytest.fixture(scope="module")
def segmenter(tiny_blip_folder) -> Segmenter:
    return Segmenter.from_pretrained(tiny_blip_folder, device="cpu", **OVERRIDES)


def test_a_result_says_what_it_is_and_what_made_it(segmenter, tiny_blip_folder):
    result = segmenter(PHOTO, ["dog", "traffic light"])
    assert result.classes == ("background", "dog", "traffic light")
    assert result.labels.shape == (20, 30)
    assert set(np.unique(result.labels)) <= {0, 1, 2}
    assert result.scores.shape == (3, 20, 30)
    assert result.salience.shape == (2, 4, 4)
    assert (result.scores.dtype, result.salience.dtype) == (np.float32, np.float32)
    assert np.array_equal(result.labels, result.scores.argmax(0))
    assert result.config == segmenter.config
    assert result.model == str(tiny_blip_folder)
    assert result.revision.startswith("local-")
    assert result.version == pnp_ovss.__version__
    assert sum(result.areas.values()) == pytest.approx(1)
    assert list(result.areas) == list(result.classes)


def test_the_result_is_the_stages_one_after_the_other(segmenter):
    result = segmenter(PHOTO, ["dog", "traffic light"])
    pixels = segmenter.method.vlm.prepare(PHOTO, 32)[None]
    prompts = [pnp_ovss.make_prompt(["dog", "traffic light"])]
    maps = pnp_ovss.salience(segmenter.method.vlm, pixels, prompts, segmenter.config)[0].numpy()
    np.testing.assert_array_equal(result.salience, maps)
    labels, scores = pnp_ovss.refine(maps, PHOTO, segmenter.config)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_array_equal(result.scores, scores)
    assert result.match == pytest.approx(float(segmenter.method.vlm.attend(pixels, prompts).match))


def test_the_same_photo_twice_gives_the_same_labels(segmenter):
    first, second = (segmenter(PHOTO, ["dog", "cat"]) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.salience, second.salience)


def test_a_batch_of_mixed_photos_and_class_counts_is_its_photos_one_by_one(segmenter):
    photos = [PHOTO, np.ascontiguousarray(PHOTO[:, ::-1][:10])]
    names = [["dog", "traffic light", "cat"], ["house"]]
    together = segmenter(photos, names)
    for photo, classes, result in zip(photos, names, together, strict=True):
        alone = segmenter(photo, classes)
        assert result.classes == alone.classes
        np.testing.assert_allclose(result.salience, alone.salience, rtol=1e-4, atol=1e-8)
        assert (result.labels == alone.labels).mean() > 0.99


def test_a_path_a_pil_image_and_an_array_are_the_same_photo(segmenter, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(PHOTO).save(path)
    expected = segmenter(PHOTO, ["dog"]).labels
    for photo in (path, str(path), Image.fromarray(PHOTO)):
        np.testing.assert_array_equal(segmenter(photo, ["dog"]).labels, expected)


def test_without_a_background_the_first_class_is_label_0(segmenter):
    bare = Segmenter(PnP(segmenter.method.vlm, replace(segmenter.config, background="never")))
    result = bare(PHOTO, ["dog", "cat"])
    assert result.classes == ("dog", "cat")
    assert result.scores.shape == (2, 20, 30)
    few = Segmenter(PnP(segmenter.method.vlm, replace(segmenter.config, background="few")))
    assert [few(PHOTO, names).classes[0] for names in (["dog", "cat"], ["dog", "cat", "car"])] == ["background", "dog"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1)])
def test_tiny_and_thin_photos(segmenter, shape):
    result = segmenter(np.full((*shape, 3), 128, np.uint8), ["dog", "cat"])
    assert result.labels.shape == shape
    assert np.isfinite(result.scores).all()


def test_a_photo_is_prepared_once_and_one_that_changed_anew(segmenter, monkeypatch):
    seen = []
    prepare = loading._squeezed
    monkeypatch.setattr(loading, "_squeezed", lambda image, side: seen.append(image.mean()) or prepare(image, side))
    photo = np.zeros((32, 32, 3), np.uint8)
    before = segmenter(photo, ["dog"])
    photo[:16] = 255
    after = segmenter(photo, ["dog"])
    assert seen == [0, 127.5]
    assert before.match != after.match


def test_an_empty_batch_is_an_empty_list(segmenter):
    assert segmenter([], []) == []


def test_a_gpu_refines_together_what_is_alike():
    def located(size, names, cuda=True):
        maps = Mock(ClassMaps, vocabulary=Vocabulary.of(names), maps=Mock(torch.Tensor, is_cuda=cuda))
        return Located(np.zeros((*size, 3), np.uint8), maps.vocabulary, maps, None)

    alike = [located((40, 60), [name, "cat"]) for name in ("dog", "bird", "cow")]
    others = [located((60, 40), ["dog", "cat"]), located((40, 60), ["dog"]), replace(alike[0], maps=None)]
    assert [*_alike([alike[0], *others, *alike[1:]])] == [[0, 4, 5], [1], [2]]
    assert [*_alike([located((40, 60), ["dog"], cuda=False) for _ in range(2)])] == [[0], [1]]
    assert [*_alike([located((2**11, 2**11), ["dog"]) for _ in range(3)])] == [[0, 1], [2]]


def test_what_is_located_can_be_refined_more_than_once(segmenter):
    (located,) = segmenter.locate([PHOTO], [Vocabulary.of(["dog"])])
    first, second = segmenter.refine(located), segmenter.refine(located)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.labels, segmenter(PHOTO, ["dog"]).labels)


def test_each_step_is_announced_and_may_cancel(segmenter):
    steps = []

    def record(name, done, total):
        steps.append((name, done, total))

    segmenter(PHOTO, ["dog"], on_step=record)
    refinement = [("refine", 0, 2), ("refine", 1, 2), *(("crf", done, 10) for done in range(10))]
    assert steps == [*(("pass", done, 4) for done in range(4)), *refinement]

    def cancel(name, done, total):
        if (name, done) == ("crf", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segmenter(PHOTO, ["dog"], on_step=cancel)


def test_a_class_gets_the_best_of_its_words(segmenter):
    by_word = segmenter(PHOTO, ["person", "dog", "cat"])
    by_class = segmenter(PHOTO, {"being": ["person", "dog"], "cat": ["cat"]})
    assert by_class.classes == ("background", "being", "cat")
    np.testing.assert_array_equal(by_class.scores[1], by_word.scores[1:3].max(0))
    np.testing.assert_array_equal(by_class.scores[[0, 2]], by_word.scores[[0, 3]])
    np.testing.assert_array_equal(by_class.salience[0], by_word.salience[:2].max(0))
    np.testing.assert_array_equal(by_class.labels, by_class.scores.argmax(0))


def test_words_of_the_background_count_for_it(segmenter):
    words = {"background": ["sky", "grass"], "dog": ["dog"]}
    by_word, by_class = segmenter(PHOTO, ["sky", "grass", "dog"]), segmenter(PHOTO, words)
    assert by_class.classes == ("background", "dog")
    np.testing.assert_array_equal(by_class.scores[0], by_word.scores[:3].max(0))
    assert by_class.salience.shape[0] == 1
    bare = Segmenter(PnP(segmenter.method.vlm, replace(segmenter.config, background="never")))
    assert bare(PHOTO, words).classes == ("background", "dog")


def test_where_memory_is_short_a_photo_is_refined_at_fewer_pixels_and_says_so(segmenter, monkeypatch):
    photo = np.linspace(0, 255, 400 * 600 * 3).reshape(400, 600, 3).astype(np.uint8)
    whole = segmenter(photo, ["dog", "cat"])
    assert (whole.refined, whole.reduced) == ((400, 600), False)
    generous = Segmenter(segmenter.method, "100GB")(photo, ["dog", "cat"])
    assert (generous.refined, generous.reduced) == ((400, 600), False)
    np.testing.assert_array_equal(whole.labels, generous.labels)

    short = need(segmenter.config.steps(), 3, 240_000, 240_000, lambda: torch.from_numpy(photo)[None]) - 1
    monkeypatch.setattr(pnp_ovss.segmenter, "room", lambda budget: short)
    result = segmenter(photo, ["dog", "cat"])
    assert (result.refined, result.reduced) == ((346, 520), True)
    assert result.labels.shape == (400, 600)
    assert result.scores.shape == (3, 400, 600)
    np.testing.assert_array_equal(result.labels, result.scores.argmax(0))
    assert [*result.means] == pytest.approx(
        [float(part[result.labels == label].mean()) for label, part in enumerate(result.scores)], rel=1e-5
    )
    assert not segmenter(photo[:100, :100], ["dog", "cat"]).reduced


def test_a_photo_that_does_not_fit_into_the_memory_is_one_line(segmenter):
    tight = Segmenter(segmenter.method, "1MB")
    with pytest.raises(InputError, match=r"^the photo needs 0.\d GB of memory, and there is room for 0.0 GB; raise"):
        tight(PHOTO, ["dog"])
    with pytest.raises(ConfigError, match="^expected an amount of memory such as 4GB"):
        Segmenter.from_pretrained("nobody/nothing", memory="much")


def test_every_photo_needs_its_own_classes(segmenter):
    with pytest.raises(InputError, match="^expected one list of classes for each of 2 photos, got 1$"):
        segmenter([PHOTO, PHOTO], [["dog"]])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"layer": 2}, r"^expected layer from 0 to 1 for .*, got 2; choose another$"),
        (
            {"layer": 0, "head": 7},
            r"^expected head from 0 to 1 for .*, got 7; choose another$",
        ),
        (
            {"layer": 0, "head": 0, "size": 33},
            r"^expected size as a multiple of 8, .*'s patch, got 33; choose another$",
        ),
        ({"refiners": ("blurr",)}, r"^there is no refiner 'blurr'; the refiners are blur, crf"),
    ],
)
def test_settings_that_do_not_fit_the_model(tiny_blip_folder, overrides, message):
    with pytest.raises(ConfigError, match=message):
        Segmenter.from_pretrained(tiny_blip_folder, device="cpu", **(OVERRIDES | overrides))


def test_a_wrong_setting_is_found_before_the_model_is_fetched():
    with pytest.raises(ConfigError, match="^there is no setting 'treshold'"):
        Segmenter.from_pretrained("nobody/nothing", treshold=0.2)


def test_auto_is_the_models_own_preset_by_short_name_and_by_source():
    for name, model in MODELS.items():
        assert resolve_config(name) == resolve_config(model.source) == PRESETS[model.preset]
    for model in MODELS.values():
        assert isinstance(model.source, Path) or model.preset == FAMILIES[model.family].preset


@pytest.mark.parametrize(
    ("write", "preset"), [(tiny_bridgetower, "bridgetower"), (tiny_vilt, "vilt"), (tiny_blip2, "blip2")]
)
def test_auto_is_the_family_s_preset_for_a_folder(tmp_path, write, preset):
    folder = write(tmp_path / "model", patch=16, layers=7, heads=8)
    assert resolve_config(folder, head=0) == replace(PRESETS[preset], head=0)
    assert resolve_config(folder, "paper") == PRESETS["paper"]
    result = Segmenter.from_pretrained(folder, device="cpu")(PHOTO, ["dog", "cat"])
    assert result.config == PRESETS[preset]


def test_auto_for_a_blip_s_folder_is_released(tiny_blip_folder):
    assert resolve_config(tiny_blip_folder) == PRESETS["released"]


def test_auto_for_a_copy_of_a_model_in_the_box_is_that_one_s(tmp_path):
    for name in ("mini-blip", "mini-bridgetower"):
        copy = shutil.copytree(MODELS[name].source, tmp_path / name)
        assert Segmenter.from_pretrained(copy, device="cpu").config == PRESETS[MODELS[name].preset]


@pytest.mark.parametrize("name", ["somebody/blip", "no-such-model", "", "nul\0", "a/b/c", "x" * 5000])
def test_auto_is_released_where_no_family_is_known(name):
    assert resolve_config(name) == PRESETS["released"]


# Apple's GPU: no machine with one was at hand; what the code does for it is.


class _NoDoubles(TorchDispatchMode):
    """Fail where a float64 tensor is made, as that GPU does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            assert getattr(tensor, "dtype", None) != torch.float64, function
        return made


def test_the_model_makes_no_float64(segmenter):
    with _NoDoubles():
        segmenter.locate([PHOTO, PHOTO], [Vocabulary.of(["dog"]), Vocabulary.of(["cat", "boat"])])


def test_class_maps_of_an_apple_gpu_are_refined_on_the_cpu(segmenter, monkeypatch):
    moved = []

    class OnMPS(torch.Tensor):
        device = torch.device("mps")

        def cpu(self):
            moved.append(self)
            return torch.zeros(1, 4, 4)

    maps = ClassMaps(torch.zeros(1, 4, 4).as_subclass(OnMPS), Vocabulary.of(["dog"]))
    monkeypatch.setattr(segmenter.method, "class_maps", lambda *_: [maps])
    (found,) = segmenter.locate([PHOTO], [maps.vocabulary])
    assert len(moved) == 1
    assert found.maps.maps.device.type == "cpu"
    assert segmenter.refine(found).labels.shape == PHOTO.shape[:2]


def test_an_apple_gpu_is_taken_by_name_in_float32(monkeypatch):
    monkeypatch.setattr("torch.empty", lambda *_, device: SimpleNamespace(device=torch.device(device)))
    device = resolve_device("mps")
    assert device.type == "mps"
    assert resolve_dtype("auto", device) == torch.float32


# Present or absent.


def rated(chances: dict[str, float]):
    """Return what stands in for ``rate_presence`` and gives each class this chance."""

    def rate(model, photos, vocabularies, choice, size=None):
        named = [[name for name in one.classes if name != "background"] for one in vocabularies]
        return [Presence({name: chances[name] for name in names}, choice, True) for names in named]

    return rate


@pytest.fixture
def auto(segmenter, monkeypatch) -> Segmenter:
    monkeypatch.setattr("pnp_ovss.segmenter.rate_presence", rated({"dog": 0.9, "cat": 0.2, "house": 0.8, "car": 0.1}))
    return Segmenter(segmenter.method, present="auto")


def test_an_absent_class_keeps_its_place_and_has_no_pixel(segmenter, auto):
    result = auto(PHOTO, ["cat", "dog", "car", "house"])
    assert result.classes == ("background", "cat", "dog", "car", "house")
    assert result.presence.absent == ("cat", "car")
    alone = segmenter(PHOTO, ["dog", "house"])
    np.testing.assert_array_equal(result.labels, np.array([0, 2, 4])[alone.labels])
    np.testing.assert_array_equal(result.scores[[0, 2, 4]], alone.scores)
    np.testing.assert_array_equal(result.salience[[1, 3]], alone.salience)
    assert not result.scores[[1, 3]].any()
    assert not result.salience[[0, 2]].any()
    assert result.confidence[[0, 2]].tolist() == [0, 0]
    assert result.match == alone.match
    assert result.labels.dtype == alone.labels.dtype


def test_a_photo_with_no_class_is_all_background_whatever_the_settings(segmenter, auto):
    calls = []
    for background in ("always", "never"):
        method = PnP(segmenter.method.vlm, replace(segmenter.config, background=background))
        method.class_maps = lambda *_: calls.append(1)
        result = Segmenter(method, present="auto")(PHOTO, ["cat", "car"])
        assert result.classes == ("background", "cat", "car")
        assert not result.labels.any()
        assert result.areas == {"background": 1, "cat": 0, "car": 0}
        assert result.match is None
        assert result.confidence.tolist() == [0, 0]
        assert result.to_coco()["annotations"] == []
        assert result.plot().width > result.overlay().width
    assert calls == []


def test_photos_of_a_batch_have_their_own_absent_classes(segmenter, auto):
    first, second, third = auto([PHOTO, PHOTO, PHOTO], [["cat", "dog"], ["car"], {"background": ["sky"], "house": []}])
    assert [one.presence.absent for one in (first, second, third)] == [("cat",), ("car",), ()]
    np.testing.assert_array_equal(first.labels, 2 * segmenter(PHOTO, ["dog"]).labels)
    assert third.classes == ("background", "house")


def test_absent_classes_never_win_without_a_background(segmenter, auto):
    bare = Segmenter(
        PnP(segmenter.method.vlm, replace(segmenter.config, background="never", refiners=())), present="auto"
    )
    result = bare(PHOTO, ["cat", "dog"])
    assert result.classes == ("cat", "dog")
    assert (result.labels == 1).all()


def test_in_python_a_list_is_taken_at_its_word(segmenter, monkeypatch):
    monkeypatch.setattr("pnp_ovss.segmenter.rate_presence", rated({"dog": 0.9, "cat": 0.2}))
    result = segmenter(PHOTO, ["dog", "cat"])
    assert result.presence.scores == {"dog": 0.9, "cat": 0.2}
    assert result.presence.absent == ()
    assert result.areas["cat"] > 0


@pytest.mark.parametrize("drop_tokens", [False, True])
def test_the_photo_is_encoded_once_for_presence_and_first_pass(segmenter, monkeypatch, drop_tokens):
    vlm, calls = segmenter.method.vlm, []
    segmenter = Segmenter(PnP(vlm, replace(segmenter.config, drop_tokens=drop_tokens)))
    encode = vlm._encode_images
    counted = lambda self, *given: calls.append(len(given[0])) or encode(*given)  # noqa: E731
    monkeypatch.setattr(type(vlm), "_encode_images", counted)
    segmenter([PHOTO, PHOTO[:9]], [["dog"], ["dog"]])
    assert calls == [2] * segmenter.config.passes


def test_scenes_without_a_cactus_get_none():
    """A fixed list over a folder: what is not in a scene has no mask there."""
    names, right = ["rocket", "cactus"], 0
    segmenter = Segmenter.from_pretrained("mini-blip", device="cpu", present="auto")
    scenes = [draw(HELD_OUT_SEED, index) for index in range(12)]
    for scene, result in zip(scenes, segmenter([scene.image for scene in scenes], [names] * 12), strict=True):
        right += set(result.presence.absent) == {*names} - {*scene.things}
    assert right >= 11


@pytest.mark.slow
def test_absent_classes_of_a_photo_that_was_refined_smaller_score_0(segmenter, auto, monkeypatch):
    photo = np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8)
    short = need(segmenter.config.steps(), 2, 240_000, 240_000, lambda: torch.from_numpy(photo)[None]) - 1
    monkeypatch.setattr(pnp_ovss.segmenter, "room", lambda budget: short)
    result, alone = auto(photo, ["cat", "dog", "car"]), segmenter(photo, ["dog"])
    assert result.refined < (400, 600)
    np.testing.assert_array_equal(result.scores[[0, 2]], alone.scores)
    assert not result.scores[[1, 3]].any()
    np.testing.assert_array_equal(result.labels, 2 * alone.labels)
