"""What a GPU needs, as far as a CPU can show it: nobody asks for a value on the way, copies wait for none, and a
compiled tower gives what the plain one does."""

import subprocess
import sys
from unittest.mock import Mock, call

import pytest
import torch
from PIL import Image
from torch._dynamo.exc import TorchDynamoException
from torch.utils._python_dispatch import TorchDispatchMode

from pnp_ovss import Config, ConfigError, load_vlm, make_prompt
from pnp_ovss.cli import main
from pnp_ovss.methods.pnp.method import dropout_passes
from pnp_ovss.mini import draw
from pnp_ovss.models import gpu
from pnp_ovss.models.gpu import Compiled, Graphed, moved
from tiny import tiny_blip, tiny_blip2, tiny_bridgetower, tiny_vilt

CPU = torch.device("cpu")
NAMES = ["rocket", "cactus", "star"]


class Asked(TorchDispatchMode):
    """Counts what makes the host wait for a value: ``.item()``, ``bool()``, ``.tolist()`` and ``nonzero``."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = {torch.ops.aten._local_scalar_dense, torch.ops.aten.item, torch.ops.aten.nonzero, torch.ops.aten.equal}
        self.count += func.overloadpacket in waits
        return func(*args, **(kwargs or {}))


@pytest.fixture
def vlm():
    return load_vlm("mini-blip", device="cpu", dtype="float32")


def asked(vlm, pixels, passes: int) -> int:
    with Asked() as mode:
        dropout_passes(vlm, pixels, [make_prompt(NAMES)] * len(pixels), Config.from_preset("mini", passes=passes))
    return mode.count


def test_no_pass_asks_for_a_value_once_the_prompts_are_read(vlm):
    pixels = torch.randn(2, 3, vlm.size, vlm.size)
    reading = asked(vlm, pixels, passes=1)
    assert reading == 1 + 2 * 2 * len(
        NAMES
    )  # on the CPU: the largest token, and of each name in each prompt two checks
    assert [asked(vlm, pixels, passes) for passes in (1, 4)] == [0, 0]


@pytest.mark.parametrize("write", [tiny_blip, tiny_bridgetower, tiny_vilt, tiny_blip2])
def test_no_family_asks_for_a_value_on_the_device(write, tmp_path):
    """A tensor on the device "meta" has none: whoever asks for it raises."""
    vlm = load_vlm(write(tmp_path), device="cpu")
    vlm._model, vlm.device = vlm._model.to("meta"), torch.device("meta")
    prompts, pixels = [make_prompt(["dog", "traffic light"]), make_prompt(["cat"])], torch.randn(2, 3, 32, 32)
    for drop in (3, 0.5):
        passes = dropout_passes(vlm, pixels, prompts, Config(size=32, layer=0, head=0, passes=3, drop=drop))
        assert [one.maps.shape for one in passes] == [(2, 2, 4, 4)] * 3


def test_what_goes_to_cuda_is_pinned_and_not_waited_for():
    tensor, cuda = Mock(torch.Tensor, device=CPU), torch.device("cuda")
    tensor.pin_memory().to.return_value = there = torch.ones(1)
    tensor.reset_mock()
    assert moved(tensor, cuda) is there
    assert tensor.mock_calls == [call.pin_memory(), call.pin_memory().to(cuda, non_blocking=True)]


def test_what_is_there_stays_as_it_is():
    tensor = torch.ones(2)
    assert moved(tensor, CPU) is tensor


@pytest.fixture
def compilations(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes that ``torch.compile`` is asked for; what it gives doubles what the function gives."""
    shapes = []

    def compile(plain, **how):
        def compiled(batch, *numbers):
            shapes.append((*batch.shape, *numbers))
            return 2 * plain(batch, *numbers)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    return shapes


def test_a_smaller_batch_is_not_compiled(compilations):
    run = Compiled(lambda batch, *numbers: batch + 1)
    found = [run(torch.ones(size, 2)).unique().item() for size in (4, 3, 4, 1, 5, 4)]
    assert found == [4, 2, 4, 2, 4, 2]
    assert run(torch.ones(1, 3), 7).unique().item() == 4  # another shape of image
    assert compilations == [(4, 2), (4, 2), (5, 2), (1, 3, 7)]


def test_what_is_kept_for_a_size_is_there_before_it_is_compiled(compilations):
    plain = Mock(side_effect=lambda batch: batch)
    run = Compiled(plain)
    for size in (4, 4, 5):
        run(torch.ones(size, 2))
    assert [len(args[0]) for args, _ in plain.call_args_list] == [1, 4, 4, 5]


def test_what_comes_again_is_recorded_once(monkeypatch):
    recorded, plain = [], Mock(side_effect=lambda factor, tensor: factor * tensor)
    monkeypatch.setattr(gpu, "recorded", lambda function, args: recorded.append(args) or (lambda *args: "graph"))
    run = Graphed(plain)
    found = [run(2, torch.ones(size)) for size in (3, 3, 3, 4, 3)] + [run(5, torch.ones(3))]
    assert [one if isinstance(one, str) else one.tolist() for one in found] == [
        [2] * 3,
        "graph",
        "graph",
        [2] * 4,
        "graph",
        [5] * 3,
    ]
    assert [(factor, tensor.shape) for factor, tensor in recorded] == [(2, (3,))]


def test_no_more_graphs_than_the_memory_is_for(monkeypatch):
    monkeypatch.setattr(gpu, "recorded", lambda function, args: lambda *args: "graph")
    run = Graphed(lambda tensor: len(tensor))
    assert [run(torch.ones(size)) for size in range(10) for _ in range(2)][1::2] == ["graph"] * 8 + [8, 9]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
@pytest.mark.parametrize("write", [tiny_blip, tiny_bridgetower, tiny_blip2])
def test_graphs_give_what_the_plain_model_does(write, tmp_path):
    plain, graphed = (load_vlm(write(tmp_path), device="cuda", dtype="float32") for _ in range(2))
    graphed._attended, graphed._log_odds = Graphed(graphed._attended), Graphed(graphed._log_odds)
    prompts = [make_prompt(["dog", "traffic light"]), make_prompt(["cat"])]
    for seed in range(4):  # plain, recorded, replayed, replayed
        pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        ours, theirs = (one.attend(pixels, prompts) for one in (graphed, plain))
        for name in ("weights", "gradient", "match"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
        torch.testing.assert_close(graphed.match(pixels, prompts), plain.match(pixels, prompts))


def test_without_a_compiler_there_is_one_line(monkeypatch, tmp_path, capsys):

    def fails(batch):
        raise TorchDynamoException("no working C++ compiler\nat some length")

    monkeypatch.setattr(torch, "compile", lambda plain, **how: fails)
    photo = tmp_path / "photo.png"
    Image.fromarray(draw(0, 0, 112).image).save(photo)
    command = ["segment", str(photo), "--model", "mini-blip", "--device", "cpu", "--classes", "rocket, cactus"]
    assert main([*command, "--out", str(tmp_path / "out"), "--compile"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "torch.compile failed (no working C++ compiler); install a C++ compiler such as g++" in error[0]


def test_a_model_without_a_tower_says_so(tmp_path):
    with pytest.raises(ConfigError, match="has no image tower that can be compiled; leave compile out"):
        load_vlm(tiny_vilt(tmp_path), device="cpu").compile_tower()


COMPARE = """
import sys
import numpy as np
from pnp_ovss import Segmenter
from pnp_ovss.mini import draw
from pnp_ovss.models.gpu import Compiled
photos, names, found = [draw(0, index, 112).image for index in range(3)], ["rocket", "cactus", "star"], []
for compile in (False, True):
    how = dict(device="cpu", dtype="float32", method=sys.argv[1], compile=compile)
    segmenter = Segmenter.from_pretrained(sys.argv[2], **how)
    backbone = segmenter.method.backbone
    assert isinstance(getattr(backbone, backbone.tower), Compiled) == compile
    found.append([one for some in (photos[:2], photos[2:]) for one in segmenter(some, [names] * len(some))])
for plain, compiled in zip(*found):
    np.testing.assert_allclose(compiled.salience, plain.salience, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(compiled.labels, plain.labels)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "model"), [("pnp", "mini-blip"), ("sclip", "mini-clip")])
def test_a_compiled_tower_gives_what_the_plain_one_gives(method, model):
    """Of a batch, and of a smaller one after it; apart, for what checks shapes in tests cannot be compiled."""
    command = [sys.executable, "-c", COMPARE, method, model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
