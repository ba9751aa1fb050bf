"""CorrCLIP: patches attend to each other inside regions of the photo alone, and each region has a [CLS] of its own.

Source: Zhang, Liu, Tang, "CorrCLIP: reconstructing patch correlations in CLIP for open-vocabulary semantic
segmentation", ICCV 2025, and the first version of its code. There the regions are SAM 2's; here those of any source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Num
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from pnp_ovss.errors import ConfigError
from pnp_ovss.methods.on_clip import MINI, Encoded, Pixels, WindowMaps, owners, presets
from pnp_ovss.methods.proxyclip import ProxyClip, ProxyConfig, by_benchmark
from pnp_ovss.models.base import fused_attention
from pnp_ovss.models.clip import Clip, Tokens
from pnp_ovss.models.dino import Dino, load_dino
from pnp_ovss.regions import RegionMap, check_source, find_regions
from pnp_ovss.settings import setting
from pnp_ovss.types import ClassMaps, OnStep, Photos, Vocabulary, ignore

OWN = "clip"
"""The proxy that is CLIP itself. Ours: theirs is DINO."""
NONE, OUTSIDE = -1, 0
"""Numbers that are no region: where there is none, and what windows are filled up with. Regions count from 1."""
Numbers = Int[Tensor, "b position"]


@dataclass(frozen=True)
class CorrClipConfig(ProxyConfig):
    """Settings of CorrCLIP."""

    eps: float = setting(0.2, "corrclip: regions whose mean features are so alike, 1 less this, are one", 0, 2)
    tau: float = setting(4.0, "corrclip: likeness is multiplied by this before the softmax")
    num_spatial: int = setting(5, "corrclip: blocks before the last but one that count as well")
    alpha: float = setting(1.0, "corrclip: their weight")
    beta: float = setting(0.5, "corrclip: weight of a region's [CLS]")
    map_correction: bool = setting(True, "corrclip: a region's pixels take the label that most of them have")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_source(self.regions)

    @property
    def uses_regions(self) -> bool:
        """Whether the labels follow the regions of the photo: they do."""
        return True


@dataclass(frozen=True, kw_only=True)
class RegionMaps(WindowMaps):
    """Class maps, and the regions that they were made with."""

    regions: RegionMap


class CorrClip(ProxyClip):
    """CorrCLIP. The grid is the proxy's.

    Pixels may have a fourth channel, made by ``with_regions``; else the regions are those of the pixels by themselves.
    """

    name, settings = "corrclip", CorrClipConfig
    presets = presets(
        CorrClipConfig(crop=336, stride=112, prob_threshold=0.2, regions="sam", regions_model="sam2-large"),
        **by_benchmark("corrclip"),
        mini=MINI | {"num_spatial": 2, "proxy": OWN, "eps": 0.02, "regions": "watershed", "regions_size": 0.15},
    )

    def __init__(self, clip: Clip, config: CorrClipConfig, proxy: Dino | Clip) -> None:
        super().__init__(clip, config, proxy)
        if config.num_spatial > clip.blocks - 2:
            expected = f"num_spatial up to {clip.blocks - 2}, the blocks of {clip.name} before the last but one"
            raise ConfigError(f"expected {expected}, got {config.num_spatial}; choose less")

    @classmethod
    def on(cls, clip: Clip, config: CorrClipConfig, device: str, dtype: str) -> "CorrClip":
        """Return the method on a CLIP and on the ``proxy`` of the settings."""
        return cls(clip, config, clip if config.proxy == OWN else load_dino(config.proxy, device, dtype))

    def class_maps(
        self, images: Photos, vocabularies: Sequence[Vocabulary], on_step: OnStep = ignore
    ) -> list[ClassMaps]:
        """Return the cosines of each photo's patches with its words, and its regions.

        Raises: InputError if a class name cannot be used; as the source of the regions does.
        """
        regions, pixels = list[RegionMap](), list[Tensor]()
        for number, image in enumerate(images):
            on_step("regions", number, len(images))
            regions.append(find_regions(image, self.config, str(self.device)))
            pixels.append(self.with_regions(self.prepare(image), regions[-1]))
        found = self._class_maps(pixels, images, vocabularies, on_step)
        return [RegionMaps(**vars(one), regions=own) for one, own in zip(found, regions, strict=True)]

    def with_regions(self, pixels: Float[Tensor, "3 _ _"], regions: RegionMap) -> Float[Tensor, "4 _ _"]:
        """Return pixels with the number of each one's region; these may be of another size."""
        numbers = torch.from_numpy(regions).to(pixels.device) + 1
        numbers = nearest(torch.where(numbers > 0, numbers, NONE)[None], pixels.shape[1:])
        return torch.cat([pixels, numbers])

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 on the proxy's grid."""
        if pixels.shape[1] == 3:
            pixels = torch.stack([self.with_regions(one, self._regions_of(one)) for one in pixels])
        pixels, numbers, patch = pixels[:, :3], pixels[:, 3], self.clip.patch
        b, h, w = numbers.shape
        grid, coarse = (h // self.cell, w // self.cell), (h // patch, w // patch)
        likeness = normalize(self.proxy.encode_queries_and_keys(self._renormalised(pixels)).flatten(1, 2), dim=-1)
        merged = nearest(numbers, grid).flatten(1).long()
        merged = torch.stack([merge(*one, self.config.eps) for one in zip(likeness, merged, strict=True)])
        attention = region_attention(likeness, merged, self.config.tau)
        small = nearest(merged.view(b, *grid), coarse).flatten(1).long()
        tokens, middle, copies = self._run(self.clip.embed(pixels), small)
        vectors = self._attended(tokens, attention, coarse, grid)
        if self.config.num_spatial:
            vectors = vectors + self.config.alpha * self._attended(middle, attention, coarse, grid)
        own = nearest(small.view(b, *coarse), grid).flatten(1).long()
        of_region = self.clip.project(copies)
        vectors = vectors + self.config.beta * of_region.gather(1, own[..., None].expand(-1, -1, of_region.shape[2]))
        return (normalize(vectors, dim=-1).view(b, *grid, -1),)

    def scores(self, maps: ClassMaps, size: tuple[int, int]) -> Float[Tensor, "ch h w"]:
        """Return scores as every method on CLIP does; with ``map_correction`` those of regions after ``correct``."""
        assert isinstance(maps, RegionMaps)
        scores = super().scores(maps, size)
        if self.config.map_correction:
            regions = nearest(torch.from_numpy(maps.regions)[None].to(scores.device), size)[0].long()
            correct(scores, owners(maps.vocabulary, len(scores) > len(maps.vocabulary.flat)), regions)
        return scores

    def _regions_of(self, pixels: Float[Tensor, "3 h w"]) -> RegionMap:
        """Return the regions of a window by itself."""
        mean, std = torch.tensor([self.clip.mean, self.clip.std], device=pixels.device)[:, :, None, None]
        photo = (255 * (pixels * std + mean)).round().clamp(0, 255).byte()
        return find_regions(photo.permute(1, 2, 0).cpu().numpy(), self.config, str(self.device))

    def _run(self, tokens: Tokens, numbers: Numbers) -> tuple[Tokens, Tokens, Float[Tensor, "b number width"]]:
        """Return what enters the last block, the mean of the blocks before, and a [CLS] for each number of a region.

        Those go through all blocks and attend to the [CLS] of the window and the patches of their number.
        """
        clip, last = self.clip, self.clip.blocks - 1
        copies = tokens[:, :1].expand(-1, int(numbers.max()) + 1, -1)
        own = numbers[:, None] == torch.arange(copies.shape[1], device=numbers.device)[:, None]
        mask = torch.zeros(own.shape, device=own.device).masked_fill(~own, -torch.inf)
        mask = torch.cat([mask.new_zeros(*mask.shape[:2], 1), mask], 2)[:, None].to(clip.dtype)
        middle, before = torch.zeros_like(tokens), tokens
        for index in range(clip.blocks):
            q, k, v = clip.qkv(index, tokens)
            asked = clip.qkv(index, copies)[0]
            copies = clip.feed(index, copies + clip.mix(index, fused_attention(asked, k, v, clip.heads, mask)))
            before, tokens = tokens, clip.feed(index, tokens + clip.mix(index, fused_attention(q, k, v, clip.heads)))
            if last - 1 - self.config.num_spatial <= index < last - 1:
                middle = middle + tokens / self.config.num_spatial
        return before, middle, copies


def nearest(numbers: Num[Tensor, "b h w"], size: Sequence[int]) -> Float[Tensor, "b _ _"]:
    """Return numbers at another size, each that of the pixel before."""
    return interpolate(numbers[:, None].float(), size=tuple(size), mode="nearest")[:, 0]


def merge(
    features: Float[Tensor, "position width"], numbers: Int[Tensor, " position"], eps: float
) -> Int[Tensor, " position"]:
    """Return 0 where there is no region, 1 outside of the photo, and from 2 on a number for regions that are alike.

    These are the components of regions whose mean features, of length 1, have cosines of at least the largest less
    ``eps``.
    """
    merged = (numbers == OUTSIDE).long()
    inside = numbers > 0
    if inside.any():
        values, index = torch.unique(numbers[inside], return_inverse=True)
        sums = features.new_zeros(len(values), features.shape[1]).index_add_(0, index, features[inside])
        means = normalize(sums, dim=-1)  # a mean has the direction of the sum
        likeness = means @ means.T
        alike = (likeness.max() - likeness <= eps).cpu().numpy()
        groups = torch.from_numpy(connected_components(alike, directed=False)[1]).long().to(index.device)
        merged[inside] = 2 + groups[index]
    return merged


def region_attention(
    features: Float[Tensor, "b position width"], merged: Numbers, tau: float
) -> Float[Tensor, "b position position"]:
    """Return softmax(tau S) inside each of the regions of ``merge``; S is how alike features of length 1 are.

    Between a position that no region covers and any other one it counts where S is above its mean over the window.
    """
    likeness = features @ features.transpose(1, 2)
    rows, columns = merged[:, :, None], merged[:, None]
    bare = ((rows == 0) | (columns == 0)) & (rows != 1) & (columns != 1)
    counts = torch.where(bare, likeness > likeness.mean((1, 2), keepdim=True), rows == columns)
    counts |= torch.eye(likeness.shape[1], dtype=torch.bool, device=counts.device)  # where all look the same
    return (tau * likeness).masked_fill_(~counts, -torch.inf).softmax(-1)


def correct(scores: Float[Tensor, "ch h w"], owners: Sequence[int], regions: Int[Tensor, "h w"]) -> None:
    """Give, in place, all pixels of a region the label that most of them have; of several the lowest.

    ``owners``: the label of each channel. A pixel of another label has the largest score and the largest one of that
    label exchanged. Regions count from 0; pixels below stay.
    """
    of_channel = torch.tensor(owners, device=scores.device)
    count = max(owners) + 1
    best, winner = scores.max(0)
    labels, covered = of_channel[winner], regions >= 0
    votes = torch.bincount(regions[covered] * count + labels[covered], minlength=(int(regions.max()) + 1) * count)
    wanted = torch.where(covered, votes.view(-1, count).argmax(1)[regions.clamp(min=0)], labels)
    for label in torch.unique(wanted[wanted != labels]).tolist():
        places = (wanted == label) & (labels != label)
        channels = torch.nonzero(of_channel == label)[:, 0]
        value, place = scores[channels][:, places].max(0)
        rows, columns = torch.nonzero(places, as_tuple=True)
        scores[winner[places], rows, columns] = value
        scores[channels[place], rows, columns] = best[places]
