"""The repositories of the short names, laid out as on the hub: their files, settings of their time, and random weights.

Where the public repositories differ from what today's transformers would write, a comment says who says so. PR and
issue numbers are those of huggingface/transformers.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipConfig,
    BlipForConditionalGeneration,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

from pnp_ovss.models.hub import SHORT_NAMES, WEIGHTS
from tiny import (
    SPECIAL,
    WORDS,
    tiny_blip,
    tiny_blip2,
    tiny_bridgetower,
    tiny_clip,
    tiny_groupvit,
    tiny_sam,
    tiny_vilt,
    write_random,
)

SAFE, _, BIN, _ = WEIGHTS

SOUP = {
    "_name_or_path": "", "add_cross_attention": False, "architectures": None, "bad_words_ids": None,
    "begin_suppress_tokens": None, "bos_token_id": None, "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None, "decoder_start_token_id": None, "diversity_penalty": 0.0, "do_sample": False,
    "early_stopping": False, "encoder_no_repeat_ngram_size": 0, "eos_token_id": None,
    "exponential_decay_length_penalty": None, "finetuning_task": None, "forced_bos_token_id": None,
    "forced_eos_token_id": None, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": False,
    "is_encoder_decoder": False, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0, "max_length": 20,
    "min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1,
    "output_attentions": False, "output_hidden_states": False, "output_scores": False, "pad_token_id": None,
    "prefix": None, "problem_type": None, "pruned_heads": {}, "remove_invalid_values": False,
    "repetition_penalty": 1.0, "return_dict": True, "return_dict_in_generate": False, "sep_token_id": None,
    "suppress_tokens": None, "task_specific_params": None, "temperature": 1.0, "tf_legacy_loss": False,
    "tie_encoder_decoder": False, "tie_word_embeddings": True, "tokenizer_class": None, "top_k": 50, "top_p": 1.0,
    "torch_dtype": None, "torchscript": False, "transformers_version": "4.26.0.dev0", "typical_p": 1.0,
    "use_bfloat16": False,
}  # fmt: skip
"""What every nested configuration was written with until PR 25237: all of ``PretrainedConfig.to_dict``, the defaults of
generation among them."""

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
BERT = tuple(dict.fromkeys((*WORDS, *LETTERS)))
"""Words of a small vocabulary in the manner of BERT's; ``tiny`` puts the special ones before them."""


def old_settings(folder: Path, nested: tuple[str, ...], changes: Mapping[str, object], **parts: object) -> None:
    """Write ``config.json`` as transformers 4.26 did; ``parts``: changes of nested ones, by name."""
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    settings.pop("dtype", None)
    for name in nested:
        # Models of two towers took over all of what each would have had alone.
        settings[name] = SOUP | {"torch_dtype": None} | settings[name] | parts.get(name, {})
        settings[name].pop("dtype", None)
    # `torch_dtype` is `dtype` since PR 39782; composite models wrote no version of their own.
    settings |= {"torch_dtype": "float32", "transformers_version": None, "_commit_hash": None}
    path.write_text(json.dumps(settings | changes, indent=2))


def old_pixels(folder: Path, side: int, kind: str, **changes: object) -> None:
    """Write ``preprocessor_config.json`` for a feature extractor, which image processors were called until PR 20590."""
    settings = {"feature_extractor_type": kind, "do_normalize": True, "do_resize": True, "resample": 3, "size": side}
    settings |= {"image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | changes))


def positions(*names: str, length: int = 64) -> dict[str, Tensor]:
    """Return buffers of position ids, which checkpoints held until PR 24505."""
    return {f"{name}.position_ids": torch.arange(length)[None] for name in names}


def store(folder: Path, form: str, extra: Mapping[str, Tensor]) -> None:
    """Write the weights anew, with more than is wanted, as ``form`` says."""
    weights = load_file(folder / SAFE) | dict(extra)
    (folder / SAFE).unlink()
    if "bin" in form:
        torch.save(weights, folder / BIN)
    if "safe" in form:
        save_file(weights, folder / SAFE, {"format": "pt"})
    if "parts" in form:
        names = sorted(weights)
        place = {}
        for number in (1, 2):
            part = f"model-0000{number}-of-00002.safetensors"
            some = {name: weights[name] for name in names[number - 1 :: 2]}
            save_file(some, folder / part, {"format": "pt"})
            place |= dict.fromkeys(some, part)
        (folder / f"{SAFE}.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": place}))
    for name in ("tf_model.h5", "flax_model.msgpack", ".gitattributes", "README.md"):
        (folder / name).write_bytes(b"of no use here")


def bert(folder: Path, whole: bool, **more: object) -> None:
    """Write BERT's kind of tokenizer, with or without a ``tokenizer.json`` (fast ones came after many repositories)."""
    words = [*SPECIAL, *BERT]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    named = {f"{kind}_token": token for kind, token in names.items()}
    settings = {"do_lower_case": True, "do_basic_tokenize": True, "never_split": None, "strip_accents": None}
    settings |= {"tokenize_chinese_chars": True, "name_or_path": "bert-base-uncased", "model_max_length": 512}
    settings |= {"special_tokens_map_file": None, "tokenizer_class": "BertTokenizer"} | named
    tokenizer(folder, settings | more, named, whole)


def tokenizer(folder: Path, settings: Mapping[str, object], named: Mapping[str, object], whole: bool) -> None:
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    if whole:
        AutoTokenizer.from_pretrained(folder).backend_tokenizer.save(str(folder / "tokenizer.json"))


BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
CLIP_MERGES = ["d o", "do g</w>", "c a", "ca t</w>"]
CLIP_VOCABULARY = [*BYTES, *(f"{one}</w>" for one in BYTES), *(one.replace(" ", "") for one in CLIP_MERGES)]
CLIP_ENDS = len(CLIP_VOCABULARY), len(CLIP_VOCABULARY) + 1


def clip_bpe(folder: Path, whole: bool) -> None:
    """Write CLIP's kind of tokenizer: pairs of bytes, and the end of the text, with the highest id, as padding."""
    begin, end = "<|startoftext|>", "<|endoftext|>"
    words = [*CLIP_VOCABULARY, begin, end]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *CLIP_MERGES]) + "\n")
    named = {"bos_token": begin, "eos_token": end, "pad_token": end, "unk_token": end}
    more = {"content": begin, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    settings = {"errors": "replace", "do_lower_case": True, "add_prefix_space": False, "model_max_length": 77}
    settings |= {"name_or_path": "openai/clip-vit-base-patch32", "tokenizer_class": "CLIPTokenizer"} | named
    settings["bos_token"] = more | {"__type": "AddedToken"}
    tokenizer(folder, settings, named, whole)


ROBERTA_MERGES = ["d o", "Ġ do", "Ġdo g", "Ġ c", "Ġc a", "Ġca t"]
ROBERTA_VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *BYTES, *(one.replace(" ", "") for one in ROBERTA_MERGES)]


def roberta(folder: Path, whole: bool) -> None:
    """Write RoBERTa's kind of tokenizer, whose padding is 1."""
    words = [*ROBERTA_VOCABULARY, "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *ROBERTA_MERGES]) + "\n")
    kinds = ("bos", "pad", "eos", "unk", "mask")
    named = dict(zip((f"{kind}_token" for kind in kinds), ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], strict=True))
    named |= {"cls_token": "<s>", "sep_token": "</s>"}
    settings = {"add_prefix_space": False, "errors": "replace", "model_max_length": 512, "trim_offsets": True}
    tokenizer(folder, settings | {"tokenizer_class": "RobertaTokenizer"} | named, named, whole)


BLIP_SHAPE = {"hidden_size": 96, "vocab_size": len(SPECIAL) + len(BERT) + 2}
"""Of its words, small: the authors' have 768 and 30524."""


def blip(folder: Path, form: str, whole: bool, heads: int = 12) -> None:
    """Write a matcher of BLIP; ``heads``: those of the words that its settings name, while its weights have 12.

    8 was the default of transformers (issue 22625); PR 22632 lists the repositories whose settings were then mended.
    """
    tiny_blip(folder, layers=12, heads=12, words=BERT)
    text = {"num_attention_heads": heads, "is_decoder": True, "bos_token_id": len(SPECIAL) + len(BERT)}
    vision = {"dropout": 0.0, "num_channels": 3, "initializer_factor": 1.0, "projection_dim": 512}
    old_settings(folder, ("text_config", "vision_config"), {}, text_config=text, vision_config=vision)
    bert(folder, whole)
    old_pixels(folder, 32, "", image_processor_type="BlipImageProcessor", processor_class="BlipProcessor")
    store(folder, form, positions("text_encoder.embeddings"))


def captioner(folder: Path, form: str, whole: bool, heads: int = 12) -> None:
    """Write a captioner of BLIP, whose output layer is stored although it is tied to the embeddings."""
    tower = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 12, "intermediate_size": 32}
    ends = {"bos_token_id": len(SPECIAL) + len(BERT), "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text = tower | ends | {"vocab_size": len(SPECIAL) + len(BERT) + 2, "encoder_hidden_size": 96}
    vision = tower | {"image_size": 32, "patch_size": 8}
    config = BlipConfig(text_config=text, vision_config=vision, architectures=["BlipForConditionalGeneration"])
    torch.manual_seed(0)
    write_random(folder, BlipForConditionalGeneration(config))
    # During generation [SEP] ends the text, whatever the settings call the end.
    old = {"num_attention_heads": heads, "eos_token_id": 2, "is_decoder": True}
    old_settings(folder, ("text_config", "vision_config"), {}, text_config=old)
    bert(folder, whole)
    old_pixels(folder, 32, "", image_processor_type="BlipImageProcessor")
    weights = load_file(folder / SAFE)
    head, embedding = "text_decoder.cls.predictions.decoder", "text_decoder.bert.embeddings.word_embeddings.weight"
    extra = {f"{head}.weight": weights[embedding].clone(), f"{head}.bias": weights["text_decoder.cls.predictions.bias"]}
    extra = {name: one.clone() for name, one in extra.items()}
    store(folder, form, positions("text_decoder.bert.embeddings") | extra)


def bridgetower(folder: Path, form: str, bare: bool, architecture: str, extra: Mapping[str, Tensor]) -> None:
    """Write a BridgeTower that names another architecture than the matching head's, which its weights hold.

    ``bare``: as the large ones, with nothing but a ``tokenizer.json`` and its ``vocab.json``, and no mean of colours.
    """
    tiny_bridgetower(folder, heads=8, vocab_size=len(ROBERTA_VOCABULARY) + 1, pad_token_id=1)
    # Settings of the first pull request, 20775, that later ones dropped.
    dropped = {"text_config_dict": None, "vision_config_dict": None, "head_hidden_scale": 2, "drop_rate": 0.1}
    dropped |= {"architectures": [architecture], "cross_modal_transform_shared": True, "link_tower_shared": False}
    old_settings(folder, ("text_config", "vision_config"), dropped)
    roberta(folder, whole=True)
    old_pixels(folder, 32, "", image_processor_type="BridgeTowerImageProcessor", size_divisor=32, do_pad=True)
    if bare:
        for name in ("merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
            (folder / name).unlink()
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"do_resize": True, "size": 32, "size_divisor": 32})
        )
    towers = ("bridgetower.text_model.embeddings", "bridgetower.vision_model.visual.embeddings")
    store(folder, form, positions(*towers) | dict(extra))


def vilt(folder: Path, form: str, whole: bool) -> None:
    """Write a ViLT, whose settings have been flat from the first."""
    tiny_vilt(folder, layers=8, words=BERT)  # in the topmost, only [CLS] is read
    more = {"max_image_length": -1, "num_images": -1, "modality_type_vocab_size": 2, "qkv_bias": True}
    old_settings(folder, (), SOUP | json.loads((folder / "config.json").read_text()) | more)
    bert(folder, whole)
    old_pixels(folder, 32, "ViltFeatureExtractor", image_mean=[0.5] * 3, image_std=[0.5] * 3, size_divisor=32)
    store(folder, form, positions("vilt.embeddings.text_embeddings"))


def blip2(folder: Path, whole: bool) -> None:
    """Write a BLIP-2 with a [DEC] behind the vocabulary (PR 29261), and older, larger weights beside its own.

    Its settings are those alone that differ from today's defaults.
    """
    tiny_blip2(folder, image_size=28, patch=14, layers=5, heads=12, words=(*BERT, "[DEC]"))
    settings = json.loads((folder / "config.json").read_text())
    for name, kind in (("qformer_config", Blip2QFormerConfig), ("vision_config", Blip2VisionConfig)):
        usual = kind().to_dict()
        said = {key: value for key, value in settings[name].items() if usual.get(key) != value}
        settings[name] = said | {"model_type": usual["model_type"]}
    settings["text_config"] = {"model_type": "opt"}  # of a language model that it has not got
    (folder / "config.json").write_text(json.dumps(settings))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = {**dict(enumerate(SPECIAL)), len(SPECIAL) + len(BERT): "[DEC]"}
    decoder = {str(number): plain | {"content": token} for number, token in added.items()}
    bert(folder, whole, bos_token="[DEC]", truncation_side="right", added_tokens_decoder=decoder)
    old_pixels(folder, 28, "", image_processor_type="BlipImageProcessor")
    store(folder, "safe", positions("embeddings"))
    torch.save({"old": torch.zeros(2 * (folder / SAFE).stat().st_size // 4)}, folder / BIN)


def clip(folder: Path, form: str, whole: bool, twice: bool) -> None:
    """Write a CLIP; ``twice``: with what its towers differ in from the defaults under a second name."""
    tiny_clip(folder, vocabulary=len(CLIP_VOCABULARY) + 2, ends=(*CLIP_ENDS, CLIP_ENDS[1]))
    settings = json.loads((folder / "config.json").read_text())
    # The ids of the ends were wrong until PR 24773, and are on the hub; where it reads 2, the highest id is the end.
    text = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    names += ("vocab_size", "max_position_embeddings", "image_size", "patch_size")  # of tiny ones alone
    # `text_config` was an argument of the name `text_config_dict` until PR 19954, and both were written until PR 22035,
    # which names openai/clip-vit-base-patch16.
    both = {
        f"{name}_dict": {key: settings[name][key] for key in names if key in settings[name]}
        | ({"eos_token_id": CLIP_ENDS[1]} if name == "text_config" else {})
        for name in ("text_config", "vision_config")
    }
    changes = both if twice else dict.fromkeys(both)
    old_settings(folder, ("text_config", "vision_config"), changes, text_config=text, vision_config={"dropout": 0.0})
    clip_bpe(folder, whole)
    old_pixels(folder, 32, "CLIPFeatureExtractor", crop_size=32, do_center_crop=True)
    extra = positions("text_model.embeddings", length=16) | positions("vision_model.embeddings", length=17)
    store(folder, form, extra)


def groupvit(folder: Path, form: str, whole: bool) -> None:
    """Write a GroupViT in torch's format alone."""
    tiny_groupvit(folder, vocabulary=len(CLIP_VOCABULARY) + 2, ends=(*CLIP_ENDS, CLIP_ENDS[1]))
    text = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}  # as CLIP's
    changes = {"text_config_dict": None, "vision_config_dict": None}
    old_settings(folder, ("text_config", "vision_config"), changes, text_config=text, vision_config={"dropout": 0.0})
    clip_bpe(folder, whole)
    old_pixels(folder, 32, "CLIPFeatureExtractor", crop_size=32, do_center_crop=True)
    extra = positions("text_model.embeddings", length=16) | positions("vision_model.embeddings", length=16)
    store(folder, form, extra)


SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def dino(folder: Path, form: str, patch: int) -> None:
    """Write a DINO: a ViT without the pooler that its class has (issue 25377), and with transformers' epsilon."""
    torch.manual_seed(0)
    config = ViTConfig(**SIZES, image_size=32, patch_size=patch, architectures=["ViTModel"])
    write_random(folder, ViTModel(config, add_pooling_layer=False))
    old_settings(folder, (), SOUP | json.loads((folder / "config.json").read_text()) | {"layer_norm_eps": 1e-12})
    old_pixels(folder, 32, "ViTFeatureExtractor", image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    store(folder, form, {})


def dinov2(folder: Path, form: str) -> None:
    """Write a DINOv2, which has no feature extractor of its own kind, but BiT's."""
    torch.manual_seed(0)
    config = Dinov2Config(**SIZES, image_size=28, patch_size=14, architectures=["Dinov2Model"])
    write_random(folder, Dinov2Model(config))
    old_settings(folder, (), {"apply_layernorm": True, "reshape_hidden_states": True})
    old_pixels(folder, 28, "", image_processor_type="BitImageProcessor", size={"shortest_edge": 28})
    store(folder, form, {})


def sam(folder: Path, form: str) -> None:
    """Write a SAM, whose positions are stored under both names that they have."""
    tiny_sam(folder)
    old_settings(folder, ("vision_config", "prompt_encoder_config", "mask_decoder_config"), {})
    weights = load_file(folder / SAFE)
    names = "shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"
    [stored] = [weights[name] for name in names if name in weights][:1]
    store(folder, form, {name: stored.clone() for name in names})


def sam2(folder: Path, form: str) -> None:
    """Write a SAM 2 as one for videos, which those on the hub are (PR 43495): their memory is of no use for photos."""
    tiny_sam(folder, "sam2")
    memory = {"num_maskmem": 7, "memory_attention_hidden_size": 32, "sigmoid_scale_for_mem_enc": 20.0}
    nested = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    old_settings(folder, nested, memory | {"model_type": "sam2_video", "architectures": ["Sam2VideoModel"]})
    names = ("no_memory_embedding", "memory_attention.layer_norm.weight", "memory_encoder.projection.bias")
    store(folder, form, {name: torch.zeros(1, 1, 32) for name in (*names, "object_pointer_proj.proj_in.weight")})
    (folder / "sam2.1_hiera_tiny.pt").write_bytes(b"of no use here")


def metaclip(folder: Path, other: str) -> None:
    """Write a MetaCLIP, beside whose weights is a file of another layout."""
    clip(folder, form="bin", whole=False, twice=False)
    (folder / other).write_bytes(b"of no use here")


MLM = {"mlm_score.decoder.bias": torch.zeros(3), "mlm_score.transform.dense.weight": torch.zeros(2, 2)}
ITC = {"logit_scale": torch.tensor(1.0), "itc_text_head.fc.weight": torch.zeros(2, 2)}

PUBLISHED: dict[str, Callable[[Path], None]] = {
    "blip-base-coco": partial(blip, form="bin safe", whole=True),
    "blip-base-flickr": partial(blip, form="bin", whole=True, heads=8),
    "blip-large-coco": partial(blip, form="bin safe", whole=False),
    "blip-large-flickr": partial(blip, form="parts", whole=True),
    "bridgetower-base": partial(bridgetower, form="bin", bare=False, architecture="BridgeTowerForMaskedLM", extra=MLM),
    "bridgetower-large": partial(bridgetower, form="bin", bare=True, architecture="BridgeTowerModel", extra=MLM),
    "bridgetower-large-itc": partial(
        bridgetower, form="bin safe", bare=True, architecture="BridgeTowerForContrastiveLearning", extra=ITC
    ),
    "vilt-coco": partial(vilt, form="bin", whole=True),
    "vilt-flickr": partial(vilt, form="bin", whole=False),
    "blip2": partial(blip2, whole=True),
    "blip2-coco": partial(blip2, whole=False),
    "clip-base": partial(clip, form="bin", whole=True, twice=True),
    "clip-large": partial(clip, form="bin safe", whole=False, twice=False),
    "clip-large-336": partial(clip, form="bin", whole=True, twice=False),
    "metaclip-base": partial(metaclip, other="metaclip_b16_fullcc2.5b.bin"),
    "metaclip-large": partial(metaclip, other="metaclip_l14_fullcc2.5b.bin"),
    "dino-base": partial(dino, form="bin", patch=8),
    "dino-base-16": partial(dino, form="bin safe", patch=16),
    "dinov2-base": partial(dinov2, form="bin safe"),
    "sam-base": partial(sam, form="bin safe"),
    "sam-large": partial(sam, form="bin"),
    "sam-huge": partial(sam, form="safe"),
    "sam2-tiny": partial(sam2, form="safe"),
    "sam2-small": partial(sam2, form="safe"),
    "sam2-base": partial(sam2, form="safe"),
    "sam2-large": partial(sam2, form="safe"),
    "blip-caption-base": partial(captioner, form="bin safe", whole=True),
    "blip-caption-large": partial(captioner, form="bin", whole=False, heads=8),
    "groupvit-yfcc": partial(groupvit, form="bin", whole=True),
    "groupvit-redcaps": partial(groupvit, form="bin", whole=False),
}
"""Writes the repository of a short name into a folder. A form or a tokenizer that one repository has today is another's
tomorrow: what matters is that each family meets each of them."""


T5 = ("<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz", "▁a", "▁do", "▁dog", "▁ca")


def t5_tokenizer(folder: Path) -> None:
    """Write a sentence encoder's repository: a Unigram tokenizer, beside the file that it was made from."""
    folder.mkdir()
    made = Tokenizer(models.Unigram([(word, -1.0 / len(word)) for word in T5], unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.add_special_tokens([*T5[:3]])
    made.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 512} | named
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5EncoderModel"]}))
    for name in ("spiece.model", "pytorch_model.bin", "modules.json"):
        (folder / name).write_bytes(b"of no use here")


def distilbert_tokenizer(folder: Path) -> None:
    """Write a DistilBERT's repository, whose tokenizer only ``config.json`` gives a kind."""
    folder.mkdir()
    bert(folder, whole=True)
    (folder / "special_tokens_map.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 512}))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"]})
    )
    for name in (SAFE, BIN, "tf_model.h5"):
        (folder / name).write_bytes(b"of no use here")


def openclip_tokenizer(folder: Path) -> None:
    """Write a repository of timm's with CLIP's tokenizer, and without a ``config.json``."""
    folder.mkdir()
    clip_bpe(folder, whole=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 768}}))
    (folder / "open_clip_model.safetensors").write_bytes(b"of no use here")


TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "openai/clip-vit-base-patch16": PUBLISHED["clip-base"],
    "timm/resnet50x16_clip.openai": openclip_tokenizer,
    "sentence-transformers/sentence-t5-base": t5_tokenizer,
    "distilbert/distilbert-base-uncased": distilbert_tokenizer,
}
"""Writes a repository of which the tokenizer alone is fetched."""


def publish(name: str, folder: Path) -> tuple[str, Path]:
    """Write the repository of a short name; return its hub id and the folder."""
    PUBLISHED[name](folder)
    return str(SHORT_NAMES[name].source), folder
