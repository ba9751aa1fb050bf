"""The public face: what is in it, and nothing else."""

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
