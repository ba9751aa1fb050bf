"""A BLIP of published shape with random weights: the arithmetic, memory and loading of the real one without a download.

    python -m benchmarks.random_blip OUT --vocabulary bert-base-uncased-vocab.txt [--shape base|large]

Its label maps mean nothing. ``--vocabulary`` is a WordPiece vocabulary, one token a line, such as BERT's.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval

VISION = {
    "base": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
}
ADDED_TOKENS = 2  # [DEC] and [ENC], rows of the text encoder that the tokenizer does not know


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--shape", choices=VISION, default="base")
    parser.add_argument("--image-size", type=int, default=384)
    args = parser.parse_args()
    model = random_blip(args.shape, args.image_size, len(args.vocabulary.read_text(encoding="utf-8").splitlines()))
    model.save_pretrained(args.out)
    (args.out / "vocab.txt").write_bytes(args.vocabulary.read_bytes())
    BertTokenizer(vocab=str(args.out / "vocab.txt")).save_pretrained(args.out)
    (args.out / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "BlipImageProcessor"}))
    print(f"{args.out}: {sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} M parameters, random")


def random_blip(shape: str, image_size: int, words: int) -> BlipForImageTextRetrieval:
    """Return BLIP for image-text retrieval with a vocabulary of ``words`` and two tokens more."""
    # By itself transformers draws a tower so small, 1e-10, that it leaves what enters as it is.
    vision = VISION[shape] | {"image_size": image_size, "patch_size": 16, "initializer_range": 0.02}
    text = {
        "num_attention_heads": 12,
        "encoder_hidden_size": VISION[shape]["hidden_size"],
        "vocab_size": words + ADDED_TOKENS,
    }
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=vision, architectures=["BlipForImageTextRetrieval"])
    return BlipForImageTextRetrieval(config)


if __name__ == "__main__":
    main()
