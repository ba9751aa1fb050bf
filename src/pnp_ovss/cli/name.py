"""``pnp-ovss name``: which classes are in photos. Its flags serve every command that can name classes itself."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from pnp_ovss._version import VERSION
from pnp_ovss.cli.command import PARTLY, STOPPED, complain
from pnp_ovss.cli.flags import ModelFlags, count, expand
from pnp_ovss.data.vocabulary import BENCHMARKS, load_vocabulary, parse_classes
from pnp_ovss.errors import ConfigError, InputError, PnpError
from pnp_ovss.files import check_folder, remove, write_text
from pnp_ovss.images import find_images, read_image
from pnp_ovss.naming import NAMERS, Options, load_namer, name_photos
from pnp_ovss.naming.base import Namer, Naming
from pnp_ovss.naming.openai import OpenAI
from pnp_ovss.naming.question import estimate
from pnp_ovss.types import RGB, Vocabulary

EXAMPLE = "name demo/scene-000.png --model mini-blip  (after pnp-ovss demo)"
NEGLIGIBLE = 0.01
"""Confidences up to this are left out of the file."""
SAVE_EVERY = 10
"""Photos after which the names so far are written, so that a killed run loses few."""


def _flag(help: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(help=help, metavar=metavar, **more)


@dataclass(frozen=True)
class NamerFlags:
    """What names the classes, and what it needs."""

    namer: Annotated[str, _flag(f"{', '.join(NAMERS)}; docs/naming.md compares them", "NAME")] = "itm"
    vocabulary: Annotated[
        str | None,
        _flag(
            f"what to choose from: {', '.join(BENCHMARKS)}, or a file with one class a line; without it anything, "
            "where the namer can do that",
            "NAME|FILE",
        ),
    ] = None
    keep: Annotated[float, _flag("names above this confidence count", "X", min=0, max=1)] = 0.7
    namer_model: Annotated[str | None, _flag("openai: a chat model; clip, caption: a checkpoint", "NAME")] = None
    names: Annotated[str | None, _flag("given: the names, with commas", "NAMES")] = None
    names_from: Annotated[Path | None, _flag("cached: names, replies, or a cache's folder", "FILE|DIR")] = None
    base_url: Annotated[str | None, _flag("openai: another server", "URL", envvar="OPENAI_BASE_URL")] = None
    cache: Annotated[Path | None, _flag("openai: where replies are kept (default: in the user's cache)", "DIR")] = None
    calls: Annotated[int, count("openai: photos asked about at a time")] = 4
    timeout: Annotated[float, count("openai: seconds until a call has failed")] = 60.0
    tries: Annotated[int, count("openai: tries of a call")] = 6

    @property
    def at_once(self) -> int:
        """Photos that are named at a time."""
        return self.calls if self.namer == "openai" else 1

    def candidates(self) -> Vocabulary | None:
        """Return the vocabulary to choose from, if any. Raises: InputError."""
        return load_vocabulary(self.vocabulary) if self.vocabulary else None

    def options(self, model: ModelFlags, vlm: Callable[[], Any] | None = None) -> Options:
        """Return the settings of the namer; ``vlm`` gives the model of one that matches with it."""
        return Options(
            names=parse_classes(self.names).classes if self.names else (),
            source=self.names_from,
            vlm=vlm,
            model=self.namer_model,
            base_url=self.base_url,
            cache=self.cache or reply_cache(),
            timeout=self.timeout,
            retries=self.tries - 1,
            device=model.device,
            dtype=model.dtype,
        )

    def check(self, model: ModelFlags) -> None:
        """Raise what would stop the namer, as far as that shows before its model is loaded or even fetched."""
        if self.namer not in NAMERS or self.namer in ("given", "cached"):
            load_namer(self.namer, self.options(model))
        knows_names = model.checkpoint.startswith("mini-") or Path(model.checkpoint).is_dir()
        if self.candidates() is None and self.namer == "itm" and not knows_names:
            raise InputError(
                f"itm by {model.checkpoint} needs a vocabulary to choose from; give --vocabulary coco-object, another "
                "one, or a file"
            )


NAMER = NamerFlags()


@expand
def command(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="file, folder (the pictures right in it) or glob")
    ],
    out: Annotated[Path | None, _flag("write names and confidences to this .json file too", "FILE")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="openai: only say how many calls, and about what they cost")
    ] = False,
    namer: NamerFlags = NAMER,
    model: Annotated[str | None, _flag("itm: the model that matches (default: the one that segments)", "NAME")] = None,
    revision: Annotated[str | None, _flag("commit, branch or tag of its hub repository")] = None,
    device: Annotated[str, _flag("auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, _flag("auto, float32, bfloat16 or float16")] = "auto",
) -> int:
    """Say which classes are in photos, with a confidence for each.

    Namers: itm, the model that segments matches every name of the vocabulary with the photo; clip, a dual encoder
    does; caption, a captioner describes the photo and its nouns count; openai, a chat model is asked (the key comes
    from OPENAI_API_KEY; photos leave this machine; every reply is kept and paid for once); cached, names that are
    there already; given, your own list.
    """
    keys = photos_by_name(find_images(photos))
    if out is not None:
        if out.is_dir():
            raise InputError(f"{out} is a folder; name the .json file that is to be written")
        check_folder(out.parent)
    flags = ModelFlags(model=model, revision=revision, device=device, dtype=dtype)
    namer.check(flags)

    def vlm() -> Any:
        from pnp_ovss.models import load_vlm

        return load_vlm(flags.checkpoint, device, dtype, revision)

    loaded = load_namer(namer.namer, namer.options(flags, vlm))
    return _print_cost(loaded, keys, namer.candidates()) if dry_run else _name(loaded, keys, namer, out)


def photos_by_name(photos: Sequence[Path]) -> dict[str, Path]:
    """Return photos by their name without suffix. Raises: InputError if two have the same."""
    keys: dict[str, Path] = {}
    for path in photos:
        if path.stem in keys:
            raise InputError(f"{keys[path.stem]} and {path} have one name; name them one after the other")
        keys[path.stem] = path
    return keys


def reply_cache() -> Path:
    """Return the folder in which replies of chat models are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pnp-ovss" / "replies"


def _name(namer: Namer, keys: dict[str, Path], flags: NamerFlags, out: Path | None) -> int:
    candidates = flags.candidates()
    found: dict[str, Naming] = {}
    faults: list[str] = []
    # A file that is there stays until all photos are named, for it may hold more.
    so_far = out.with_suffix(".partial.json") if out and out.exists() else out

    def save(place: Path | None) -> None:
        if place is not None and found:
            write_text(place, _record(namer.source, candidates, flags.keep, keys, found))

    try:
        named = name_photos(namer, _readable(keys, faults), candidates, flags.at_once)
        for key, naming in tqdm(named, total=len(keys), disable=len(keys) == 1, unit="photo", file=sys.stderr):
            if isinstance(naming, PnpError):
                _report(naming, f"{keys[key]}: {naming}", keys, faults)
                continue
            found[key] = naming
            _print(keys[key], naming, flags.keep)
            if len(found) % SAVE_EVERY == 0:
                save(so_far)
    except (KeyboardInterrupt, PnpError) as stop:
        save(so_far)
        if so_far and found:
            complain(f"the names so far are in {so_far}")
        if isinstance(stop, PnpError):
            raise
        complain(f"stopped; {len(found)} of {len(keys)} photos are named")
        return STOPPED
    save(out)
    if so_far is not None and so_far != out:
        remove(so_far)
    if faults:
        complain(f"{len(faults)} of {len(keys)} photos got no names")
    return PARTLY if faults else 0


def _print(photo: Path, naming: Naming, keep: float) -> None:
    confidence = {named.name: named.confidence for named in naming.classes}
    kept = ", ".join(f"{name} {100 * confidence[name]:.0f} %" for name in naming.kept(keep))
    with tqdm.external_write_mode(sys.stdout):
        for note in naming.notes:
            complain(f"{photo}: {note}")
        print(f"{photo}: {kept or f'nothing above {100 * keep:.0f} %'}", flush=True)


def _print_cost(namer: Namer, keys: dict[str, Path], candidates: Vocabulary | None) -> int:
    if not isinstance(namer, OpenAI):
        raise ConfigError("--dry-run is for --namer openai; the other namers make no calls")
    faults: list[str] = []
    photos = _readable(keys, faults)
    sizes = [(image.shape[1], image.shape[0]) for _, image in photos if not namer.is_cached(image, candidates)]
    tokens_in, tokens_out, dollars = estimate(sizes, candidates, namer.model)
    price = f", about ${dollars:.2f}" if dollars is not None else f"; no price of {namer.model} is known"
    print(
        f"{len(keys) - len(sizes) - len(faults)} of {len(keys)} replies are there; calls to {namer.model} to be made: "
        f"{len(sizes)}, about {tokens_in:,} tokens in and {tokens_out:,} out{price}"
    )
    return PARTLY if faults else 0


def _readable(keys: dict[str, Path], faults: list[str]) -> Iterator[tuple[str, RGB]]:
    for key, path in keys.items():
        try:
            image = read_image(path)
        except InputError as error:
            _report(error, str(error), keys, faults)
            continue
        yield key, image


def _report(fault: PnpError, line: str, keys: dict[str, Path], faults: list[str]) -> None:
    """Print why a photo got no names; raise it where there is no other photo."""
    if len(keys) == 1:
        raise fault
    faults.append(line)
    with tqdm.external_write_mode(sys.stderr):
        complain(line)


def _record(
    source: str, candidates: Vocabulary | None, keep: float, keys: dict[str, Path], found: dict[str, Naming]
) -> str:
    photos = {}
    for key, naming in found.items():
        sure = {one.name: round(one.confidence, 6) for one in naming.classes if one.confidence > NEGLIGIBLE}
        kept = list(naming.kept(keep))
        photos[key] = {"photo": str(keys[key]), "kept": kept, "names": sure, "notes": list(naming.notes)}
    vocabulary = candidates.name if candidates else None
    record = {"namer": source, "vocabulary": vocabulary, "keep": keep, "version": VERSION, "photos": photos}
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"
