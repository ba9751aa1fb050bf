"""What a photo shows, in sentences: a BLIP captioner. Li, Li, Xiong, Hoi: BLIP, ICML 2022."""

from pathlib import Path

import torch
from transformers import BlipForConditionalGeneration

from pnp_ovss.models import _device, _dtype
from pnp_ovss.models.hub import resolve
from pnp_ovss.models.loading import Preparation, load_model, load_tokenizer
from pnp_ovss.types import RGB

CAPTIONERS: dict[str, str] = {
    "blip-caption-base": "Salesforce/blip-image-captioning-base",
    "blip-caption-large": "Salesforce/blip-image-captioning-large",
}
BEAMS, LONGEST = 5, 30
"""Captions of a photo, and tokens of a caption."""


class Captioner:
    """A BLIP captioner."""

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
