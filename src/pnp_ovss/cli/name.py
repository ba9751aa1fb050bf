"""``pnp-ovss name``: which classes are in photos."""

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pnp_ovss._version import VERSION
from pnp_ovss.cli import complain, conclude, go_through, report, say
from pnp_ovss.cli.flags import File, ModelFlags, Name, NamerFlags, Photos
from pnp_ovss.errors import ConfigError, InputError, PnpError
from pnp_ovss.files import as_json, remove, write_bytes
from pnp_ovss.images import Place, find_images, read_image
from pnp_ovss.lock import hold
from pnp_ovss.models import load_vlm
from pnp_ovss.naming import Namer, Naming, load_namer, name_photos
from pnp_ovss.naming.openai import OpenAI, estimate
from pnp_ovss.redaction import bare
from pnp_ovss.types import RGB, Vocabulary

EXAMPLE = "name demo/scene-000.png --model mini-blip  (after pnp-ovss demo)"
NEGLIGIBLE = 0.01
"""Confidences up to this are left out of the file."""
SAVE_EVERY = 10
"""Photos after which the names so far are written, so that a killed run loses few."""


def command(
    photos: Photos,
    namer: NamerFlags,
    out: File | None = None,
    dry_run: bool = False,
    model: Name | None = None,
    revision: Name | None = None,
    device: Name = "auto",
    dtype: Name = "auto",
) -> int:
    """Say which classes are in photos, with a confidence for each.

    Namers: itm, the model that segments matches every name of the vocabulary with the photo; clip, a dual encoder
    does; caption, a captioner describes the photo and its nouns count; openai, a chat model is asked (the key comes
    from OPENAI_API_KEY; photos leave this machine; every reply is kept and paid for once); cached, names that are
    there already; given, your own list.

    Args:
        photos: file, folder (the pictures right in it), glob or web address
        out: write names and confidences to this .json file too
        dry_run: openai: only say how many calls, and about what they cost
        model: itm: the model that matches (default: the one that segments)
        revision: commit, branch or tag of its hub repository
        device: auto, cpu, cuda, cuda:1, mps, ...
        dtype: auto, float32, bfloat16, float16, or int8 for the image tower on a CPU
    """
    keys = photos_by_name(find_images(photos))
    if out is not None and os.path.isdir(out):
        raise InputError(f"{out} is a folder; name the .json file that is to be written")
    flags = ModelFlags(model=model, revision=revision, device=device, dtype=dtype)
    namer.check(flags)
    options = namer.options(flags, lambda: load_vlm(flags.checkpoint, device, dtype, revision))
    with hold(out, beside=True) if out and not dry_run else nullcontext():
        loaded = load_namer(namer.namer, options)
        return _print_cost(loaded, keys, namer.candidates()) if dry_run else _name(loaded, keys, namer, out)


def photos_by_name(photos: Sequence[Place]) -> dict[str, Place]:
    """Return photos by their name without suffix. Raises: InputError if two have the same."""
    keys: dict[str, Place] = {}
    for path in photos:
        if keys.setdefault(path.stem, path) is not path:
            raise InputError(f"{keys[path.stem]} and {path} have one name; name them one after the other")
    return keys


def readable(keys: dict[str, Place]) -> Iterator[tuple[str, RGB]]:
    """Yield key and pixels of the photos that can be read; say which cannot."""
    for key, path in keys.items():
        try:
            yield key, read_image(path)
        except InputError as error:
            complain(str(error))


def _name(namer: Namer, keys: dict[str, Place], flags: NamerFlags, out: Path | None) -> int:
    candidates, found = flags.candidates(), dict[str, Naming]()
    # A file that is there stays until all photos are named, for it may hold more.
    so_far = out.with_suffix(".partial.json") if out and os.path.exists(out) else out
    about = {"namer": namer.source, "vocabulary": candidates.name if candidates else None, "keep": flags.keep}

    def save(place: Path | None) -> None:
        if place is not None and found:
            photos = {key: _entry(keys[key], naming, flags.keep) for key, naming in found.items()}
            write_bytes(place, as_json(about | {"version": VERSION, "photos": photos}, indent=1))

    def faults() -> Iterator[str]:
        try:
            for key, naming in name_photos(namer, readable(keys), candidates, flags.at_once):
                if isinstance(naming, Naming):
                    found[key] = naming
                    _print(keys[key], naming, flags.keep)
                    if len(found) % SAVE_EVERY == 0:
                        save(so_far)
                yield "" if key in found else f"{keys[key]}: {naming}"
        except (KeyboardInterrupt, GeneratorExit, PnpError):
            save(so_far)
            if so_far and found:
                complain(f"the names so far are in {so_far}")
            raise

    done, _ = go_through(faults(), len(keys), "")
    save(out)
    if so_far is not None and so_far != out:
        remove(so_far)
    return conclude(len(keys) - done, len(keys), "got no names")


def _print(photo: Place, naming: Naming, keep: float) -> None:
    for note in naming.notes:
        complain(f"{photo}: {note}")
    confidence = {named.name: named.confidence for named in naming.classes}
    kept = ", ".join(f"{name} {100 * confidence[name]:.0f} %" for name in naming.kept(keep))
    report(f"{photo}: {kept or f'nothing above {100 * keep:.0f} %'}", **_entry(photo, naming, keep))


def _entry(photo: Place, naming: Naming, keep: float) -> dict[str, Any]:
    names = {one.name: round(one.confidence, 6) for one in naming.classes if one.confidence > NEGLIGIBLE}
    return {"photo": bare(str(photo)), "kept": list(naming.kept(keep)), "names": names, "notes": list(naming.notes)}


def _print_cost(namer: Namer, keys: dict[str, Place], candidates: Vocabulary | None) -> int:
    if not isinstance(namer, OpenAI):
        raise ConfigError("--dry-run is for --namer openai; the other namers make no calls")
    read = [(namer.is_cached(image, candidates), image.shape) for _, image in readable(keys)]
    sizes = [(width, height) for cached, (height, width, _) in read if not cached]
    tokens_in, tokens_out, dollars = estimate(sizes, candidates, namer.model)
    price = f"; no price of {namer.model} is known" if dollars is None else f", about ${dollars:.2f}"
    calls = f"calls to {namer.model} to be made: {len(sizes)}"
    tokens = f"about {tokens_in:,} tokens in and {tokens_out:,} out"
    say(f"{len(read) - len(sizes)} of {len(keys)} replies are there; {calls}, {tokens}{price}")
    return conclude(len(keys) - len(read), len(keys), "could not be read")
