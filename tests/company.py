"""Results that tell with which other photos a photo went through the model."""

from dataclasses import replace

import pytest

from pnp_ovss.segmenter import Segmenter


def tell_company(patch: pytest.MonkeyPatch) -> None:
    """Let the match of each photo be the sum of all pixels of its batch."""
    locate = Segmenter.locate

    def locating(self, photos, vocabularies, *more):
        company = float(sum(int(photo.sum()) for photo in photos))
        located = locate(self, photos, vocabularies, *more)
        return [replace(one, maps=one.maps and replace(one.maps, match=company)) for one in located]

    patch.setattr(Segmenter, "locate", locating)
