"""The public face: what is in it, and nothing else; and what it says of what it cannot take."""

import json
import subprocess
import sys

import pytest

import pnp_ovss

PROMISED = {
    *("PRESETS", "Attention", "Config", "ConfigError", "InputError", "ModelError", "PnpError", "Prompt"),
    *("Segmentation", "Segmenter", "load_vlm", "make_prompt", "refine", "salience", "METHODS", "load_method"),
}


def test_the_promised_names_are_there():
    assert set(pnp_ovss.__all__) >= PROMISED
    for name in pnp_ovss.__all__:
        assert getattr(pnp_ovss, name) is not None


def test_every_public_thing_is_documented():
    for name in PROMISED - {"PRESETS", "METHODS"}:
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


@pytest.mark.slow
def test_what_is_of_the_wrong_type_is_reported_in_one_line():
    run = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, timeout=300)
    assert run.stderr == ""
    names = "expected a list of names such as ['dog', 'cat'], or {'person': ['person', 'child']}; got"
    text = (
        "expected class names as texts, such as ['dog', 'cat'] for one photo, or a list of such lists for a list of "
        "photos; got a"
    )
    end = "; convert it"
    lines = json.loads(run.stdout)
    assert lines[:7] == [
        f"{text} list",
        f"{text} int",
        f"{names} NoneType",
        f"{names} one text, 'dog'",
        "expected a list of class names for each photo, got NoneType",
        "expected a list of class names for each photo, got str",
        f"{names} one text, 'dog'",
    ]
    assert "NoneType" in lines[7]
    assert lines[8:] == [
        f"{text} bytes",
        f"expected class maps as an array or a tensor, got list{end}",
        f"expected the photo as an array or a tensor, got Image{end}",
        f"expected the photo as an array or a tensor, got str{end}",
    ]
