"""Checkpoints with random weights that load in a blink, in the Hugging Face layout."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    BlipConfig,
    BlipForImageTextRetrieval,
    BridgeTowerConfig,
    BridgeTowerForImageAndTextRetrieval,
    CLIPConfig,
    CLIPModel,
    GroupViTConfig,
    GroupViTModel,
    PretrainedConfig,
    PreTrainedModel,
    Sam2Config,
    Sam2Model,
    SamConfig,
    SamModel,
    ViltConfig,
    ViltForImageAndTextRetrieval,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    *("a", "picture", "of", "and", "the"),
    *("dog", "cat", "bird", "fish", "tree", "house", "car", "boat", "person", "bicycle"),
    *("traffic", "light", "hot", "air", "balloon", "sky", "grass", "sand", "water", "snow"),
)


def tiny_blip(
    folder: Path,
    image_size: int = 32,
    patch: int = 8,
    layers: int = 2,
    heads: int = 2,
    words: Sequence[str] = WORDS,
    known: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Write a BLIP of random weights and a word-level tokenizer to ``folder``, and return the folder.

    Words outside ``words`` become ``[UNK]``. As on the hub, the tokenizer lacks the text encoder's last two rows,
    ``[DEC]`` and ``[ENC]``. ``known``: the names the model can know, as a mini model carries them.
    """
    vocabulary = len(SPECIAL) + len(words)
    config = BlipConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": patch,
        },
        text_config={
            "hidden_size": 8 * heads,
            "encoder_hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "vocab_size": vocabulary + 2,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "bos_token_id": vocabulary,
            "pad_token_id": 0,
            "sep_token_id": 3,
            "eos_token_id": 3,
        },
        projection_dim=8,
        image_text_hidden_size=8,
        # Larger than usual: attention and gradient then differ clearly from patch to patch.
        initializer_range=0.2,
        architectures=["BlipForImageTextRetrieval"],
        **({"known_classes": list(known)} if known else {}),
    )
    _save(folder, BlipForImageTextRetrieval, config, image_size, seed)
    write_tokenizer(folder, words)
    return folder


def tiny_bridgetower(
    folder: Path,
    image_size: int = 32,
    patch: int = 8,
    layers: int = 3,
    heads: int = 2,
    words: Sequence[str] = WORDS,
    known: Sequence[str] = (),
    seed: int = 0,
    **text: int,
) -> Path:
    """Write a BridgeTower of random weights and a word-level tokenizer to ``folder``, and return the folder.

    Either tower has one layer more than there are cross-modal ones, so that its lowest output crosses nowhere.
    ``text``: settings of the text tower, for another tokenizer.
    """
    config = BridgeTowerConfig(
        vision_config={
            "hidden_size": 64,  # its heads are 64 wide
            "num_hidden_layers": layers + 1,
            "image_size": image_size,
            "patch_size": patch,
        },
        text_config={
            "hidden_size": 8 * heads,
            "intermediate_size": 32,
            "num_hidden_layers": layers + 1,
            "num_attention_heads": heads,
            "vocab_size": len(SPECIAL) + len(words),
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "pad_token_id": 0,
        }
        | text,
        hidden_size=8 * heads,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        architectures=["BridgeTowerForImageAndTextRetrieval"],
        **({"known_classes": list(known)} if known else {}),
    )
    _save(folder, BridgeTowerForImageAndTextRetrieval, config, image_size, seed)
    write_tokenizer(folder, words)
    return folder


def tiny_vilt(
    folder: Path,
    image_size: int = 32,
    patch: int = 8,
    layers: int = 2,
    heads: int = 2,
    words: Sequence[str] = WORDS,
    known: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Write a ViLT of random weights and a word-level tokenizer to ``folder``, and return the folder."""
    config = ViltConfig(
        hidden_size=8 * heads,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=len(SPECIAL) + len(words),
        image_size=image_size,
        patch_size=patch,
        architectures=["ViltForImageAndTextRetrieval"],
        **({"known_classes": list(known)} if known else {}),
    )
    _save(folder, ViltForImageAndTextRetrieval, config, image_size, seed)
    write_tokenizer(folder, words)
    return folder


def tiny_blip2(
    folder: Path,
    image_size: int = 32,
    patch: int = 8,
    layers: int = 2,
    heads: int = 2,
    words: Sequence[str] = WORDS,
    known: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Write a BLIP-2 of random weights and a word-level tokenizer to ``folder``, and return the folder.

    Its Q-Former has 2 layers for each of ``layers``, and 2 on top, whose words are not read.
    """
    config = Blip2Config(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": patch,
        },
        qformer_config={
            "hidden_size": 8 * heads,
            "intermediate_size": 32,
            "num_hidden_layers": 2 * layers + 2,
            "num_attention_heads": heads,
            "vocab_size": len(SPECIAL) + len(words),
            "max_position_embeddings": 64,
            "use_qformer_text_input": True,
        },
        num_query_tokens=3,
        image_text_hidden_size=8,
        architectures=["Blip2ForImageTextRetrieval"],
        **({"known_classes": list(known)} if known else {}),
    )
    _save(folder, Blip2ForImageTextRetrieval, config, image_size, seed)
    write_tokenizer(folder, words)
    return folder


def _save(
    folder: Path, model_class: type[PreTrainedModel], config: PretrainedConfig, image_size: int, seed: int
) -> None:
    """Write ``config.json``, random weights and the pixels' normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        with torch.no_grad():  # transformers starts positions and biases at zero or ones, which would hide mistakes
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn_like(weight))
    model.save_pretrained(folder)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    side = {"height": image_size, "width": image_size}
    settings = {"image_processor_type": "BlipImageProcessor", "size": side, "image_mean": mean, "image_std": std}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def write_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """Write a lower-case word-level tokenizer, ``[CLS] ... [SEP]``, to ``folder``."""
    ids = {word: index for index, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # splits at spaces and punctuation, keeps the offsets
    ends = [(token, ids[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("pad", "unk", "cls", "sep", "mask")
    settings = {f"{name}_token": token for name, token in zip(names, SPECIAL, strict=True)}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_random(folder: Path, model) -> Path:
    """Write a model of random weights, all of them moved off zero and one."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


def tiny_clip(folder: Path, known=(), vocabulary: int = len(SPECIAL) + len(WORDS), ends=(2, 3, 0), seed=0) -> Path:
    """Write a CLIP of random weights, 32 pixels in patches of 8, with a word-level tokenizer; return the folder.

    ``ends``: ids of the tokens for begin, end and padding.
    """
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        text_config=tower
        | {
            "vocab_size": vocabulary,
            "max_position_embeddings": 16,
            **dict(zip(("bos_token_id", "eos_token_id", "pad_token_id"), ends, strict=True)),
        },
        projection_dim=8,
        architectures=["CLIPModel"],
        **({"known_classes": list(known)} if known else {}),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_random(folder, CLIPModel(config))
    write_tokenizer(folder, WORDS)
    return folder


def tiny_sam(folder: Path, kind: str = "sam", seed: int = 0) -> Path:
    """Write a SAM, or with ``kind`` "sam2" a SAM 2, for 64 x 64 pixels, and return the folder.

    Its weights are random, and so large that points matter and masks have edges.
    """
    torch.manual_seed(seed)
    small = {"hidden_size": 32, "num_attention_heads": 2, "mlp_dim": 64, "iou_head_hidden_dim": 32}
    parts = {
        "prompt_encoder_config": {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        "mask_decoder_config": small,
    }
    if kind == "sam":
        vision = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        vision |= {"image_size": 64, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 16, "mlp_dim": 64}
        model: PreTrainedModel = SamModel(SamConfig(vision_config=vision, **parts))
    else:
        backbone = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [64, 64]}
        backbone |= {"blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64]}
        backbone |= {"num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 4]}
        backbone |= {"global_attention_blocks": [3], "window_positional_embedding_background_size": [2, 2]}
        sizes = [[16, 16], [8, 8], [4, 4]]
        vision = {"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32}
        model = Sam2Model(Sam2Config(vision_config=vision | {"backbone_feature_sizes": sizes}, **parts))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name and "shared" not in name and weights.dim() > 1:
                weights.normal_(0, 0.7 / weights[0].numel() ** 0.5)
        for head in model.mask_decoder.output_hypernetworks_mlps:
            head.proj_out.weight *= 300
        model.mask_decoder.iou_prediction_head.proj_out.weight *= 10
    model.save_pretrained(folder)
    return folder


def tiny_groupvit(
    folder: Path, seed: int = 5, vocabulary: int = len(SPECIAL) + len(WORDS), ends: tuple[int, ...] = (2, 3, 0)
) -> Path:
    """Write a GroupViT of random weights, 32 pixels in patches of 8, with a word-level tokenizer; return the folder.

    With this seed its groups are not all of the same shape: most random ones put a photo into a single group.
    """
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    vision = {"image_size": 32, "patch_size": 8, "depths": [1, 1, 1], "num_hidden_layers": 3}
    vision |= {"num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 8]}
    ids = dict(zip(("bos_token_id", "eos_token_id", "pad_token_id"), ends, strict=True))
    text = {"vocab_size": vocabulary, "max_position_embeddings": 16, "num_hidden_layers": 2}
    sizes = {"projection_dim": 8, "projection_intermediate_dim": 16}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GroupViTConfig(vision_config=tower | vision, text_config=tower | text | ids, **sizes)
        write_random(folder, GroupViTModel(config))
    write_tokenizer(folder, WORDS)
    return folder
