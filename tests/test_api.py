"""The public face: what is in it, and nothing else; and what it says of what it cannot take."""

import json
import subprocess
import sys

import pnp_ovss

PUBLIC = {
    "PRESETS",
    "Attention",
    "Config",
    "ConfigError",
    "InputError",
    "ModelError",
    "PnpError",
    "Prompt",
    "Segmentation",
    "Segmenter",
    "__version__",
    "load_vlm",
    "make_prompt",
    "refine",
    "salience",
}


def test_the_public_names_are_these():
    assert set(pnp_ovss.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(pnp_ovss, name) is not None


def test_every_public_thing_is_documented():
    for name in PUBLIC - {"PRESETS", "__version__"}:
        assert getattr(pnp_ovss, name).__doc__


# In a process of its own, where nothing checks the types before the package does.
WRONG = """
import json, warnings
warnings.simplefilter("error")
import numpy as np
import pnp_ovss
from PIL import Image

photo, maps = np.zeros((8, 8, 3), np.uint8), np.ones((1, 2, 2), np.float32)
segmenter = pnp_ovss.Segmenter.from_pretrained("mini-blip", device="cpu")
said = []
for call in (
    lambda: segmenter(photo, [["rocket"]]),
    lambda: segmenter(photo, [1]),
    lambda: segmenter(photo, None),
    lambda: segmenter(photo, "dog"),
    lambda: next(segmenter.watch(photo, None)),
    lambda: segmenter([photo], None),
    lambda: segmenter([photo], "d"),
    lambda: segmenter([photo], ["dog"]),
    lambda: segmenter(None, ["dog"]),
    lambda: pnp_ovss.make_prompt([b"dog"]),
    lambda: pnp_ovss.refine(maps.tolist(), photo, segmenter.config),
    lambda: pnp_ovss.refine(maps, Image.fromarray(photo), segmenter.config),
    lambda: pnp_ovss.refine(maps, "photo.png", segmenter.config),
):
    try:
        call()
    except pnp_ovss.InputError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def test_what_is_of_the_wrong_type_is_told_in_one_line():
    run = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, timeout=300)
    assert run.stderr == ""
    text = "a text is wanted, such as ['dog', 'cat'] for one photo, or a list of such lists for a list of photos"
    names = "a list of names is wanted, such as ['dog', 'cat']"
    array = "an array or a tensor is wanted: take np.asarray(maps), pnp_ovss.images.read_image(photo)"
    assert json.loads(run.stdout) == [
        f"a class name came as list; {text}",
        f"a class name came as int; {text}",
        f"the classes came as NoneType; {names}",
        f"the classes came as one text, 'dog'; {names}",
        f"the classes came as NoneType; {names}",
        "the classes came as NoneType; a list of names for each photo is wanted",
        "the classes came as str; a list of names for each photo is wanted",
        f"the classes came as one text, 'dog'; {names}",
        "a photo came as NoneType; a path, a PIL image or an RGB uint8 array (height, width, 3) is wanted",
        f"a class name came as bytes; {text}",
        f"the class maps came as list; {array}",
        f"the photo came as Image; {array}",
        f"the photo came as str; {array}",
    ]
