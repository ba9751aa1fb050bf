"""Captions by BLIP. Li, Li, Xiong, Hoi: BLIP, ICML 2022. Any ``BlipForConditionalGeneration`` checkpoint fits."""

from pathlib import Path

import torch
from transformers import BlipForConditionalGeneration

from pnp_ovss.models.hub import find
from pnp_ovss.models.loading import Pretrained
from pnp_ovss.types import RGB

CAPTIONS, TOKENS = 5, 30
"""Captions of a photo, and tokens of a caption at most."""


class Captioner(Pretrained):
    """The captioner with this short name (``blip-caption-base`` or ``-large``), hub id or local folder."""

    model_class = BlipForConditionalGeneration

    def __init__(self, name: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        super().__init__(find(name), device, dtype)

    @torch.no_grad()
    def captions(self, image: RGB) -> list[tuple[str, float]]:
        """Return the best captions by beam search with their shares of the probability, which sum to 1."""
        size = self._model.config.vision_config.image_size
        out = self._model.generate(
            pixel_values=self._normalise(image, size)[None].to(self.device, self._model.dtype),
            num_beams=CAPTIONS,
            num_return_sequences=CAPTIONS,
            max_new_tokens=TOKENS,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = self._tokenizer.batch_decode(out.sequences, skip_special_tokens=True)
        shares = out.sequences_scores.float().softmax(0).tolist()
        return [(" ".join(text.split()), share) for text, share in zip(texts, shares, strict=True)]
