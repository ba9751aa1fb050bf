import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pnp_ovss.data import DATASETS, IGNORE, load_dataset
from pnp_ovss.data.vocabulary import load_vocabulary
from pnp_ovss.errors import InputError
from pnp_ovss.images import read_image
from shared import shared
from trees import coco, photo, save, voc, write


def truths(name: str, root: Path, protocol: str = "standard") -> dict[str, list[list[int]]]:
    dataset = load_dataset(name, root, protocol=protocol)
    return {sample.key: dataset.truth(sample).tolist() for sample in dataset.samples}


@pytest.mark.parametrize(("name", "expected"), [
    ("voc21", [[0, 15, IGNORE], [20, 1, 0]]),
    ("voc20", [[IGNORE, 15, IGNORE], [20, 1, IGNORE]]),
])  # fmt: skip
def test_voc(tmp_path, name, expected):
    assert truths(name, voc(tmp_path)) == {"2007_1": expected}
    assert truths(name, tmp_path / "VOCdevkit") == {"2007_1": expected}  # either folder will do
    assert truths(name, voc(tmp_path, listed="\ufeff2007_1\n")) == {"2007_1": expected}  # as Windows writes it
    assert load_dataset(name, tmp_path).labels[0] == ("background" if name == "voc21" else "no class")


@pytest.mark.parametrize(("name", "nothing"), [("context60", 0), ("context59", IGNORE)])
def test_context_png(tmp_path, name, nothing):
    base = tmp_path / "VOCdevkit/VOC2010"
    write(base / "ImageSets/SegmentationContext/val.txt", "2008_1\n")
    save(base / "SegmentationClassContext/2008_1.png", [[0, 59, 1]])
    assert truths(name, tmp_path) == {"2008_1": [[nothing, 59, 1]]}


def test_context_json_maps_459_ids_to_59(tmp_path):
    regions = [
        {"image_id": 7, "category_id": 2, "segmentation": {"size": [2, 3], "counts": [0, 2, 4]}},  # aeroplane
        {"image_id": 7, "category_id": 458, "segmentation": {"size": [2, 3], "counts": [1, 3, 2]}},  # wood, on top
        {"image_id": 7, "category_id": 3, "segmentation": {"size": [2, 3], "counts": [5, 1]}},  # none of the 59
        {"image_id": 8, "category_id": 2, "segmentation": {"size": [2, 3], "counts": [0, 6]}},  # another split
    ]
    images = [
        {"image_id": number, "file_name": f"2008_{number}.jpg", "height": 2, "width": 3, "phase": phase}
        for number, phase in ((7, "val"), (8, "train"))
    ]
    write(tmp_path / "VOC2010/trainval_merged.json", json.dumps({"images": images, "annos_segmentation": regions}))
    assert truths("context60", tmp_path) == {"2008_7": [[1, 59, 0], [59, 59, 0]]}


def test_a_context_id_beyond_459_is_reported(tmp_path):
    image = {"image_id": 7, "file_name": "2008_7.jpg", "height": 1, "width": 2, "phase": "val"}
    regions = [{"image_id": 7, "category_id": 460, "segmentation": {"counts": [1, 1]}}]
    write(tmp_path / "VOC2010/trainval_merged.json", json.dumps({"images": [image], "annos_segmentation": regions}))
    with pytest.raises(InputError, match="2008_7: the truth holds the unknown label id 460"):
        truths("context60", tmp_path)


def test_an_image_that_two_context_ids_share_is_reported(tmp_path):
    images = [
        {"image_id": number, "file_name": "2008_7.jpg", "height": 1, "width": 2, "phase": "val"} for number in (7, 8)
    ]
    write(tmp_path / "VOC2010/trainval_merged.json", json.dumps({"images": images, "annos_segmentation": []}))
    [(_, fault)] = load_dataset("context60", tmp_path).faults
    assert fault == "2008_7 is listed twice in trainval_merged.json; it is scored once"


def test_coco_objects_are_painted_in_file_order_the_earlier_on_top(tmp_path):
    expected = [[0, 0, 0, 0, 0, 0], [0, 80, 80, 80, 0, 0], [0, 80, 80, 80, 0, 0], [0, 0, 12, 0, 0, 0], [0] * 6]
    found = truths("object81", coco(tmp_path), "authors")
    assert found == {"000000000001": expected, "000000000002": [[0] * 6] * 5}  # 90 -> 80, 13 -> 12
    assert truths("object80", tmp_path)["000000000002"] == [[IGNORE] * 6] * 5
    assert truths("object81", tmp_path) == found  # there are no masks
    assert load_dataset("object81", tmp_path).lacks == "COCO-Stuff's masks, which papers score, are not there"


def test_coco_objects_are_the_things_in_the_masks_of_stuff(tmp_path):
    root, key = coco(tmp_path), "000000000001"
    painted = truths("object81", root)[key]
    save(root / f"stuffthingmaps/val2017/{key}.png", [[0, 12, 89, 91, 181, 255]] * 5)  # category - 1
    assert truths("object81", root) == {key: [[1, 12, 80, 0, 0, 0]] * 5}
    assert truths("object80", root) == {key: [[1, 12, 80, IGNORE, IGNORE, IGNORE]] * 5}
    assert truths("object81", root, "authors")[key] == painted
    save(root / f"annotations/val2017/{key}_instanceTrainIds.png", [[0, 1, 12, 0, 80, 0]] * 5)
    assert truths("object81", root) == {key: [[0, 1, 12, 0, 80, 0]] * 5}
    layouts = [load_dataset("object81", root, protocol=name).layout for name in ("standard", "authors")]
    assert layouts == ["instanceTrainIds PNG, val2017", "instances_val2017.json, painted, the earlier over the later"]


@pytest.mark.parametrize(("message", "spoil"), [
    (r"KeyError\('id'\)", lambda content: content["images"][0].pop("id")),
    (r"KeyError\('annotations'\)", lambda content: content.pop("annotations")),
    ("TypeError", lambda content: content["images"].append("text")),
    (r"KeyError\('image_id'\)", lambda content: content["annotations"][0].pop("image_id")),
])  # fmt: skip
def test_annotations_that_belong_to_no_image_are_one_line(tmp_path, message, spoil):
    path = coco(tmp_path) / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=f"annotations in .* are damaged: {message}.*; fetch .*annotations_trainval2017.zip"
    ):
        load_dataset("object81", tmp_path)


def test_coco_object_conversion(tmp_path):
    photo(tmp_path / "images/val2017/1.jpg", 3, 1)
    save(tmp_path / "annotations/val2017/1_instanceTrainIds.png", [[0, 1, 80]])
    assert truths("object81", tmp_path) == {"1": [[0, 1, 80]]}


def test_coco_stuff_ids_have_gaps(tmp_path):
    photo(tmp_path / "val2017/1.jpg", 6, 1)
    save(tmp_path / "stuffthingmaps/val2017/1.png", [[0, 12, 89, 91, 181, 255]])  # category - 1; there is no 11
    assert truths("stuff171", tmp_path) == {"1": [[1, 12, 80, 81, 171, IGNORE]]}


def test_coco_stuff_conversion(tmp_path):
    photo(tmp_path / "images/val2017/1.jpg", 4, 1)
    save(tmp_path / "annotations/val2017/1.png", [[0, 12, 181, 255]])
    save(tmp_path / "annotations/val2017/1_labelTrainIds.png", [[0, 11, 170, 255]])
    assert truths("stuff171", tmp_path) == {"1": [[1, 12, 171, IGNORE]]}


def test_coco_panoptic(tmp_path):
    photo(tmp_path / "val2017/1.jpg", 3, 1)
    save(tmp_path / "annotations/panoptic_val2017/1.png", [[(7, 1, 0), (0, 0, 0), (9, 0, 2)]])
    segments = [{"id": 7 + 256, "category_id": 1}, {"id": 9 + 2 * 65536, "category_id": 200}]
    annotations = {"annotations": [{"file_name": "1.png", "segments_info": segments}]}
    write(tmp_path / "annotations/panoptic_val2017.json", json.dumps(annotations))
    assert truths("panoptic133", tmp_path) == {"1": [[1, IGNORE, 133]]}
    del segments[0]["category_id"]
    write(tmp_path / "annotations/panoptic_val2017.json", json.dumps(annotations))
    with pytest.raises(InputError, match="1: expected a whole number as category_id, got None"):
        truths("panoptic133", tmp_path)


def test_ade(tmp_path):
    photo(tmp_path / "ADEChallengeData2016/images/validation/ADE_val_1.jpg", 3, 1)
    save(tmp_path / "ADEChallengeData2016/annotations/validation/ADE_val_1.png", [[0, 1, 150]])
    assert truths("ade150", tmp_path) == {"ADE_val_1": [[IGNORE, 1, 150]]}


@pytest.mark.parametrize(("listed", "expected", "labels"), [
    ("background\ncat\ndog\n", [[0, 2, IGNORE]], ("background", "cat", "dog")),
    ("# ids\n2: cat\n0: dog\n", [[2, 1, IGNORE]], ("no class", "cat", "dog")),
    ("\ufeffbackground\ncat\ndog\n", [[0, 2, IGNORE]], ("background", "cat", "dog")),  # as Windows writes it
    ("\ufeff2: cat\n0: Background\n", [[0, 1, IGNORE]], ("background", "cat")),
])  # fmt: skip
def test_folder(tmp_path, listed, expected, labels):
    photo(tmp_path / "images/a.jpg", 3, 1)
    save(tmp_path / "masks/a.png", [[0, 2, 255]])
    write(tmp_path / "classes.txt", listed)
    assert truths("folder", tmp_path) == {"a": expected}
    assert load_dataset("folder", tmp_path).labels == labels


def test_a_folder_is_called_by_its_own_name(tmp_path, monkeypatch):
    photo(tmp_path / "birds/images/a.jpg")
    save(tmp_path / "birds/masks/a.png", [[0]])
    write(tmp_path / "birds/classes.txt", "bird\n")
    monkeypatch.chdir(tmp_path / "birds")
    assert load_dataset("folder", ".").title == "birds"


@pytest.mark.parametrize("name", ["folder", "ade150", "voc21", "context60", "object81", "stuff171", "panoptic133"])
def test_two_photos_of_one_name_are_one_sample_and_told(tmp_path, name):
    for file in ("a.png", "a.jpg", "b.jpg"):
        photo(tmp_path / "images" / file)
    for key in "ab":
        save(tmp_path / f"masks/{key}.png", [[0, 1]])
    write(tmp_path / "classes.txt", "background\ncat\n")
    dataset = load_dataset(name, tmp_path)
    assert [(sample.key, sample.image) for sample in dataset.samples] == [
        ("a", tmp_path / "images/a.jpg"), ("b", tmp_path / "images/b.jpg"),
    ]  # fmt: skip
    assert dataset.faults == (("a", f"a is listed twice in {tmp_path}/images; it is scored once"),)


@pytest.mark.parametrize(("name", "wanted", "source"), [
    ("voc21", "ImageSets/Segmentation/val.txt cannot be read", "host.robots.ox.ac.uk"),
    ("context59", "trainval_merged.json cannot be read", "host.robots.ox.ac.uk"),
    ("object81", "annotations/instances_val2017.json cannot be read", "annotations_trainval2017.zip"),
    ("stuff171", "stuffthingmaps/val2017 or", "stuffthingmaps_trainval2017.zip"),
    ("panoptic133", "annotations/panoptic_val2017.json cannot be read", "panoptic_annotations_trainval2017.zip"),
    ("ade150", "images/validation", "sceneparsing.csail.mit.edu"),
    ("folder", "lacks images/ or masks/", "classes.txt"),
])  # fmt: skip
def test_a_missing_file_is_named_and_where_to_get_it(tmp_path, name, wanted, source):
    with pytest.raises(InputError) as raised:
        load_dataset(name, tmp_path)
    assert wanted in str(raised.value)
    assert source in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_split_an_unknown_name_and_no_folder(tmp_path):
    with pytest.raises(InputError, match="lists no image"):
        load_dataset("voc21", voc(tmp_path, listed="\n"))
    with pytest.raises(InputError, match="no data set 'voc'; the data sets are voc20, voc21,"):
        load_dataset("voc", tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        load_dataset("voc21", tmp_path / "nowhere")
    [sample] = load_dataset("voc21", voc(tmp_path, listed="../../2007_1\n")).samples
    assert sample.key == "2007_1"  # results are files named by it


def test_a_key_that_no_file_can_have_is_a_fault_of_its_own(tmp_path):
    dataset = load_dataset("voc21", voc(tmp_path, listed=f"2007_1\n{'x' * 300}\na\0b\n"))
    assert [sample.key for sample in dataset.samples] == ["2007_1"]
    assert [key for key, _ in dataset.faults] == ["x" * 300, "a\0b"]
    assert all("is no name that a file can have; it is left out" in fault for _, fault in dataset.faults)


@pytest.mark.parametrize("place", ["x" * 300, "~nobody/x", "~\0", "a\0b"])
def test_a_place_that_cannot_be_is_one_line(place):
    with pytest.raises(InputError, match="there is no folder"):
        load_dataset("voc21", place)
    with pytest.raises(InputError, match="there is no vocabulary"):
        load_vocabulary(place)
    with pytest.raises(InputError, match="there is no photo"):
        read_image(place)


@pytest.mark.parametrize("split", ["x" * 300, "a\0b", "c\ud800"])
@pytest.mark.parametrize("name", ["voc21", "object81", "ade150", "folder"])
def test_a_split_that_no_file_can_be_called_by_is_one_line(tmp_path, name, split):
    with pytest.raises(InputError) as raised:
        load_dataset(name, coco(tmp_path), split)
    assert str(raised.value).isprintable()


def test_an_image_listed_twice_is_there_once_and_told(tmp_path):
    dataset = load_dataset("voc21", voc(tmp_path, listed="2007_1\n2007_2\n2007_1\n"))
    assert [sample.key for sample in dataset.samples] == ["2007_1", "2007_2"]
    [(key, fault)] = dataset.faults
    assert key == "2007_1"
    assert fault.startswith("2007_1 is listed twice in ")


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: save(path, [[0, 21, 1], [0, 0, 0]]), "holds the unknown label id 21"),
    (lambda path: path.write_bytes(path.read_bytes()[:-30]), "the mask .* (cannot be read|is no picture)"),
    (lambda path: path.write_bytes(b"no picture"), "the mask .* (cannot be read|is no picture)"),
    (lambda path: path.unlink(), "the mask .* cannot be read"),
    (lambda path: Image.new("RGB", (3, 2)).save(path), "expected one channel of label ids, got RGB"),
])  # fmt: skip
def test_a_mask_that_cannot_be_used(tmp_path, spoil, message):
    dataset = load_dataset("voc21", voc(tmp_path))
    spoil(tmp_path / "VOCdevkit/VOC2012/SegmentationClass/2007_1.png")
    with pytest.raises(InputError, match=message):
        dataset.truth(dataset.samples[0])


def peak(code: str, *arguments: object) -> int:
    """Return the peak of the memory of a process that runs this code, above what importing takes, in bytes."""
    read = "[int(line.split()[1]) << 10 for line in open('/proc/self/status') if line.startswith(name)][0]"
    prelude = f"import sys\nfrom pnp_ovss.data import load_dataset\nmemory = lambda name: {read}\n"
    prelude += "from pnp_ovss import InputError\nbefore = memory('VmRSS')\n"
    command = [sys.executable, "-c", f"{prelude}{code}\nprint(memory('VmHWM') - before)", *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


TRUTH = """
dataset = load_dataset(sys.argv[1], sys.argv[2])
try:
    dataset.truth(dataset.samples[0])
except InputError:
    pass
"""


def large_panoptic(root: Path, side: int, photo_side: int) -> None:
    photo(root / "val2017/1.jpg", photo_side, photo_side)
    masks = root / "annotations/panoptic_val2017"
    masks.mkdir(parents=True)
    Image.new("RGB", (side, side), (7, 0, 0)).save(masks / "1.png")
    segments = {"file_name": "1.png", "segments_info": [{"id": 7, "category_id": 1}]}
    write(root / "annotations/panoptic_val2017.json", json.dumps({"annotations": [segments]}))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.slow
def test_a_mask_much_larger_than_its_photo_is_refused_by_its_header(tmp_path):
    large_panoptic(tmp_path, 4000, 40)
    with pytest.raises(InputError, match=r"1.png has 4000 x 4000 pixels and its photo 40 x 40; expected one size"):
        truths("panoptic133", tmp_path)
    assert peak(TRUTH, "panoptic133", tmp_path) < 10_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.slow
def test_a_large_panoptic_mask_takes_little_memory(tmp_path):
    large_panoptic(tmp_path, 3000, 3000)
    assert peak(TRUTH, "panoptic133", tmp_path) < 9_000_000 * 30


def test_annotations_of_another_size_than_their_photo_are_refused_before_they_are_painted(tmp_path):
    root = coco(tmp_path)
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    for size, fault in (
        ((9000, 9000), r"its mask in the annotations has 9000 x 9000 pixels and its photo \d x \d; expected one size"),
        ((2**23, 2**23), "its mask in the annotations has more than 150 million pixels"),
    ):
        for image in content["images"]:
            image["height"], image["width"] = size
        write(path, json.dumps(content))
        with pytest.raises(InputError, match=fault):
            truths("object81", root)


def test_a_mask_without_its_photo_is_read_all_the_same(tmp_path):
    root = voc(tmp_path)
    (root / "VOCdevkit/VOC2012/JPEGImages/2007_1.jpg").unlink(missing_ok=True)
    assert truths("voc21", root) == {"2007_1": [[0, 15, IGNORE], [20, 1, 0]]}


@pytest.mark.parametrize(("name", "folder", "count"), [
    ("voc21", "voc-dev", 10), ("voc20", "voc-dev", 10), ("panoptic133", "coco-dev", 100), ("object81", "coco-dev", 100),
])  # fmt: skip
def test_real_photos_load(name, folder, count):
    dataset = load_dataset(name, shared(f"data/{folder}"))
    assert len(dataset.samples) == count
    sample = dataset.samples[3]
    assert sample.photo().shape[:2] == dataset.truth(sample).shape
    assert name in DATASETS
