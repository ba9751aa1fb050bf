"""Released checkpoints and tokenizers in folders: tiny ones of random weights that load in a blink, and golden ones."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

from shared import shared
from tiny import SPECIAL, WORDS, tiny_clip, write_tokenizer

HEADS = {"clippy": {"heads": 3}, "segclip": {"heads": 2}, "ovsegmentor": {"heads": 3, "text_heads": 2}}
Shapes = dict[str, tuple[int, ...]]
COUNT = len(SPECIAL) + len(WORDS)


def linear(name: str, out: int, width: int, *kernel: int) -> Shapes:
    return {f"{name}.weight": (out, width, *kernel), f"{name}.bias": (out,)}


def norms(width: int, *names: str) -> Shapes:
    return {f"{name}.{part}": (width,) for name in names for part in ("weight", "bias")}


def mlp(name: str, width: int, hidden: int, parts: tuple[str, str] = ("fc1", "fc2"), out: int = 0) -> Shapes:
    first, second = (f"{name}.{part}" for part in parts)
    return linear(first, hidden, width) | linear(second, out or width, hidden)


def vit_block(name: str, width: int) -> Shapes:
    attention = linear(f"{name}.attn.qkv", 3 * width, width) | linear(f"{name}.attn.proj", width, width)
    return attention | mlp(f"{name}.mlp", width, 2 * width) | norms(width, f"{name}.norm1", f"{name}.norm2")


def clip_block(name: str, width: int, *named: str) -> Shapes:
    within = {f"{name}.attn.in_proj_weight": (3 * width, width), f"{name}.attn.in_proj_bias": (3 * width,)}
    own = (f"{name}.{one}" for one in named or ("ln_1", "ln_2"))
    fed = mlp(f"{name}.mlp", width, 2 * width, ("c_fc", "c_proj"))
    return within | linear(f"{name}.attn.out_proj", width, width) | fed | norms(width, *own)


def clip_text(start: str, width: int, out: int) -> Shapes:
    tables = {"token_embedding.weight": (COUNT, width), "positional_embedding": (16, width)}
    tables |= {"text_projection": (width, out), "logit_scale": ()} | norms(width, "ln_final")
    return {f"{start}{name}": shape for name, shape in (tables | clip_block("transformer.resblocks.0", width)).items()}


def batch_norm(name: str, width: int) -> Shapes:
    return norms(width, name) | {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors of these shapes, none of them at the values that training starts from."""
    draw, found = torch.Generator().manual_seed(seed), dict[str, Tensor]()
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=draw)
        inputs = noise[0].numel() if noise.dim() > 1 else 1
        scale = 1 + 0.2 * noise if noise.dim() == 1 and name.endswith("weight") else 0.3 * noise
        found[name] = noise / inputs**0.5 if noise.dim() > 1 else noise.abs() + 0.5 if "var" in name else scale
    return found


def clippy() -> dict[str, Tensor]:
    width, trunk = 24, "visual.trunk"
    shapes = {
        f"{trunk}.cls_token": (1, 1, width),
        f"{trunk}.pos_embed": (1, 17, width),
        "text.2.linear.weight": (width, 8),
    }
    shapes |= linear(f"{trunk}.patch_embed.proj", width, 3, 8, 8) | norms(width, f"{trunk}.norm")
    for number in range(2):
        shapes |= vit_block(f"{trunk}.blocks.{number}", width)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    texts = T5EncoderModel(T5Config(vocab_size=COUNT, **sizes)).state_dict()
    return drawn(shapes | {f"text.0.auto_model.{name}": tuple(one.shape) for name, one in texts.items()})


def segclip() -> dict[str, Tensor]:
    width, image = 16, "clip.visual"
    gather = f"{image}.transformer.semantic_layer2"
    shapes = clip_text("clip.", width, 8) | {f"{image}.conv1.weight": (width, 3, 8, 8), f"{image}.proj": (width, 8)}
    shapes |= {f"{image}.positional_embedding": (17, width), f"{gather}.semantic_center": (4, width)}
    shapes |= {f"{gather}.{part}_conv.weight": (width, 8, 1) for part in "kv"}
    shapes |= norms(width, f"{image}.ln_pre", f"{image}.ln_post", f"{gather}.proj_o.ln")
    shapes |= norms(width, *(f"{gather}.{name}" for name in ("cross_ln", "k_ln", "norm")))
    shapes |= mlp(f"{gather}.proj_o.mlp", width, 32) | clip_block(
        f"{gather}.cross_att.0", width, "ln_x", "ln_k", "ln_2"
    )
    for part in ("layers0.0", "layers2.0"):
        shapes |= clip_block(f"{image}.transformer.{part}", width)
    return drawn(shapes)


def ovsegmentor() -> dict[str, Tensor]:
    width, text, image = 24, 8, "img_encoder"
    down = f"{image}.layers.0.downsample"
    cross = f"{down}.pre_assign_attn"
    shapes = {f"{image}.pos_embed": (16, width), f"{image}.layers.0.group_token": (1, 6, width), "logit_scale": ()}
    shapes |= linear(f"{image}.patch_embed.proj", width, 3, 8, 8) | norms(width, f"{image}.norm")
    for part in ("layers.0.blocks.0", "layers.1.blocks.0"):
        shapes |= vit_block(f"{image}.{part}", width)
    shapes |= norms(width, *(f"{down}.norm_{name}" for name in ("new_x", "post_tokens", "tokens", "x")))
    shapes |= norms(width, f"{cross}.norm2", f"{cross}.norm_post") | mlp(f"{cross}.mlp", width, 32)
    shapes |= mlp(f"{down}.mlp_inter", 6, 12, out=3) | mlp(f"{down}.mlp_channels", width, 32)
    for part in ("q_proj", "k_proj", "v_proj", "proj"):
        shapes |= linear(f"{down}.assign.{part}", width, width) | linear(f"{cross}.attn.{part}", width, width)
    for name, inner in (("img", width), ("text", text)):
        hidden = f"{name}_projector.linear_hidden"
        shapes |= linear(f"{hidden}.0", 12, inner) | batch_norm(f"{hidden}.1", 12)
        shapes |= linear(f"{name}_projector.linear_out", 8, 12)
    sizes = {"hidden_size": text, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    texts = BertModel(BertConfig(vocab_size=COUNT, max_position_embeddings=16, **sizes)).state_dict()
    return drawn(shapes | {f"text_encoder.transformer.{name}": tuple(one.shape) for name, one in texts.items()})


def masker() -> dict[str, Tensor]:
    """Return a masker for the CLIP of ``tiny_clip``."""
    width, start = 16, "masker.image_encoder"
    decoder = f"{start}.decoder"
    shapes = clip_block(f"{start}.backbone.transformer.resblocks.1", width)
    shapes |= {f"{decoder}.image_proj.proj": (width, 8), "masker.sim2mask.w": (), "masker.sim2mask.b": ()}
    for step in (f"{decoder}.decoder.net.{number}.{name}" for number in range(2) for name in ("conv", "conv2")):
        shapes |= linear(f"{step}.conv", width, width, 3, 3) | norms(width, f"{step}.norm") | {f"{step}.gate.gate": ()}
    return drawn(shapes | norms(width, f"{decoder}.image_proj.ln"))


def clip_resnet() -> dict[str, Tensor]:
    shapes, width = clip_text("", 64, 32), 4
    for number, (out, inner) in enumerate(((2, 3), (2, 2), (width, 2)), start=1):
        shapes |= {f"visual.conv{number}.weight": (out, inner, 3, 3)} | batch_norm(f"visual.bn{number}", out)
    inner = width
    for stage in range(1, 5):
        block, hidden = f"visual.layer{stage}.0", width * 2 ** (stage - 1)
        sizes = {"conv1": (hidden, inner, 1, 1), "conv2": (hidden, hidden, 3, 3), "conv3": (4 * hidden, hidden, 1, 1)}
        shapes |= {f"{block}.{name}.weight": shape for name, shape in sizes.items()}
        shapes |= {f"{block}.downsample.0.weight": (4 * hidden, inner, 1, 1)}
        for name, channels in (("bn1", hidden), ("bn2", hidden), ("bn3", 4 * hidden), ("downsample.1", 4 * hidden)):
            shapes |= batch_norm(f"{block}.{name}", channels)
        inner = 4 * hidden
    pool = "visual.attnpool"
    shapes |= {f"{pool}.positional_embedding": (10, inner)} | linear(f"{pool}.c_proj", 32, inner)
    return drawn(shapes | linear(f"{pool}.v_proj", inner, inner))


def deit() -> dict[str, Tensor]:
    width = 24
    shapes = {"cls_token": (1, 1, width), "dist_token": (1, 1, width), "pos_embed": (1, 18, width)}
    shapes |= linear("patch_embed.proj", width, 3, 16, 16) | norms(width, "norm")
    return drawn(shapes | vit_block("blocks.0", width) | vit_block("blocks.1", width))


def write_released(root: Path) -> dict[str, Path]:
    """Write random weights of what methods need, each to a folder below this one; return the folders by name."""
    kinds = {"clippy": (clippy, {"heads": 2}), "segclip": (segclip, {"heads": 2}), "masker": (masker, {})}
    kinds |= {"ovsegmentor": (ovsegmentor, {"heads": 2, "text_heads": 2})}
    kinds |= {"dense": (clip_resnet, {}), "encoder": (deit, {})}
    return {kind: write(root / kind, make(), **settings) for kind, (make, settings) in kinds.items()}


def write(folder: Path, tensors: dict[str, Tensor], **settings: int) -> Path:
    """Write tensors, settings and a tokenizer to a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: one.contiguous() for name, one in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))
    write_tokenizer(folder, WORDS)
    return folder


def released(kind: str, folder: Path) -> Path:
    """Write the golden checkpoint of a system to a folder, and return it."""
    return write(folder, load_file(shared(f"golden/peers/{kind}/{kind}-a.safetensors")), **HEADS[kind])


def released_tcl(folder: Path) -> Path:
    """Write the golden CLIP of TCL to a folder, its masker below it, and return the folder."""
    (folder / "masker").mkdir(parents=True)
    shutil.copyfile(shared("golden/peers/tcl/clip-a/model.safetensors"), folder / "model.safetensors")
    shutil.copyfile(shared("golden/peers/tcl/masker-a.safetensors"), folder / "masker" / "model.safetensors")
    config = json.loads(shared("golden/peers/tcl/clip-a/config.json").read_text())
    config["text_config"]["eos_token_id"] = 3  # the end in this tokenizer
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, WORDS)
    return folder


def released_reco(folder: Path) -> Path:
    """Write the golden networks of ReCo below a folder: encoder, dense (its texts are random), clip; return it."""
    golden = shared("golden/peers/reco")
    write(folder / "encoder", load_file(golden / "deit-a.safetensors"), heads=3)
    write(folder / "dense", clip_resnet() | load_file(golden / "clip-resnet-a.safetensors"))
    tiny_clip(folder / "clip")
    return folder
