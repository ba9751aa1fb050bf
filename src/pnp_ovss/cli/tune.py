"""``pnp-ovss tune``: settings for a model and photos, chosen by CLIP's reward, without a mask."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from tqdm import tqdm

from pnp_ovss.cli.command import STOPPED, complain
from pnp_ovss.cli.flags import ModelFlags, clip_name, count, expand
from pnp_ovss.cli.name import NamerFlags, photos_by_name
from pnp_ovss.data.vocabulary import read_lines
from pnp_ovss.errors import ConfigError, InputError, PnpError
from pnp_ovss.files import check_folder, write_text
from pnp_ovss.images import find_images, read_image
from pnp_ovss.models.clip import load_clip
from pnp_ovss.naming import load_namer, name_photos
from pnp_ovss.naming.base import Naming
from pnp_ovss.tuning import search
from pnp_ovss.tuning.objective import Example, MapCache, Objective, search_space
from pnp_ovss.tuning.report import report
from pnp_ovss.tuning.reward import ClipReward
from pnp_ovss.types import RGB

EXAMPLE = "tune --images demo/scene-00?.png --names itm --model mini-blip --trials 4  (after pnp-ovss demo)"
NAMERS = ("itm", "clip", "caption", "openai")
TUNED = ("layer", "head", "threshold", "blur")


def _option(help: str, metavar: str = "NAME", kind: Any = None) -> Any:
    """Return an option; with a ``kind`` of number it takes several, with commas between them."""

    def read(text: str) -> list[int | float]:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError:
            raise typer.BadParameter(f"expected numbers with commas between them, got {text!r}") from None

    return typer.Option(metavar=metavar, help=help, parser=read if kind else None)


@dataclass(frozen=True)
class Flags:
    """What names the photos, rewards their masks and chooses candidates."""

    vocabulary: Annotated[
        str | None, _option("what to choose from, as in 'name'; the reward compares with all of it", "NAME|FILE")
    ] = None
    keep: Annotated[float, typer.Option(min=0, max=1, help="names above this confidence")] = 0.7
    namer_model: Annotated[str | None, _option("openai: a chat model; clip, caption: a checkpoint")] = None
    clip: Annotated[str | None, _option("dual encoder (default: clip-base, mini-clip for mini models)")] = None
    reward: Annotated[
        Literal["black", "rest", "graded"],
        typer.Option(help="black: the paper's; rest: kept against removed; graded: the paper's, with degrees"),
    ] = "black"
    trials: Annotated[int, count("candidates")] = 34
    sampler: Annotated[search.Sampler, typer.Option(help="random (grid is the same), or tpe, which learns")] = "random"
    seed: Annotated[int, count("of the sampler", 0)] = 0
    no_prune: Annotated[bool, typer.Option("--no-prune", help="evaluate poor candidates on all photos, too")] = False
    storage: Annotated[str | None, _option("of the study, for many workers (default: a file in --out)", "URL")] = None
    cache: Annotated[Path | None, _option("of the class maps (default: a folder in --out)", "DIR")] = None
    layers: Annotated[Any, _option("choose among these alone, such as 0,1", "N,...", int)] = None
    heads: Annotated[Any, _option("choose among these alone, such as 0,1", "N,...", int)] = None
    thresholds: Annotated[Any, _option("choose among these alone, such as 0.05,0.15", "X,...", float)] = None
    blurs: Annotated[Any, _option("choose among these alone, such as 0.03,0.05", "X,...", float)] = None

    def choices(self, settings: dict[str, Any]) -> dict[str, list[Any]]:
        """Return the values to choose from that are given; a setting that is given by itself is not tuned."""
        listed = {name: getattr(self, f"{name}s") for name in TUNED}
        fixed = {name: [settings[name]] for name in TUNED if name in settings}
        return fixed | {name: values for name, values in listed.items() if values is not None}


@expand
def command(
    *,
    images: Annotated[list[str], typer.Option(metavar="PHOTO...", help="folders, files or globs to tune on")],
    names: Annotated[
        str,
        typer.Option(
            metavar=f"FILE|{'|'.join(NAMERS)}",
            help="classes of the photos: a .json file of names per photo, as 'name --out' writes it, a text file with "
            "one name a line for all photos, or a namer",
        ),
    ],
    photos: Annotated[list[str] | None, typer.Argument(metavar="[PHOTO...]", help="more photos")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder")] = Path("tuning"),
    flags: Flags,
    model: ModelFlags,
) -> int:
    """Choose layer, head, threshold and blur for a model on photos of your own, without a mask.

    A dual encoder (CLIP) says how well each mask shows its class, and a search looks for the settings of the best
    masks. Written are preset.json, which --preset takes in every command, and report.html. The model runs once on
    each photo. Class maps and the study are kept in the folder: a run that was stopped goes on where it was. With
    --storage, many processes work on one study.
    """
    paths = photos_by_name(find_images([*images, *(photos or ())]))
    for path in paths.values():
        if not path.is_file():
            raise InputError(f"there is no photo {path}; check the path given with --images")
    check_folder(out)
    choices = flags.choices(model.settings)
    for name, values in choices.items():  # a wrong value should not cost a download
        for value in values:
            replace(model, settings=model.settings | {name: value}).config()
    url = search.storage_url(flags.storage, out)
    namer = _namer(names, flags)
    if namer.namer != "given":
        namer.check(model)
    objective = _objective(paths, namer, out, flags, model)
    space = search_space(objective.maps.vlm, **choices)
    out.mkdir(parents=True, exist_ok=True)
    study = search.open_study(url, _about(objective), space, flags.sampler, flags.seed)
    try:
        _search(study, objective, flags)
    except KeyboardInterrupt:
        complain(
            f"stopped; {len(search.finished_trials(study))} trials are done, and the same command goes on from there"
        )
        return STOPPED
    best = search.best_trial(study)
    if best is None:
        raise InputError("no candidate was evaluated on all photos; run it again, or with --no-prune")
    write_text(out / "preset.json", replace(objective.config, **best.params).to_json() + "\n")
    write_text(out / "report.html", report(study, objective))
    print(f"best: {_described(best)}")
    maps, examples = objective.maps, len(objective.examples)
    print(f"{maps.vlm.name} ran {maps.passes} times for {examples} photos; all trials used its class maps")
    print(f"preset: {out / 'preset.json'}, for --preset; report: {out / 'report.html'}")
    return 0


def _namer(names: str, flags: Flags) -> NamerFlags:
    """Return the namer that ``--names`` stands for."""
    path = Path(names)
    namer = NamerFlags(names, flags.vocabulary, flags.keep, flags.namer_model, base_url=os.getenv("OPENAI_BASE_URL"))
    if names in NAMERS:
        return namer
    if path.suffix == ".json" or path.is_dir():
        return replace(namer, namer="cached", names_from=path)
    if path.is_file():
        return replace(namer, namer="given", names_from=path)
    raise ConfigError(f"expected --names to be a file or one of {', '.join(NAMERS)}, got {names}")


def _objective(paths: dict[str, Path], namer: NamerFlags, out: Path, flags: Flags, model: ModelFlags) -> Objective:
    """Load the models and name the photos."""
    # Layer and head are chosen later; those of the preset may be more than this model has.
    method: Any = replace(model, settings=model.settings | {"layer": 0, "head": 0}).load().method
    clip = load_clip(clip_name(flags.clip, model.checkpoint), model.device, model.dtype)
    options = namer.options(model, lambda: method.vlm)
    if namer.namer == "given":
        options = replace(options, names=tuple(read_lines(Path(str(namer.names_from)))))
    vocabulary = namer.candidates()
    named = name_photos(load_namer(namer.namer, options), _read(paths), vocabulary, namer.at_once)
    examples = _examples(paths, named, namer.keep)
    compared = [name for example in examples for name in example.classes]
    reward = ClipReward(clip, [*compared, *(vocabulary.classes if vocabulary else ())], flags.reward)
    maps = MapCache(method.vlm, method.config, flags.cache or out / "maps")
    return Objective(maps, reward, examples, method.config)


def _read(paths: dict[str, Path]) -> Iterator[tuple[str, RGB]]:
    for key, path in paths.items():
        try:
            yield key, read_image(path)
        except InputError as error:
            complain(str(error))


def _examples(paths: dict[str, Path], named: Iterable[tuple[str, Naming | PnpError]], keep: float) -> list[Example]:
    """Return the photos that have a class."""
    examples = []
    for key, naming in tqdm(named, total=len(paths), unit="photo", desc="naming", file=sys.stderr):
        if not isinstance(naming, Naming):
            complain(str(naming))
        elif classes := naming.kept(keep):
            examples.append(Example(key, partial(read_image, paths[key]), classes))
    if not examples:
        raise InputError(
            f"none of {len(paths)} photos has a class to tune on; give other --names, a --vocabulary or a lower --keep"
        )
    if len(examples) < len(paths):
        complain(f"{len(paths) - len(examples)} of {len(paths)} photos have no class and are left out")
    return examples


def _about(objective: Objective) -> dict[str, Any]:
    """Return what the rewards are rewards of: a study goes on only with the same."""
    vlm, clip = objective.maps.vlm, objective.reward.clip
    named = [(example.key, example.classes) for example in objective.examples]
    about = {
        "model": f"{vlm.name} {vlm.revision}",
        "CLIP": f"{clip.name} {clip.revision}",
        "reward": objective.reward.form,
        "names": hashlib.sha256(json.dumps([named, objective.reward.names]).encode()).hexdigest(),
        "settings": {name: value for name, value in asdict(objective.config).items() if name not in TUNED},
    }
    return dict(json.loads(json.dumps(about)))


def _search(study: search.Study, objective: Objective, flags: Flags) -> None:
    """Run the model on the photos and work on the study, under progress bars."""
    for example in tqdm(objective.examples, unit="photo", desc="class maps", file=sys.stderr):
        objective.maps(example.read(), example.classes)
    with tqdm(total=flags.trials, unit="trial", desc="tuning", file=sys.stderr) as bar:
        bar.update(min(flags.trials, len(search.finished_trials(study))))
        for _ in search.run_trials(study, objective, flags.trials, prune=not flags.no_prune):
            best = search.best_trial(study)
            bar.set_postfix_str(_described(best) if best else "", refresh=False)
            bar.update(min(flags.trials, len(search.finished_trials(study))) - bar.n)


def _described(trial: search.FrozenTrial) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in trial.params.items())
    return f"reward {trial.value:.3f} with {settings}"
