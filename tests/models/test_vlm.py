"""The contract every VLM adapter keeps, on random weights. A new adapter is one more entry of ``ADAPTERS``."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import references
from pnp_ovss import Config, ConfigError, InputError, Prompt, load_vlm, make_prompt, salience
from pnp_ovss.methods.pnp.method import dropout_passes
from pnp_ovss.methods.pnp.saliency import class_maps
from pnp_ovss.models import MODELS, VLM, base
from pnp_ovss.models.base import Matcher, additive, fused_attention, kept_attention, membership
from references import Reference
from tiny import tiny_blip, tiny_blip2, tiny_bridgetower, tiny_vilt

Refer = Callable[..., Reference]

ADAPTERS: dict[str, tuple[Callable[..., Path], Refer]] = {
    "blip": (tiny_blip, references.blip),
    "bridgetower": (tiny_bridgetower, references.bridgetower),
    "vilt": (tiny_vilt, references.vilt),
    "blip2": (tiny_blip2, references.blip2),
}
"""Per family: what writes a tiny checkpoint, and what computes its maps plainly."""

PROMPTS = [make_prompt(["dog", "traffic light"]), make_prompt(["cat"])]
MIXED = [*PROMPTS, make_prompt(["hot air balloon", "snow", "unheard of", "boat"])]


@pytest.fixture(scope="module", params=ADAPTERS)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> Path:
    return ADAPTERS[family][0](tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def vlm(folder) -> VLM:
    return load_vlm(folder, device="cpu")


@pytest.fixture
def pixels(vlm) -> torch.Tensor:
    return torch.randn(2, 3, vlm.size, vlm.size, generator=torch.Generator().manual_seed(0))


def test_the_adapter_is_a_vlm(vlm):
    assert isinstance(vlm, VLM)
    assert vlm.size % vlm.patch == 0


def test_shapes(vlm, pixels):
    attention = vlm.attend(pixels, PROMPTS)
    side = vlm.size // vlm.patch
    assert attention.weights.shape == attention.gradient.shape
    assert attention.weights.shape[:3] == (2, vlm.layers, vlm.heads)
    assert attention.weights.shape[4:] == (side, side)
    assert attention.membership.shape == (2, 2, attention.weights.shape[3])
    assert attention.layers == tuple(range(vlm.layers))


def test_attention_is_a_share_and_has_a_gradient(vlm, pixels):
    attention = vlm.attend(pixels, PROMPTS)
    assert float(attention.weights.min()) >= 0
    assert float(attention.weights.sum((-1, -2)).max()) < 1  # the image's [CLS] has the rest
    for layer in range(vlm.layers):
        assert float(attention.gradient[:, layer].abs().max()) > 0


@pytest.mark.parametrize("sides", [(4, 4), (3, 5)])
def test_every_map_is_that_of_a_plain_full_backward(family, folder, vlm, sides):
    """In float64, so that what differs is the computation and not its rounding."""
    exact = load_vlm(folder, device="cpu")
    exact._model.double()
    h, w = (side * vlm.patch for side in sides)
    pixels = torch.randn(3, 3, h, w, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, single = exact.attend(pixels, MIXED), vlm.attend(pixels.float(), MIXED)
    reference = ADAPTERS[family][1](folder, [prompt.text for prompt in MIXED], pixels)
    assert len(reference.weights) == len(reference.gradient) == vlm.layers
    torch.testing.assert_close(ours.match.double(), reference.match, rtol=1e-5, atol=0)
    for layer, (weights, gradient) in enumerate(zip(reference.weights, reference.gradient, strict=True)):
        theirs = (weights, gradient, weights * gradient.relu())
        for found, rtol, share in ((ours, 1e-5, 0.0), (single, 1e-4, 1e-5)):
            a, g = (maps[:, layer].flatten(-2).double() for maps in (found.weights, found.gradient))
            for mine, wanted in zip((a, g, a * g.relu()), theirs, strict=True):
                torch.testing.assert_close(mine, wanted, rtol=rtol, atol=share * float(wanted.abs().max()))


@pytest.mark.parametrize("sides", [(4, 4), (3, 5)])
def test_patches_left_out_are_as_if_the_model_had_never_had_them(family, folder, sides):
    assert_only_kept_are_seen(folder, ADAPTERS[family][1], MIXED, sides, kept=7)


def test_mini_blip_without_half_of_its_patches():
    assert_only_kept_are_seen(MODELS["mini-blip"].source, references.blip, PROMPTS, (14, 14), kept=98)


def assert_only_kept_are_seen(
    folder: Path, refer: Refer, prompts: Sequence[Prompt], sides: tuple[int, int], kept: int
) -> None:
    """Hold a batch, each photo with patches of its own, against the model's forward over these alone, one by one."""
    vlm, generator = load_vlm(folder, device="cpu"), torch.Generator().manual_seed(1)
    vlm._model.double()
    size = [len(prompts), 3, *(side * vlm.patch for side in sides)]
    pixels = torch.randn(size, generator=generator, dtype=torch.float64)
    keep = torch.rand(len(prompts), sides[0] * sides[1], generator=generator).argsort()[:, :kept].sort().values
    ours = vlm.attend(pixels, prompts, keep=keep)
    for row, (prompt, patches) in enumerate(zip(prompts, keep.tolist(), strict=True)):
        reference = refer(folder, [prompt.text], pixels[row : row + 1], patches)
        torch.testing.assert_close(ours.match[row].double(), reference.match[0], rtol=1e-5, atol=0)
        for maps, theirs in ((ours.weights, reference.weights), (ours.gradient, reference.gradient)):
            found, wanted = maps[row].flatten(-2).double(), torch.cat(theirs)
            expected = torch.zeros_like(found)
            expected[:, :, : wanted.shape[2], patches] = wanted
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_with_every_patch_kept_nothing_changes(vlm, pixels):
    whole = vlm.attend(pixels, PROMPTS)
    kept = vlm.attend(pixels, PROMPTS, keep=torch.arange(whole.weights[0, 0, 0, 0].numel()).expand(2, -1))
    for one, other in ((whole.weights, kept.weights), (whole.gradient, kept.gradient), (whole.match, kept.match)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_an_image_that_match_has_read_whole_is_read_anew_for_some_patches(vlm, pixels):
    keep = torch.tensor([[0, 3, 5], [1, 2, 9]])
    afresh = vlm.attend(pixels, PROMPTS, keep=keep)
    if isinstance(vlm, Matcher):
        vlm.match(pixels, PROMPTS)
    assert torch.equal(vlm.attend(pixels, PROMPTS, keep=keep).match, afresh.match)


def test_kept_patches_go_past_a_compiled_tower(folder, vlm, pixels, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda plain, **how: lambda *given: pytest.fail("it was compiled"))
    keep, compiled = torch.tensor([[0, 3, 5], [1, 2, 9]]), load_vlm(folder, device="cpu")
    if compiled.tower:
        compiled.compile_tower()
    assert torch.equal(compiled.attend(pixels, PROMPTS, keep=keep).match, vlm.attend(pixels, PROMPTS, keep=keep).match)


def test_dropped_tokens_are_the_hidden_patches_of_the_passes_after_the_first(vlm, pixels):
    config = Config(layer=0, head=1, passes=3, drop=0.5)
    exact, dropped = (
        dropout_passes(vlm, pixels, PROMPTS, replace(config, drop_tokens=drop_tokens)) for drop_tokens in (False, True)
    )
    assert torch.equal(exact[0].maps, dropped[0].maps)
    assert torch.equal(exact[1].visible, dropped[1].visible)  # the first pass chose them
    for one in dropped[1:]:
        for row in range(2):
            keep = one.visible[row].flatten().nonzero().flatten()[None]
            alone = vlm.attend(pixels[row : row + 1], PROMPTS[row : row + 1], keep=keep)
            torch.testing.assert_close(one.match[row], alone.match[0], rtol=1e-5, atol=1e-6)
            maps = class_maps(alone, 0, 1, sum_last_name=True)[0]
            torch.testing.assert_close(one.maps[row, : len(maps)], maps, rtol=1e-4, atol=1e-8)
    assert not torch.allclose(exact[1].match, dropped[1].match, rtol=1e-3)


def test_a_pass_in_which_every_patch_is_hidden_adds_nothing(vlm, pixels):
    config = Config(layer=0, head=1, drop_tokens=True, drop=10**6)
    first, *rest = dropout_passes(vlm, pixels, PROMPTS, replace(config, passes=3))
    assert first.maps.any()
    assert not any(one.maps.any() for one in rest)


def test_a_match_is_that_of_the_models_own_forward(family, folder, vlm):
    if not isinstance(vlm, Matcher):
        assert family == "vilt"  # its score is no log odds
        return
    pixels = torch.randn(2, 3, vlm.size, vlm.size, generator=torch.Generator().manual_seed(1))
    odds = vlm.match(pixels, MIXED)
    assert odds.shape == (2, 3)
    assert not odds.requires_grad
    for row in range(2):
        repeated = pixels[row : row + 1].expand(3, -1, -1, -1).double()
        wanted = ADAPTERS[family][1](folder, [prompt.text for prompt in MIXED], repeated).odds
        torch.testing.assert_close(odds[row].double(), wanted, rtol=1e-4, atol=1e-5)


def test_membership_follows_the_names(vlm, pixels):
    membership = vlm.attend(pixels, PROMPTS).membership
    torch.testing.assert_close(membership.sum(2), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert int((membership[0, 0] > 0).sum()) == 1  # dog
    assert int((membership[0, 1] > 0).sum()) == 2  # traffic light
    first = [int(row.nonzero()[0]) for row in membership[0]]
    assert first[0] < first[1]


@pytest.mark.parametrize("cell", [(0, 0), (1, 3), (3, 2)])
def test_the_grid_starts_at_the_top_left_and_goes_row_by_row(vlm, cell):
    plain = torch.zeros(1, 3, vlm.size, vlm.size)
    planted = plain.clone()
    row, column = (index * vlm.patch for index in cell)
    planted[:, :, row : row + vlm.patch, column : column + vlm.patch] = 3.0
    prompt = PROMPTS[1:]
    moved = (vlm.attend(planted, prompt).weights - vlm.attend(plain, prompt).weights).abs().sum((0, 1, 2, 3))
    assert divmod(int(moved.argmax()), moved.shape[1]) == cell


def test_some_layers_are_those_of_all_layers(vlm, pixels):
    everything = vlm.attend(pixels, PROMPTS)
    for layer in range(vlm.layers):
        one = vlm.attend(pixels, PROMPTS, layers=(layer,))
        assert one.layers == (layer,)
        torch.testing.assert_close(one.weights[:, 0], everything.weights[:, layer])
        torch.testing.assert_close(one.gradient[:, 0], everything.gradient[:, layer])


@pytest.mark.parametrize("drop_tokens", [False, True])
def test_a_batch_is_its_images_one_by_one_and_padding_changes_nothing(vlm, pixels, drop_tokens):
    config = Config(layer=0, head=1, drop=3, drop_tokens=drop_tokens)
    together = salience(vlm, pixels, PROMPTS, config)
    for row, prompt in enumerate(PROMPTS):
        alone = salience(vlm, pixels[row : row + 1], [prompt], config)[0]
        assert alone.shape[0] == len(prompt.classes)
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-8)


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
def test_the_same_attention_twice_to_the_bit(folder, device):
    vlm = load_vlm(folder, device=device)
    pixels = torch.randn(3, 3, 20 * vlm.patch, 20 * vlm.patch, generator=torch.Generator().manual_seed(2))
    first, second = (vlm.attend(pixels, MIXED) for _ in range(2))
    assert torch.equal(first.match, second.match)
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(first.gradient, second.gradient)


def test_no_fused_kernel_where_a_gradient_is_taken_but_on_a_cpu(monkeypatch):
    """On CUDA its backward pass adds up in no fixed order; the device ``meta`` stands in for any but the CPU."""
    calls = []
    monkeypatch.setattr(base, "scaled_dot_product_attention", lambda q, k, v, **_: calls.append(q.device.type) or q)
    for device in ("cpu", "meta"):
        part = torch.zeros(1, 3, 8, device=device)
        fused_attention(part, part, part, 2)
        fused_attention(part, part.clone().requires_grad_(), part, 2)
    assert calls == ["cpu", "cpu", "meta"]


def test_fused_and_kept_attention_are_one_computation():
    parts = [torch.randn(2, n, 8, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (3, 5)]
    padding = additive(torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]), torch.float32)
    found = [fused_attention(parts[0], parts[1], parts[1], 2, padding)]
    found.append(kept_attention(parts[0], parts[1], parts[1], 2, padding)[0])
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*(torch.autograd.grad((one**2).sum(), parts) for one in found))


def test_parameters_keep_their_values_and_get_no_gradient(vlm, pixels):
    before = [weight.clone() for weight in vlm._model.parameters()]
    vlm.attend(pixels, PROMPTS)
    for old, weight in zip(before, vlm._model.parameters(), strict=True):
        assert torch.equal(old, weight)
        assert weight.grad is None
        assert not weight.requires_grad


def test_it_works_inside_no_grad(vlm, pixels):
    with torch.no_grad():
        attention = vlm.attend(pixels, PROMPTS)
    torch.testing.assert_close(attention.gradient, vlm.attend(pixels, PROMPTS).gradient)


def test_bfloat16_is_close_to_float32(folder, vlm, pixels):
    half = load_vlm(folder, device="cpu", dtype="bfloat16").attend(pixels, PROMPTS)
    full = vlm.attend(pixels, PROMPTS)
    assert half.weights.dtype == half.gradient.dtype == half.match.dtype == torch.float32
    assert (half.weights - full.weights).norm() < 0.05 * full.weights.norm()  # single weights vary by the processor
    torch.testing.assert_close(half.match, full.match, atol=0.2, rtol=0.05)


@pytest.mark.parametrize("sides", [(1, 1), (6, 6), (3, 5)])
def test_other_sizes_go_through_interpolated_positions(vlm, sides):
    pixels = torch.randn(1, 3, sides[0] * vlm.patch, sides[1] * vlm.patch)
    assert vlm.attend(pixels, PROMPTS[:1]).weights.shape[4:] == sides


def test_preparing_a_photo(vlm):
    photo = np.zeros((5, 7, 3), np.uint8)
    photo[:, :, 0] = 255
    pixels = vlm.prepare(photo, vlm.size)
    assert pixels.shape == (3, vlm.size, vlm.size)
    means = pixels.mean((1, 2))
    assert means[0] > 1 > -1 > means[1]
    assert float(pixels.std((1, 2)).max()) < 1e-5


def test_too_many_tokens(vlm, pixels):
    with pytest.raises(InputError, match=r"^the class names make \d+ tokens; .* reads \d+ at most: name fewer"):
        vlm.attend(pixels[:1], [make_prompt([" ".join(["dog"] * 3000)])])


UNREADABLE = r"^class '%s' has no character this model can read; use another name$"


def test_a_name_without_a_token_of_its_own_is_refused():
    offsets = torch.tensor([[[0, 0], [0, 1], [13, 16], [0, 0]]])  # [CLS] A dog [SEP]
    none = torch.zeros(1, 4, dtype=torch.bool)
    with pytest.raises(InputError, match=UNREADABLE % "cat"):
        membership([make_prompt(["dog", "cat"])], offsets, none, none)


def test_unknown_tokens_count_beside_others_and_special_ones_never():
    offsets = torch.tensor([[[0, 0], [0, 1], [13, 16], [17, 21], [21, 23], [0, 0]]])  # [CLS] A dog zebra ##s [SEP]
    prompts, none = [make_prompt(["dog", "zebras"])], torch.zeros(1, 6, dtype=torch.bool)
    named = torch.tensor([[False, False, False, True, True, False]])
    with pytest.raises(InputError, match=UNREADABLE % "zebras"):
        membership(prompts, offsets, named, none)
    first = named & (torch.arange(6) < 4)
    assert membership(prompts, offsets, first, none)[0, 1].tolist() == [0, 0, 0, 0.5, 0.5, 0]
    with pytest.raises(InputError, match="^class 'zebras' holds a special token"):
        membership(prompts, offsets, none, first)


@pytest.fixture(scope="module")
def piecewise(family, tmp_path_factory) -> VLM:
    """The model with the same words as pieces, as BERT's: what they do not spell is ``[UNK]``."""
    folder = ADAPTERS[family][0](tmp_path_factory.mktemp("piecewise"))
    stored = json.loads((folder / "tokenizer.json").read_text())
    pieces = {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    (folder / "tokenizer.json").write_text(json.dumps(stored | {"model": stored["model"] | pieces}))
    return load_vlm(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zebra", UNREADABLE % "zebra"),
        ("zebra crossing", UNREADABLE % "zebra crossing"),
        ("[UNK]", UNREADABLE % r"\[UNK\]"),
        ("[SEP]", r"^class '\[SEP\]' holds a special token; use another name$"),
        ("hot [PAD]", r"^class 'hot \[PAD\]' holds a special token; use another name$"),
    ],
)
def test_names_that_the_tokenizer_cannot_read(piecewise, pixels, name, message):
    with pytest.raises(InputError, match=message):
        piecewise.attend(pixels[:1], [make_prompt(["dog", name])])


@pytest.mark.parametrize("name", ["zebra light", "light zebra"])
def test_a_name_that_can_be_read_in_part_will_do(piecewise, pixels, name):
    membership = piecewise.attend(pixels[:1], [make_prompt([name])]).membership
    assert membership[0, 0][membership[0, 0] > 0].tolist() == [0.5, 0.5]


def test_naming_may_ask_for_a_name_that_cannot_be_read(piecewise, pixels):
    if isinstance(piecewise, Matcher):
        assert piecewise.match(pixels, [make_prompt(["zebra"]), make_prompt(["dog"])]).isfinite().all()


@pytest.mark.parametrize(("images", "prompts"), [(1, 2), (2, 1), (0, 0)])
def test_images_and_prompts_that_do_not_agree(vlm, pixels, images, prompts):
    message = f"^expected images and a prompt for each, got {images} images and {prompts} prompts$"
    for ask in (vlm.attend, lambda *both: salience(vlm, *both, Config(layer=0, head=0))):
        with pytest.raises(InputError, match=message):
            ask(pixels[:images], PROMPTS[:prompts])


@pytest.mark.parametrize("sides", [(33, 32), (32, 31), (4, 32), (0, 32)])
def test_sides_that_patches_do_not_cover(vlm, sides):
    message = f"^expected multiples of .*'s patch of 8 pixels, got {sides[0]} x {sides[1]}$"
    for ask in (vlm.attend, lambda *both: salience(vlm, *both, Config(layer=0, head=0))):
        with pytest.raises(InputError, match=message):
            ask(torch.zeros(1, 3, *sides), PROMPTS[:1])


def test_layers_that_the_model_lacks_are_refused(vlm, pixels):
    for layers_ in ((), (vlm.layers,), (0, -1)):
        with pytest.raises(ConfigError) as caught:
            vlm.attend(pixels, PROMPTS, layers=layers_)
        assert str(caught.value) == f"expected layers of {vlm.name} from 0 to {vlm.layers - 1}, got {layers_}"


def test_known_names(family, tmp_path, pixels):
    vlm = load_vlm(ADAPTERS[family][0](tmp_path, known=("dog", "traffic light")), device="cpu")
    assert vlm.known == ("dog", "traffic light")
    vlm.attend(pixels[:1], [make_prompt(["Dog"])])
    with pytest.raises(
        InputError, match=r"cannot know 'cat'; it knows dog, traffic light. For photos and any other name"
    ):
        vlm.attend(pixels[:1], [make_prompt(["cat"])])


def test_the_worked_example_of_the_docs_is_the_adapter():
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs/adding-a-model.md").read_text(encoding="utf-8")
    assert f"```python\n{(root / 'src/pnp_ovss/models/vilt.py').read_text(encoding='utf-8')}```" in page
