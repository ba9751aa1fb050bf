"""Time of masks of everything in a photo: ours against transformers' mask-generation pipeline, in turns.

    python -m benchmarks.sam PHOTO [--kind sam2] [--points 16] [--rounds 3]

The photo is cut to a square. Random weights in the size of SAM's ViT-B or of SAM 2's Hiera-T, scaled so that masks have
edges; limits that half of the masks pass. The pipeline needs torchvision. On one thread, in seconds of processor, which
other programs lengthen less.
"""

import argparse
import resource
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

from pnp_ovss.images import read_image
from pnp_ovss.models import sam as ours


def random_sam(kind: str, folder: Path) -> Any:
    """Write a model of random weights, and return it."""
    torch.manual_seed(0)
    model: Any = SamModel(SamConfig()) if kind == "sam" else Sam2Model(Sam2Config())
    model.eval()
    with torch.no_grad():
        for head in model.mask_decoder.output_hypernetworks_mlps:
            head.proj_out.weight *= 3000
    model.save_pretrained(folder)
    return model


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds of processor, and the result."""
    begin = process_time()
    result = work()
    return process_time() - begin, result


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("--kind", choices=("sam", "sam2"), default="sam")
    parser.add_argument("--points", type=int, default=16, help="points along each side of the grid; SAM's own are 32")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    library: Any = transformers
    library.logging.set_verbosity_error()
    with TemporaryDirectory() as folder:
        model, photo = random_sam(args.kind, Path(folder)), read_image(args.photo)
        sam = ours.load_sam(folder, device="cpu")
    photo = photo[: min(photo.shape[:2]), : min(photo.shape[:2])]  # see Sam.everything
    embedded = sam.embed(photo)
    h, w = embedded.size
    points = torch.rand(32, 1, 2) * torch.tensor([w, h])
    ours.LEAST_IOU = float(sam.logits(embedded, points, torch.ones(32, 1, dtype=torch.long), None, True)[1].median())
    ours.LEAST_STABILITY = 0.5
    name = "SamImageProcessor" if args.kind == "sam" else "Sam2ImageProcessor"
    pipeline = library.MaskGenerationPipeline(model=model, image_processor=getattr(library, name)())
    limits = {"pred_iou_thresh": ours.LEAST_IOU, "stability_score_thresh": ours.LEAST_STABILITY}
    own, theirs, peaks = [], [], []
    for _ in range(args.rounds):
        seconds, masks = timed(lambda: sam.everything(photo, args.points))
        own.append(seconds)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        seconds, found = timed(lambda: pipeline(Image.fromarray(photo), points_per_crop=args.points, **limits))
        theirs.append(seconds)
    expected = [np.asarray(mask) for mask in found["masks"]]
    same = len(masks) == len(expected) and float((masks == np.stack(expected)).mean())
    print(f"{args.kind}, {h} x {w}, {args.points**2} points: ours {median(own):.1f} s, theirs {median(theirs):.1f} s")
    print(f"ratio {median(one / other for one, other in zip(own, theirs, strict=True)):.2f} (median of {args.rounds})")
    print(f"{len(masks)} and {len(expected)} masks, equal pixels {same}; {peaks[0]:.2f} GB at most with ours")


if __name__ == "__main__":
    main()
