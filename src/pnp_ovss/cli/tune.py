"""``pnp-ovss tune``: settings for a model and photos, chosen by CLIP's reward, without a mask."""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pnp_ovss.cli import STOPPED, complain, follow, say
from pnp_ovss.cli.flags import Count, Dir, ModelFlags, Name, NamerFlags, Seed, Share, number, value
from pnp_ovss.cli.name import photos_by_name, readable
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.files import fetch_source, write_text
from pnp_ovss.images import Place, find_images, read_image
from pnp_ovss.lock import hold
from pnp_ovss.methods import method_info
from pnp_ovss.methods.pnp import Config
from pnp_ovss.naming import Naming, load_namer, name_photos
from pnp_ovss.tuning import search
from pnp_ovss.tuning.gain import FEW
from pnp_ovss.tuning.objective import Example, MapCache, Objective, search_space
from pnp_ovss.tuning.reward import ClipReward

EXAMPLE = "tune --images demo/scene-00?.png --names itm --model mini-blip --trials 4  (after pnp-ovss demo)"
NAMERS = ("itm", "clip", "caption", "openai")
TUNED = ("layer", "head", "threshold", "blur")


def _numbers(text: str) -> list[int | float]:
    return [number(part) for part in text.split(",")]


Numbers = Annotated[Any, value("X,...", parser=_numbers)]


@dataclass(frozen=True)
class TuneFlags:
    """What names the photos, rewards their masks and chooses candidates.

    Args:
        vocabulary: what to choose from, as in 'name'; the reward compares with all of it
        keep: names above this confidence
        namer_model: openai: a chat model; clip, caption: a checkpoint
        clip: dual encoder (default: clip-base, mini-clip for mini models)
        reward: black: the paper's; rest: kept against removed; graded: the paper's, with degrees
        trials: candidates
        sampler: random (grid is the same), or tpe, which learns
        seed: of the sampler
        no_prune: evaluate poor candidates on all photos, too
        storage: of the study, for many workers (default: a file in --out)
        cache: of the class maps (default: a folder in --out)
        layers: choose among these alone, such as 0,1
        heads: choose among these alone, such as 0,1
        thresholds: choose among these alone, such as 0.05,0.15
        blurs: choose among these alone, such as 0.03,0.05
    """

    vocabulary: Annotated[str, value("NAME|FILE")] | None = None
    keep: Share = 0.7
    namer_model: Name | None = None
    clip: Name | None = None
    reward: Literal["black", "rest", "graded"] = "black"
    trials: Count = 34
    sampler: search.Sampler = "random"
    seed: Seed = 0
    no_prune: bool = False
    storage: Annotated[str, value("URL")] | None = None
    cache: Dir | None = None
    layers: Numbers = None
    heads: Numbers = None
    thresholds: Numbers = None
    blurs: Numbers = None


def command(
    images: Annotated[list[str], value("PHOTO...")],
    names: Annotated[str, value(f"FILE|{'|'.join(NAMERS)}")],
    flags: TuneFlags,
    model: ModelFlags,
    photos: Annotated[list[str] | None, typer.Argument(metavar="[PHOTO...]")] = None,
    out: Dir = Path("tuning"),
) -> int:
    """Choose layer, head, threshold and blur for a model on photos of your own, without a mask.

    A dual encoder (CLIP) says how well each mask shows its class, and a search looks for the settings of the best
    masks. The preset that it starts from is the first candidate, and stays unless the gain over it is certain. Written
    are preset.json, which --preset takes in every command, and report.html. The model runs once on each photo. Class
    maps and the study are kept in the folder: a run that was stopped goes on where it was. With --storage, many
    processes work on one study.

    Args:
        images: folders, files or globs to tune on
        names: classes of the photos: a .json file of names per photo, as 'name --out' writes it, a text file with one
            name a line for all photos, or a namer
        photos: more photos
        out: folder
    """
    paths = photos_by_name(find_images([*images, *(photos or ())]))
    for path in paths.values():
        if not os.path.isfile(path):
            raise InputError(f"there is no photo {path}; check the path given with --images")
    if not issubclass(method_info(model.method).config, Config):
        raise ConfigError(f"tune has nothing to choose for the method {model.method}; it is for pnp")
    choices = {name: [model.settings[name]] for name in TUNED if name in model.settings}  # given, so not tuned
    choices |= {name: values for name in TUNED if (values := getattr(flags, f"{name}s"))}
    for name, values in choices.items():  # a wrong value should not cost a download
        for one in values:
            replace(model, settings=model.settings | {name: one}).config()
    url = search.storage_url(flags.storage, out)
    namer = _namer(names, flags)
    namer.check(model)
    with hold(out):
        objective = _objective(paths, namer, out, flags, model)
        space = search_space(objective.maps.vlm, **choices)
        start = _start(model, objective)
        study = search.open_study(url, _about(objective, paths), space, flags.sampler, flags.seed, start=start)
        if flags.storage is None:
            search.requeue(study)
        try:
            _search(study, objective, flags)
        except KeyboardInterrupt:
            done = len(search.finished_trials(study))
            complain(f"stopped; {done} trials are done, and the same command goes on from there")
            return STOPPED
        return _write(study, objective, out, start)


def _namer(names: str, flags: TuneFlags) -> NamerFlags:
    """Return the namer that ``--names`` stands for."""
    path, server = Path(names), os.getenv("OPENAI_BASE_URL")
    namer = NamerFlags(names, flags.vocabulary, flags.keep, flags.namer_model, base_url=server)
    if names in NAMERS:
        return namer
    if path.suffix == ".json" or os.path.isdir(path):
        return replace(namer, namer="cached", names_from=path)
    if os.path.isfile(path):
        return replace(namer, namer="given", names_from=path)
    raise ConfigError(f"expected --names to be a file or one of {', '.join(NAMERS)}, got {names}")


def _objective(paths: dict[str, Place], namer: NamerFlags, out: Path, flags: TuneFlags, model: ModelFlags) -> Objective:
    """Load the models and name the photos."""
    # Layer and head are chosen later; those of the preset may be more than this model has.
    method: Any = replace(model, settings=model.settings | {"layer": 0, "head": 0}).load().method
    clip = model.load_clip(flags.clip)
    vocabulary = namer.candidates()
    named = load_namer(namer.namer, namer.options(model, lambda: method.vlm))
    examples = []
    for key, naming in follow(name_photos(named, readable(paths), vocabulary, namer.at_once), len(paths)):
        if not isinstance(naming, Naming):
            complain(str(naming))
        elif classes := naming.kept(namer.keep):
            classes = vocabulary.only(classes).terms if vocabulary else classes
            examples.append(Example(key, partial(read_image, paths[key]), classes))
    missing = len(paths) - len(examples)
    if not examples:
        what = f"none of {missing} photos has a class to tune on"
        raise InputError(f"{what}; give other --names, a --vocabulary or a lower --keep")
    if missing:
        complain(f"{missing} of {len(paths)} photos have no class and are left out")
    compared = [name for example in examples for name in example.classes]
    reward = ClipReward(clip, [*compared, *(vocabulary.terms if vocabulary else ())], flags.reward)
    maps = MapCache(method.vlm, method.config, flags.cache or out / "maps")
    return Objective(maps, reward, examples, method.config)


def _start(model: ModelFlags, objective: Objective) -> dict[str, Any] | None:
    """Return what the preset has for the settings that are tuned, or None where the model lacks its layer or head."""
    config, vlm = model.config(), objective.maps.vlm
    fits = config.layer < vlm.layers and config.head < vlm.heads
    return {name: getattr(config, name) for name in TUNED} if fits else None


def _about(objective: Objective, paths: dict[str, Place]) -> dict[str, Any]:
    """Return what the rewards are rewards of: a study goes on only with the same."""
    vlm, reward = objective.maps.vlm, objective.reward
    photos = [fetch_source(paths[example.key])[1].sha256 for example in objective.examples]
    named = [(example.key, example.classes) for example in objective.examples]
    settings = json.loads(objective.config.to_json())
    return {
        "model": f"{vlm.name} {vlm.revision}",
        "CLIP": f"{reward.clip.name} {reward.clip.revision}",
        "reward": reward.form,
        "names": hashlib.sha256(json.dumps([named, reward.names]).encode()).hexdigest(),
        "content of the photos": hashlib.sha256(json.dumps(photos).encode()).hexdigest(),
        "settings": {name: value for name, value in settings.items() if name not in TUNED},
    }


def _search(study: search.Study, objective: Objective, flags: TuneFlags) -> None:
    """Run the model on the photos and work on the study, under progress bars."""
    for example in follow(objective.examples, len(objective.examples), desc="class maps"):
        objective.maps(example.read(), example.classes)
    before = min(flags.trials, len(search.finished_trials(study)))
    with follow((), flags.trials, "trial", desc="tuning", initial=before) as bar:
        for _ in search.run_trials(study, objective, flags.trials, prune=not flags.no_prune):
            best = search.best_trial(study)
            bar.set_postfix_str(_described(best) if best else "", refresh=False)
            bar.update(min(flags.trials, len(search.finished_trials(study))) - bar.n)


def _write(study: search.Study, objective: Objective, out: Path, start: dict[str, Any] | None) -> int:
    choice, maps, photos = search.choose(study, objective, start), objective.maps, len(objective.examples)
    if choice is None:
        raise InputError("no candidate was evaluated on all photos; run it again, or with --no-prune")
    write_text(out / "preset.json", replace(objective.config, **choice.params).to_json() + "\n")
    write_text(out / "report.html", search.report(study, objective, choice))
    say(f"best: {_described(choice.best)}")
    if start is None:
        say("the preset does not fit this model, so there are no settings to compare the best with")
    elif choice.gain is None:
        say("these are the settings at the start: no candidate is better, and they stay")
    else:
        ends = "and is taken" if choice.gain.certain else "which is not certain: the settings at the start stay"
        say(f"gain over the settings at the start, reward {choice.start:.3f}: {choice.gain}, {ends}")
    if choice.gain and photos < FEW:
        complain(f"only {photos} photos: the gain may be from {choice.gain.low:+.3f} to {choice.gain.high:+.3f}")
    elif photos < FEW:
        complain(f"only {photos} photos: give {FEW} or more, or what is found may not hold for others")
    say(f"{maps.vlm.name} ran {maps.passes} times for {photos} photos; all trials used its class maps")
    say(f"preset: {out / 'preset.json'}, for --preset; report: {out / 'report.html'}")
    return 0


def _described(trial: search.FrozenTrial) -> str:
    settings = ", ".join(f"{name} {chosen}" for name, chosen in trial.params.items())
    return f"reward {trial.value:.3f} with {settings}"
