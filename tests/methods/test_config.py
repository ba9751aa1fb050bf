import dataclasses
import json

import pytest

from pnp_ovss import PRESETS, Config, ConfigError


def test_the_published_presets():
    released, paper = PRESETS["released"], PRESETS["paper"]
    assert (released.layer, released.head, released.passes, released.size) == (7, 9, 4, 336)
    assert (released.drop, released.count_first_twice) == (10, True)
    assert (paper.drop, paper.count_first_twice) == (0.5, False)
    assert (released.threshold, released.blur, released.refiners) == (0.15, 0.05, ("blur", "crf"))
    assert different(released, paper) == {"drop", "count_first_twice", "sum_last_name"}
    bridgetower = PRESETS["bridgetower"]
    assert (bridgetower.layer, bridgetower.head) == (1, 7)
    assert different(released, bridgetower) == {"layer", "head"}


def different(one: Config, other: Config) -> set[str]:
    names = [field.name for field in dataclasses.fields(Config)]
    return {name for name in names if getattr(one, name) != getattr(other, name)}


@pytest.mark.parametrize("name", PRESETS)
def test_json_brings_back_an_equal_config(name):
    assert Config.from_json(PRESETS[name].to_json()) == PRESETS[name]
    assert isinstance(json.loads(PRESETS[name].to_json()), dict)


def test_overrides_go_on_top_of_a_preset():
    config = Config.from_preset("paper", threshold=0.3, refiners=["crf"])
    assert (config.threshold, config.refiners, config.drop) == (0.3, ("crf",), 0.5)


def test_a_preset_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(Config(layer=2, drop=0.25).to_json())
    assert Config.from_preset(path) == Config(layer=2, drop=0.25)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"layer": -1}, "layer to be a whole number from 0 to 1000000, got -1"),
        ({"layer": 1.5}, "layer to be a whole number from 0 to 1000000, got 1.5"),
        ({"passes": 0}, "passes to be a whole number from 1 to 1000, got 0"),
        ({"passes": 10**6}, "passes to be a whole number from 1 to 1000, got 1000000"),
        ({"crf_iterations": 10**6}, "crf_iterations to be a whole number from 0 to 1000, got 1000000"),
        ({"pamr_iterations": 1001}, "pamr_iterations to be a whole number from 0 to 1000, got 1001"),
        ({"max_pixels": 10**400}, f"max_pixels to be a whole number from 1 to 1000000000, got 1{'0' * 199}"),
        ({"drop": 1.5}, "drop to be a count of patches (10) or a share between 0 and 1 (0.5), got 1.5"),
        ({"drop": True}, "drop to be a whole number from 0 to 1000000 or a number from 0 to 1000000, got True"),
        ({"threshold": 1.1}, "threshold to be a number from 0 to 1, got 1.1"),
        ({"threshold": float("nan")}, "threshold to be a number from 0 to 1, got nan"),
        ({"blur": -0.1}, "blur to be a number from 0 to 1, got -0.1"),
        ({"blur": "wide"}, "blur to be a number from 0 to 1, got 'wide'"),
        ({"blur": float("inf")}, "blur to be a number from 0 to 1, got inf"),
        ({"guided_epsilon": 1e-10}, "guided_epsilon to be a number from 1e-08 to 1000000, got 1e-10"),
        ({"background": "maybe"}, "background to be 'always' or 'never' or 'few', got 'maybe'"),
        ({"crf_bilateral_srgb": 0}, "crf_bilateral_srgb to be a number from 1e-06 to 1000000, got 0"),
        ({"size": 0}, "size to be a whole number from 1 to 4096 or none, got 0"),
        ({"refiners": "blur"}, "refiners to be a tuple of names, got 'blur'"),
    ],
)
def test_a_setting_out_of_range_says_what_is_wanted(setting, message):
    with pytest.raises(ConfigError) as caught:
        Config.from_preset("released", **setting)
    assert str(caught.value) == f"expected {message}"


def test_a_config_made_by_hand_is_checked_too():
    with pytest.raises(ConfigError, match=r"^expected layer to be a whole number from 0 to 1000000, got -1$"):
        Config(layer=-1)


def test_names_that_do_not_exist(tmp_path):
    known = ", ".join(PRESETS)
    with pytest.raises(ConfigError, match=rf"^there is no preset 'best'; the presets are {known}, or give a"):
        Config.from_preset("best")
    with pytest.raises(ConfigError, match="^there is no setting 'treshold'; the settings are refiners, "):
        Config.from_preset("paper", treshold=0.1)
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.from_preset(tmp_path / "none.json")
    for text in ("{", "[1]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ConfigError, match="the preset, got list|the preset is no JSON"):
            Config.from_preset(tmp_path / "bad.json")


@pytest.mark.parametrize("text", ["[" * 100_000, f'{{"drop": {"9" * 5000}}}', '{"layer": 1', ""])
def test_a_text_that_json_does_not_take(text):
    with pytest.raises(
        ConfigError, match=r"^the preset is no JSON \(.+\); .*; write it with Config.to_json$"
    ) as caught:
        Config.from_json(text)
    assert str(caught.value).isprintable()  # and so one line


def test_a_preset_s_name_that_no_file_can_have():
    with pytest.raises(ConfigError, match=r"cannot be read \(embedded null byte\); check the path$"):
        Config.from_preset("nul\0.json")


def test_every_number_has_a_range():
    for setting in dataclasses.fields(Config):
        if type(setting.default) in (int, float):
            for far in (type(setting.default)(-1e300), type(setting.default)(1e300), float("nan")):
                with pytest.raises(ConfigError, match=f"^expected {setting.name} to be "):
                    Config.from_preset("released", **{setting.name: far})


def test_few_means_fewer_than_three_classes():
    assert [Config(background="few").has_background(k) for k in (1, 2, 3)] == [True, True, False]
    assert Config(background="always").has_background(9)
    assert not Config(background="never").has_background(1)
