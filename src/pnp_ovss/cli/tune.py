"""``pnp-ovss tune``: settings for a model and photos, chosen by CLIP's reward, without a mask."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnp_ovss.cli.command import PROG, STOPPED, Command, complain, natural, positive
from pnp_ovss.cli.legacy_naming import check_vocabulary, load_vocabulary, reply_cache, share
from pnp_ovss.cli.options import add_model, add_settings, clip_name, settings
from pnp_ovss.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pnp_ovss.models import VLM
    from pnp_ovss.naming.base import Namer
    from pnp_ovss.tuning.objective import Example, Objective
    from pnp_ovss.tuning.search import Finished, Search
    from pnp_ovss.types import Vocabulary

NAMERS = ("itm", "clip", "caption", "openai")
TUNED = ("layer", "head", "threshold", "blur")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``tune``."""
    parser.add_argument(
        "--images", nargs="+", required=True, metavar="DIR", help="the photos to tune on: folders, files or globs"
    )
    parser.add_argument("--out", type=Path, default=Path("tuning"), metavar="DIR", help="folder (default: tuning)")
    group = parser.add_argument_group("the classes of each photo")
    group.add_argument(
        "--names",
        required=True,
        metavar=f"FILE|{'|'.join(NAMERS)}",
        help="a .json file with names per photo, such as 'name --out' writes, a text file with one name a line for all "
        "photos, or who is to name them",
    )
    group.add_argument(
        "--vocabulary",
        metavar="NAME|FILE",
        help="what to choose from, as in 'name'; the reward compares with all of it",
    )
    group.add_argument(
        "--keep", type=share, default=0.7, metavar="X", help="names above this confidence (default: 0.7)"
    )
    group.add_argument("--namer-model", metavar="NAME", help="openai: a chat model; clip, caption: a checkpoint")
    group = parser.add_argument_group("reward")
    group.add_argument("--clip", metavar="NAME", help="dual encoder (default: clip-base, mini-clip for mini models)")
    group.add_argument(
        "--reward",
        default="black",
        choices=("black", "rest", "graded"),
        help="black: the paper's; rest: kept against removed; graded: the paper's, with degrees (default: black)",
    )
    group = parser.add_argument_group("search")
    group.add_argument("--trials", type=positive, default=34, metavar="N", help="candidates (default: 34)")
    group.add_argument(
        "--sampler", default="random", choices=("random", "tpe", "grid"), help="who chooses them (default: random)"
    )
    group.add_argument("--seed", type=natural, default=0, metavar="N", help="of the sampler (default: 0)")
    group.add_argument("--no-prune", action="store_true", help="look at all photos even with poor candidates")
    group.add_argument(
        "--storage", metavar="URL", help="of the study, for many workers (default: a SQLite file in --out)"
    )
    group.add_argument("--cache", type=Path, metavar="DIR", help="of the class maps (default: a folder in --out)")
    for name, example in (("layers", "0,1"), ("heads", "0,1"), ("thresholds", "0.05,0.15"), ("blurs", "0.03,0.05")):
        group.add_argument(
            f"--{name}",
            type=_numbers(int if name in ("layers", "heads") else float),
            metavar="X,...",
            help=f"choose among these alone, such as {example}",
        )
    add_model(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tune; return the exit code."""
    from pnp_ovss.images import find_images, shown
    from pnp_ovss.segmenter import settle
    from pnp_ovss.store import check_folder, write_text
    from pnp_ovss.tuning.search import open_search, shown_storage, sqlite
    from pnp_ovss.tuning.space import Space

    # All that can be wrong without a model is found before one is loaded or even fetched.
    photos = find_images(arguments.images)
    for photo in photos:
        if not photo.is_file():
            raise InputError(f"there is no photo {shown(photo)}; check the path given with --images")
    check_folder(arguments.out)
    settle(arguments.model, arguments.preset, arguments.revision, **settings(arguments))
    for name, values in _choices(arguments).items():
        for value in values:
            settle(
                arguments.model,
                arguments.preset,
                arguments.revision,
                **(settings(arguments) | {name.removesuffix("s"): value}),
            )
    url = arguments.storage or sqlite(arguments.out / "study.db")
    shown_storage(url)
    check_vocabulary(arguments.names, arguments.model, arguments.vocabulary)
    objective, told = _objective(arguments, photos, load_vocabulary(arguments))
    space = Space.of(objective.maps.vlm, **_choices(arguments))
    arguments.out.mkdir(parents=True, exist_ok=True)
    import optuna  # after what tells in one line that it is missing

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # the progress bar tells
    search = open_search(url, told, space, arguments.sampler, arguments.seed)
    if not _work(arguments, search, objective):
        return STOPPED
    best = search.best()
    if best is None:
        raise InputError("no candidate was looked at on all photos; run it again, or with --no-prune")
    preset = arguments.out / "preset.json"
    write_text(preset, best.candidate.settings(objective.config).to_json() + "\n")
    _report(arguments, search, objective, best)
    _tell(best, objective, preset)
    return 0


def _choices(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the values to choose from that the flags name; a setting that is given by itself is not tuned."""
    fixed = {f"{name}s": [value] for name, value in settings(arguments).items() if name in TUNED}
    listed = {name: vars(arguments)[name] for name in ("layers", "heads", "thresholds", "blurs")}
    return fixed | {name: values for name, values in listed.items() if values is not None}


def _objective(
    arguments: argparse.Namespace, photos: list[Path], vocabulary: "Vocabulary | None"
) -> "tuple[Objective, dict[str, Any]]":
    """Load the models and name the photos; return what scores candidates, and what it is made of."""
    import hashlib
    import json
    from dataclasses import asdict

    from pnp_ovss.models.clip import load_clip
    from pnp_ovss.segmenter import Segmenter
    from pnp_ovss.tuning.judge import Judge
    from pnp_ovss.tuning.maps import MapCache
    from pnp_ovss.tuning.objective import Objective

    chosen = (arguments.model, arguments.preset, arguments.device, arguments.dtype, arguments.revision)
    segmenter = Segmenter.from_pretrained(*chosen, **(settings(arguments) | {"layer": 0, "head": 0}))
    vlm, config = segmenter.vlm, segmenter.config
    clip = load_clip(clip_name(arguments.clip, arguments.model), arguments.device, arguments.dtype)
    examples = _examples(arguments, photos, vocabulary, vlm)
    names = [name for example in examples for name in example.classes]
    judge = Judge(clip, [*names, *(vocabulary.classes if vocabulary else ())], arguments.reward)
    maps = MapCache(vlm, config, arguments.cache or arguments.out / "maps")
    listed = [(example.key, example.classes) for example in examples]
    told = {
        "model": f"{vlm.name} {vlm.revision}",
        "CLIP": f"{clip.name} {clip.revision}",
        "reward": arguments.reward,
        "names": hashlib.sha256(json.dumps([listed, judge.names]).encode()).hexdigest(),
        "settings": {name: value for name, value in asdict(config).items() if name not in TUNED},
    }
    return Objective(maps, judge, examples, config), json.loads(json.dumps(told))


def _examples(
    arguments: argparse.Namespace, photos: list[Path], vocabulary: "Vocabulary | None", vlm: "VLM"
) -> "list[Example]":
    from functools import partial

    from tqdm import tqdm

    from pnp_ovss.images import read_image, shown
    from pnp_ovss.naming import name_photos
    from pnp_ovss.naming.base import Naming
    from pnp_ovss.tuning.objective import Example

    namer = _namer(arguments, vlm)
    paths: dict[str, Path] = {}
    for path in photos:
        if path.stem in paths:
            raise InputError(f"{shown(paths[path.stem])} and {shown(path)} have one name; rename one")
        paths[path.stem] = path

    def readable() -> Iterator[tuple[str, Any]]:
        for key, path in paths.items():
            try:
                yield key, read_image(path)
            except InputError as error:
                complain(str(error))

    examples = []
    named = name_photos(namer, readable(), vocabulary, 4 if arguments.names == "openai" else 1)
    for key, naming in tqdm(named, total=len(paths), unit="photo", desc="naming", file=sys.stderr):
        if not isinstance(naming, Naming):
            complain(str(naming))
        elif classes := naming.kept(arguments.keep):
            examples.append(Example(key, partial(read_image, paths[key]), classes))
    if not examples:
        raise InputError(
            f"none of {len(photos)} photos has a class to tune on; give other --names, a --vocabulary or a lower --keep"
        )
    if len(examples) < len(photos):
        complain(f"{len(photos) - len(examples)} of {len(photos)} photos have no class and are left out")
    return examples


def _namer(arguments: argparse.Namespace, vlm: "VLM") -> "Namer":
    """Return who gives the names that ``--names`` stands for."""
    from dataclasses import replace

    from pnp_ovss.data.vocabulary import read_lines
    from pnp_ovss.naming import Options
    from pnp_ovss.naming import load_namer as load

    options = Options(
        vlm=lambda: vlm,
        model=arguments.namer_model,
        base_url=os.environ.get("OPENAI_BASE_URL"),
        cache=reply_cache(),
        device=arguments.device,
        dtype=arguments.dtype,
    )
    place = Path(arguments.names)
    if arguments.names in NAMERS:
        return load(arguments.names, options)
    if place.suffix == ".json" or place.is_dir():
        return load("cached", replace(options, source=place))
    if place.is_file():
        return load("given", replace(options, names=tuple(read_lines(place))))
    raise ConfigError(f"--names {arguments.names} is neither a file nor one of {', '.join(NAMERS)}")


def _work(arguments: argparse.Namespace, search: "Search", objective: "Objective") -> bool:
    """Look at the photos and work on the study under progress bars; return False after Ctrl-C."""
    from tqdm import tqdm

    photos, trials = len(objective.examples), min(arguments.trials, len(search.space.candidates()))
    try:
        for _ in tqdm(objective.look(), total=photos, unit="photo", desc="looking", file=sys.stderr):
            pass
        with tqdm(total=trials, unit="trial", desc="tuning", file=sys.stderr) as bar:
            bar.update(len(search.finished()))
            for _ in search.run(objective, arguments.trials, prune=not arguments.no_prune):
                best = search.best()
                bar.set_postfix_str(_short(best) if best else "", refresh=False)
                bar.update(min(trials, len(search.finished())) - bar.n)
    except KeyboardInterrupt:
        complain(
            f"stopped; {len(search.finished())} of {trials} trials are done, and the same command goes on from there"
        )
        return False
    return True


def _report(arguments: argparse.Namespace, search: "Search", objective: "Objective", best: "Finished") -> None:
    from pnp_ovss.store import write_text
    from pnp_ovss.tuning.page import examples_of, page

    shown = examples_of(objective, best.candidate)
    write_text(arguments.out / "report.html", page(search, objective, best, shown, arguments.reward))


def _tell(best: "Finished", objective: "Objective", preset: Path) -> None:
    maps, photos = objective.maps, len(objective.examples)
    print(f"best: {_short(best)}")
    print(f"{maps.vlm.name} looked {maps.looks} times at {photos} photos; every trial used what it saw then")
    print(f"preset: {preset}, for --preset; report: {preset.with_name('report.html')}")


def _short(best: "Finished") -> str:
    chosen = ", ".join(f"{name} {value}" for name, value in vars(best.candidate).items())
    return f"reward {best.reward:.3f} with {chosen}"


def _numbers(kind: type[int] | type[float]) -> Any:
    def read(text: str) -> list[int | float]:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers with commas") from None

    return read


COMMAND = Command(
    usage="--images DIR --names FILE|itm|openai [options]",
    summary="choose settings for a model and photos, without a mask",
    description="""Choose layer, head, threshold and blur for a model on photos of your own, without a mask: a dual
encoder (CLIP) says how well each mask shows its class, and a search looks for the settings that it likes best.

Written are preset.json, which --preset takes in every command, and report.html. The model looks once at each photo;
what it saw is kept in the folder of the results, and so is the study: a run that was stopped goes on where it stopped.
With --storage, many processes work on one study.""",
    example=f"{PROG} tune --images demo/scene-00?.png --names itm --model mini-blip --trials 4  (after {PROG} demo)",
    add_arguments=add_arguments,
    run=run,
)
