"""Names by a captioner: it describes the photo in several ways, and what its captions agree on counts."""

from pathlib import Path

import torch
from transformers import BlipForConditionalGeneration

from pnp_ovss.models import _device, _dtype
from pnp_ovss.models.hub import resolve
from pnp_ovss.models.loading import Preparation, load_model, load_tokenizer
from pnp_ovss.naming.base import Guess, Naming
from pnp_ovss.naming.candidates import Candidates
from pnp_ovss.naming.phrases import nouns
from pnp_ovss.types import RGB

CAPTIONERS: dict[str, str] = {
    "blip-caption-base": "Salesforce/blip-image-captioning-base",
    "blip-caption-large": "Salesforce/blip-image-captioning-large",
}
BEAMS, LONGEST = 5, 30
"""Captions of a photo, and tokens of a caption."""


class Captioner:
    """A BLIP captioner. Li, Li, Xiong, Hoi: BLIP, ICML 2022."""

    def __init__(self, name: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        checkpoint = resolve(CAPTIONERS.get(str(name), name), str(name))
        self.name, folder, target = checkpoint.name, checkpoint.folder, _device(device)
        self._model = load_model(BlipForConditionalGeneration, folder, self.name, _dtype(dtype, target)).to(target)
        self._tokenizer = load_tokenizer(folder, self.name)
        self._preparation = Preparation.from_folder(folder)

    @torch.no_grad()
    def captions(self, image: RGB) -> list[tuple[str, float]]:
        """Return the best captions by beam search with their shares of the probability, which sum to 1."""
        size = self._model.config.vision_config.image_size
        pixels = self._preparation(image, size)[None].to(self._model.device, self._model.dtype)
        out = self._model.generate(
            pixel_values=pixels,
            num_beams=BEAMS,
            num_return_sequences=BEAMS,
            max_new_tokens=LONGEST,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = self._tokenizer.batch_decode(out.sequences, skip_special_tokens=True)
        shares = out.sequences_scores.float().softmax(0).tolist()
        return [(" ".join(text.split()), share) for text, share in zip(texts, shares, strict=True)]


class CaptionNamer:
    """Reads the nouns of a photo's captions."""

    def __init__(self, captioner: Captioner) -> None:
        self.source = f"caption by {captioner.name}"
        self._captioner = captioner

    def __call__(self, image: RGB, candidates: Candidates | None, key: str) -> Naming:
        """Return what the captions name; the confidence is the share of the captions that name it, by probability."""
        captions = self._captioner.captions(image)
        shares: dict[str, float] = {}
        for caption, share in captions:
            for name in nouns(caption, candidates):
                shares[name] = min(1.0, shares.get(name, 0.0) + share)
        order = sorted(shares, key=lambda name: -shares[name])
        return Naming(tuple(Guess(name, shares[name]) for name in order), (f"caption: {captions[0][0]}",))
