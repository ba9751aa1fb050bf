"""``pnp-ovss name``: which classes are in the photos. Its flags serve every command that can name classes itself."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnp_ovss.cli.command import PARTLY, PROG, STOPPED, Command, complain, positive
from pnp_ovss.config import DEFAULT_MODEL
from pnp_ovss.errors import ConfigError, InputError, PnpError

if TYPE_CHECKING:
    from pnp_ovss.models import VLM
    from pnp_ovss.naming import Options
    from pnp_ovss.naming.base import Namer, Naming
    from pnp_ovss.naming.openai import OpenAI
    from pnp_ovss.types import RGB, Vocabulary

NEGLIGIBLE = 0.01


def add_namer(parser: argparse.ArgumentParser, namer: str) -> None:
    """Add the flags that choose who names the classes, ``namer`` by default."""
    group = parser.add_argument_group("naming")
    group.add_argument(
        "--namer",
        default=namer,
        metavar="NAME",
        help=f"itm, clip, caption, openai, cached or given; docs/naming.md compares them (default: {namer})",
    )
    group.add_argument(
        "--vocabulary",
        metavar="NAME|FILE",
        help="what to choose from: voc, context, coco-object, coco-stuff, coco-panoptic, ade20k, scenes, or a file "
        "with one name a line; without it anything, where the namer can do that",
    )
    group.add_argument(
        "--keep", type=share, default=0.7, metavar="X", help="names above this confidence count (default: 0.7)"
    )
    group.add_argument("--namer-model", metavar="NAME", help="openai: a chat model; clip, caption: a checkpoint")
    group.add_argument("--names", metavar="NAMES", help="given: the names, with commas")
    group.add_argument(
        "--names-from", type=Path, metavar="FILE|DIR", help="cached: names, replies, or a cache's folder"
    )
    group.add_argument(
        "--base-url", metavar="URL", help="openai: another server (default: OpenAI's, or OPENAI_BASE_URL)"
    )
    group.add_argument(
        "--cache", type=Path, metavar="DIR", help="openai: where replies are kept (default: in the user's cache)"
    )
    group.add_argument(
        "--calls", type=positive, default=4, metavar="N", help="openai: photos asked about at a time (default: 4)"
    )
    group.add_argument(
        "--timeout",
        type=positive,
        default=60,
        metavar="S",
        help="openai: seconds until a call has failed (default: 60)",
    )
    group.add_argument("--tries", type=positive, default=6, metavar="N", help="openai: tries of a call (default: 6)")


def load_namer(arguments: argparse.Namespace, vlm: "Callable[[], VLM]") -> "Namer":
    """Return the namer that the flags ask for; ``vlm`` gives the model of one that matches with it."""
    from pnp_ovss.naming import load_namer as load

    return load(arguments.namer, namer_options(arguments, vlm))


def namer_options(arguments: argparse.Namespace, vlm: "Callable[[], VLM] | None" = None) -> "Options":
    """Return what the flags tell a namer."""
    from pnp_ovss.naming import Options

    return Options(
        names=tuple((arguments.names or "").split(",")) if arguments.names else (),
        source=arguments.names_from,
        vlm=vlm,
        model=arguments.namer_model,
        base_url=arguments.base_url or os.environ.get("OPENAI_BASE_URL"),
        cache=arguments.cache or reply_cache(),
        timeout=float(arguments.timeout),
        retries=arguments.tries - 1,
        device=arguments.device,
        dtype=arguments.dtype,
    )


def check_namer(arguments: argparse.Namespace) -> None:
    """Raise what would stop the namer, as far as that can be told before its model is loaded or even fetched."""
    from pnp_ovss.naming import NAMERS
    from pnp_ovss.naming import load_namer as load

    if arguments.namer not in NAMERS or arguments.namer in ("given", "cached"):
        load(arguments.namer, namer_options(arguments))
    load_vocabulary(arguments)
    check_vocabulary(arguments.namer, arguments.model, arguments.vocabulary)


def check_vocabulary(namer: str, model: str, vocabulary: str | None) -> None:
    """Raise InputError if the model would match names and has none to choose from."""
    if namer == "itm" and vocabulary is None and not (model.startswith("mini-") or Path(model).is_dir()):
        raise InputError(
            f"itm by {model} needs a vocabulary to choose from; give --vocabulary coco-object, another one, or a file"
        )


def load_vocabulary(arguments: argparse.Namespace) -> "Vocabulary | None":
    """Return the vocabulary that the flags name, if any."""
    from pnp_ovss.data.vocabulary import load_vocabulary as load

    return load(arguments.vocabulary) if arguments.vocabulary else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``name``."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="file, folder (the pictures right in it) or glob")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write names and confidences to this .json file too")
    parser.add_argument(
        "--dry-run", action="store_true", help="openai: only say how many calls, and about what they cost"
    )
    add_namer(parser, "itm")
    group = parser.add_argument_group("model")
    group.add_argument("--model", default=DEFAULT_MODEL, help=f"itm: the model that matches (default: {DEFAULT_MODEL})")
    group.add_argument("--revision", help="commit, branch or tag of its hub repository")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)")


def run(arguments: argparse.Namespace) -> int:
    """Name the classes of the photos; return the exit code."""
    from pnp_ovss.images import find_images
    from pnp_ovss.store import check_folder

    photos = find_images(arguments.photos)
    keys = _keys(photos)
    candidates = load_vocabulary(arguments)
    if arguments.out is not None:
        if arguments.out.is_dir():
            raise InputError(f"{arguments.out} is a folder; name the .json file that is to be written")
        check_folder(arguments.out.parent)
    check_namer(arguments)

    def vlm() -> "VLM":
        from pnp_ovss.models import load_vlm

        return load_vlm(arguments.model, arguments.device, arguments.dtype, arguments.revision)

    namer = load_namer(arguments, vlm)
    if arguments.dry_run:
        return _tell_cost(namer, keys, candidates)
    return _name(arguments, namer, keys, candidates)


def _name(arguments: argparse.Namespace, namer: "Namer", keys: dict[str, Path], candidates: "Vocabulary | None") -> int:
    from tqdm import tqdm

    from pnp_ovss.images import shown
    from pnp_ovss.naming import name_photos
    from pnp_ovss.naming.base import Naming
    from pnp_ovss.store import write_text

    found: dict[str, Naming] = {}
    bad: list[str] = []
    bar = tqdm(total=len(keys), disable=len(keys) == 1, unit="photo", file=sys.stderr)

    def say(line: str, stream: Any) -> None:
        with bar.external_write_mode(file=stream):
            complain(line) if stream is sys.stderr else print(line, flush=True)

    def unreadable(key: str, error: InputError) -> None:
        bad.append(key)
        say(str(error), sys.stderr)
        bar.update()

    calls = arguments.calls if arguments.namer == "openai" else 1
    try:
        for key, naming in name_photos(namer, _readable(keys, unreadable), candidates, calls):
            if isinstance(naming, Naming):
                found[key] = naming
                for note in naming.notes:
                    say(f"{shown(keys[key])}: {note}", sys.stderr)
                say(f"{shown(keys[key])}: {told(naming, arguments.keep)}", sys.stdout)
            else:
                if len(keys) == 1:
                    raise naming
                bad.append(key)
                say(f"{shown(keys[key])}: {naming}", sys.stderr)
            bar.update()
    except (KeyboardInterrupt, PnpError) as stop:
        bar.close()
        if arguments.out is not None and found:
            _keep(arguments.out, _record(namer, candidates, arguments.keep, keys, found))
        if isinstance(stop, PnpError):
            raise
        complain(f"stopped; {len(found)} of {len(keys)} photos are named")
        return STOPPED
    finally:
        bar.close()
    if arguments.out is not None and found:
        write_text(arguments.out, _record(namer, candidates, arguments.keep, keys, found))
    if bad:
        complain(f"{len(bad)} of {len(keys)} photos got no names")
    return PARTLY if bad else 0


def told(naming: "Naming", keep: float) -> str:
    """Return the names that count, with their confidences."""
    kept = naming.kept(keep)
    sure = {named.name: named.confidence for named in naming.classes}
    return ", ".join(f"{name} {100 * sure[name]:.0f} %" for name in kept) or f"nothing above {100 * keep:.0f} %"


def _tell_cost(namer: "Namer", keys: dict[str, Path], candidates: "Vocabulary | None") -> int:
    from pnp_ovss.naming.openai import OpenAI
    from pnp_ovss.naming.question import estimate

    if not isinstance(namer, OpenAI):
        raise ConfigError("--dry-run is for --namer openai; the other namers make no calls")
    sizes, bad = _uncached(namer, keys, candidates)
    tokens_in, tokens_out, dollars = estimate(sizes, candidates, namer.model)
    price = f", about ${dollars:.2f}" if dollars is not None else f"; no price of {namer.model} is known"
    print(
        f"{len(keys) - len(sizes) - bad} of {len(keys)} replies are there; calls to {namer.model} to be made: "
        f"{len(sizes)}, about {tokens_in:,} tokens in and {tokens_out:,} out{price}"
    )
    return PARTLY if bad else 0


def _uncached(
    namer: "OpenAI", keys: dict[str, Path], candidates: "Vocabulary | None"
) -> tuple[list[tuple[int, int]], int]:
    """Return width and height of each photo that a call is needed for, and how many cannot be read."""
    bad: list[str] = []

    def unreadable(key: str, error: InputError) -> None:
        bad.append(key)
        complain(str(error))

    photos = _readable(keys, unreadable)
    sizes = [image.shape[1::-1] for _, image in photos if not namer.is_cached(image, candidates)]
    return [(int(width), int(height)) for width, height in sizes], len(bad)


def _readable(keys: dict[str, Path], unreadable: "Callable[[str, InputError], None]") -> "Iterator[tuple[str, RGB]]":
    from pnp_ovss.images import read_image

    for key, path in keys.items():
        try:
            image = read_image(path)
        except InputError as error:
            if len(keys) == 1:
                raise
            unreadable(key, error)
            continue
        yield key, image


def _keys(photos: Sequence[Path]) -> dict[str, Path]:
    """Return the photos by what they are called; two of one name could not be told apart later."""
    from pnp_ovss.images import shown

    keys: dict[str, Path] = {}
    for path in photos:
        if path.stem in keys:
            raise InputError(f"{shown(keys[path.stem])} and {shown(path)} have one name; name them one after the other")
        keys[path.stem] = path
    return keys


def _keep(out: Path, record: str) -> None:
    """Write what a run named that did not come to its end: beside a file that is there, for that may hold more."""
    from pnp_ovss.store import write_text

    place = out.with_suffix(".partial.json") if out.exists() else out
    try:
        write_text(place, record)
        complain(f"the names so far are in {place}")
    except InputError as error:  # what stopped the run is told as well
        complain(str(error))


def _record(
    namer: "Namer",
    candidates: "Vocabulary | None",
    keep: float,
    keys: dict[str, Path],
    found: "dict[str, Naming]",
) -> str:
    from pnp_ovss._version import VERSION

    photos = {}
    for key, naming in found.items():
        sure = {named.name: round(named.confidence, 6) for named in naming.classes if named.confidence > NEGLIGIBLE}
        kept = list(naming.kept(keep))
        photos[key] = {"photo": str(keys[key]), "kept": kept, "names": sure, "notes": list(naming.notes)}
    record = {
        "namer": namer.source,
        "vocabulary": candidates.name if candidates else None,
        "keep": keep,
        "version": VERSION,
        "photos": photos,
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def reply_cache() -> Path:
    """Return the folder in which replies of chat models are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pnp-ovss" / "replies"


def share(text: str) -> float:
    """Return the confidence from 0 to 1 that an argument gives."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no confidence from 0 to 1, such as 0.7")
    return value


COMMAND = Command(
    usage="PHOTO... [--namer NAME] [--vocabulary NAME|FILE] [options]",
    summary="say which classes the photos show",
    description="""Say which classes the photos show, with a confidence for each.

Namers: itm, the model that segments matches every name of the vocabulary with the photo; clip, a dual encoder does;
caption, a captioner describes the photo and its nouns count; openai, a chat model is asked (the key comes from
OPENAI_API_KEY; photos leave this machine; every reply is kept and paid for once); cached, names that are there already;
given, your own list.""",
    example=f"{PROG} name demo/scene-000.png --model mini-blip  (after {PROG} demo)",
    add_arguments=add_arguments,
    run=run,
)
