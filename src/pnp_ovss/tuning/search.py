"""The search for the candidate of the largest reward: an Optuna study, which resumes and which many workers share.

``report`` is the page of such a search.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from jinja2 import StrictUndefined, Template

from pnp_ovss._version import VERSION
from pnp_ovss.errors import ConfigError, InputError, PnpError, one_line
from pnp_ovss.pictures.figures import data_url, panels
from pnp_ovss.redaction import keep_url
from pnp_ovss.tuning.gain import Gain, Rewards, gain
from pnp_ovss.tuning.objective import Candidate, Objective, Space
from pnp_ovss.types import BACKGROUND

try:
    import optuna
    from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
    from optuna.pruners import MedianPruner
    from optuna.samplers import RandomSampler, TPESampler
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.trial import Trial, TrialState
    from sqlalchemy import event
    from sqlalchemy.engine import URL, Engine, make_url
    from sqlalchemy.exc import SQLAlchemyError
except ImportError as error:
    raise ConfigError("tuning needs optuna, which is not installed; pip install 'pnp-ovss[tune]'") from error

Study = optuna.Study
FrozenTrial = optuna.trial.FrozenTrial
Sampler = Literal["random", "tpe", "grid"]
Rate = Callable[[Candidate], Iterable[Float[np.ndarray, " cls"]]]
"""Gives a candidate's rewards photo by photo, in the same order for all."""

FIRST_CHECK, CHECK_EVERY = 10, 5
"""Photos before a candidate is first compared with the others, and from one comparison to the next."""
NEVER_PRUNED = 5
"""Candidates that are evaluated on all photos, so that there is something to compare with."""
GRACE = 30
"""Seconds without a heartbeat of a worker until its trial is given to another."""
SHOWN = 6
"""Photos on the page with the best and with the worst masks."""
SIDE = 900
"""Longest side of a picture on the page, in pixels."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class _Taken(Exception):
    """The candidate is or was evaluated by another trial."""


class _InOrder(RandomSampler):
    """Goes through the candidates in the order of the seed, whatever was stopped on the way."""

    candidate: Candidate | None = None

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the candidate of the trial."""
        self.candidate = _free(study, trial.number)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: Any) -> Any:
        """Return its value."""
        return self.candidate[name] if self.candidate else super().sample_independent(study, trial, name, distribution)


def open_study(
    url: str,
    about: dict[str, Any],
    space: Space,
    sampler: Sampler = "random",
    seed: int = 0,
    grace: int = GRACE,
    start: Candidate | None = None,
) -> Study:
    """Return the study at a storage URL, new or begun earlier; ``sqlite:///study.db`` is a file of this folder.

    ``about`` says what the rewards are rewards of, in values that JSON has. ``random`` and ``grid`` go through the
    candidates in the order of the seed, stopped and resumed or not; ``tpe`` learns from the rewards. After ``grace``
    seconds without a heartbeat, the trial of a worker that was killed is taken up by another. ``start``, if it is in
    the space, is the first one.

    Raises: ConfigError if the study was begun with something else; InputError if the storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # what matters becomes an error
    with _optuna():
        chosen = TPESampler(seed=seed, constant_liar=True) if sampler == "tpe" else _InOrder(seed)
        pruner = MedianPruner(n_startup_trials=NEVER_PRUNED, n_warmup_steps=FIRST_CHECK - 1)
        named: dict[str, Any] = {"study_name": "pnp-ovss", "direction": "maximize", "load_if_exists": True}
        study = optuna.create_study(storage=_storage(url, grace), sampler=chosen, pruner=pruner, **named)
        for name, value in (about | {"sampler": sampler, "seed": seed, "space": space}).items():
            before = study.user_attrs.get(name, value)
            if before != value:
                raise ConfigError(f"the study was begun with another {name}: {before!s:.60}, not {value!s:.60}")
            study.set_user_attr(name, value)
        if start and all(start[name] in values for name, values in space.items()):
            study.enqueue_trial(start, skip_if_exists=True)
    return study


def run_trials(study: Study, rewards: Rate, trials: int, prune: bool = True) -> Iterator[FrozenTrial]:
    """Evaluate candidates until ``trials`` are finished, this worker's and others' together; yield this worker's.

    A trial's value is the mean reward over all masks, or over those until it was pruned. No candidate is evaluated
    twice. Pruned are those whose mean, after ``FIRST_CHECK`` photos and every ``CHECK_EVERY`` further ones, is below
    the median of the candidates that were evaluated on all photos.

    Raises: InputError if the storage stops working; what was finished before stays.
    """
    wanted = min(trials, prod(map(len, _space(study).values())))
    while (finished := len(finished_trials(study))) < wanted:
        states = [trial.state for trial in _trials(study)]
        if finished + states.count(TrialState.RUNNING) < wanted or TrialState.WAITING in states:
            yield from _run_trial(study, rewards, prune)
        else:  # others evaluate the last ones; should a worker die, its trial comes to us
            time.sleep(0.5)
            with _optuna():
                optuna.storages.fail_stale_trials(study)
            _requeue(study, _never_chose)


def requeue(study: Study) -> None:
    """Queue the trials that are said to run, in a study of this process alone: those that ran them are dead.

    Where many work on a study, this is found out by their heartbeats.
    """
    _requeue(study, lambda _: True)


def _requeue(study: Study, dead: Callable[[FrozenTrial], bool]) -> None:
    """Queue the trials that are said to run, and are dead."""
    with _optuna():
        for trial in _trials(study):
            if trial.state == TrialState.RUNNING and dead(trial):
                with suppress(ValueError, UpdateFinishedTrialError):  # another worker has done it
                    study.tell(trial.number, state=TrialState.FAIL)
                    _retry(study, trial)


def _never_chose(trial: FrozenTrial) -> bool:
    """Return whether a trial is without a candidate for so long that its worker died before the first heartbeat."""
    now = datetime.now()
    return not trial.params and now - (trial.datetime_start or now) > timedelta(seconds=GRACE)


def _retry(study: Study, trial: FrozenTrial) -> None:
    """Queue the candidate of a trial again, if all of it was written down before the trial broke off."""
    if _candidate(trial).keys() == _space(study).keys():
        RetryHeartbeatStaleTrialCallback()(study, trial)


def finished_trials(study: Study) -> list[FrozenTrial]:
    """Return every trial that is finished, by whichever worker, in the order they were begun."""
    return [trial for trial in _trials(study) if trial.state in FINISHED]


def best_trial(study: Study) -> FrozenTrial | None:
    """Return the trial of the largest reward, the one begun first among equals; None before any is complete."""
    whole = [trial for trial in finished_trials(study) if trial.state == TrialState.COMPLETE]
    return max(whole, key=lambda trial: trial.value or 0.0, default=None)


@dataclass(frozen=True)
class Choice:
    """What a search ends with: the best candidate, or the starting one where the gain over it is not certain."""

    params: Candidate
    rewards: Rewards
    """Of ``params``."""
    best: FrozenTrial
    gain: Gain | None
    """Of the best over the start; None where there is no start, or it is the best."""
    start: float | None
    """Reward of the start."""


def choose(study: Study, rate: Rate, start: Candidate | None) -> Choice | None:
    """Return the choice of a study; None before any trial is complete. ``start`` need not be in the space."""
    best = best_trial(study)
    if best is None:
        return None
    found = list(rate(best.params))
    if start is None or start == best.params:
        return Choice(best.params, found, best, None, best.value if start else None)
    before = list(rate(start))
    more = gain(before, found, len(finished_trials(study)))
    params, rewards = (best.params, found) if more.certain else (start, before)
    return Choice(params, rewards, best, more, float(np.concatenate(before).mean()))


def report(study: Study, objective: Objective, choice: Choice) -> str:
    """Return the page of a study, as HTML without script or network.

    It holds the rewards of the candidates that were tried, and the masks that the chosen one gives.
    """
    rewards = [float(values.mean()) for values in choice.rewards]
    order = np.argsort(rewards)[::-1].tolist()
    groups = {"Best masks": order[:SHOWN], "Worst masks": order[SHOWN:][::-1][:SHOWN]}
    page = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    template = Template(page, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    tried: dict[str, Any] = {"space": _space(study), "trials": finished_trials(study), "rewards": rewards}
    tried |= {"choice": choice, "best": choice.best, "reward": float(np.concatenate(choice.rewards).mean())}
    picture = partial(_picture, objective, choice.params)
    return str(template.render(tried, version=VERSION, objective=objective, picture=picture, groups=groups))


def storage_url(url: str | None, folder: Path) -> str:
    """Return the URL of a study: the one given, else that of an SQLite file in the folder.

    Raises: ConfigError if it is no URL.
    """
    if url is None:
        return URL.create("sqlite", database=str(folder.absolute() / "study.db")).render_as_string()
    keep_url(url)
    try:
        return make_url(url).render_as_string(hide_password=False)
    except SQLAlchemyError as error:
        raise ConfigError("expected a storage URL such as sqlite:///study.db; give one with --storage") from error


def _space(study: Study) -> Space:
    with _optuna():
        space: Space = study.user_attrs["space"]
        return space


def _trials(study: Study) -> list[FrozenTrial]:
    with _optuna():
        return study.get_trials(deepcopy=False)


def _run_trial(study: Study, rewards: Rate, prune: bool) -> list[FrozenTrial]:
    """Run one trial; return it, or nothing if its candidate was taken."""
    ended: list[FrozenTrial] = []

    def objective(trial: Trial) -> float:
        beating: Any = trial.storage
        beating.record_heartbeat(trial._trial_id)  # Optuna's own first one comes from a thread, and maybe never
        try:
            return _evaluate(trial, rewards(_choose(study, trial)), prune)
        except (KeyboardInterrupt, PnpError):  # the trial is queued again, as that of a dead worker would be
            _retry(study, study.trials[trial.number])
            raise

    with _optuna(), suppress(UpdateFinishedTrialError):  # the trial was taken for dead and given to another worker
        try:
            study.optimize(objective, n_trials=1, catch=(_Taken,), callbacks=[lambda _, trial: ended.append(trial)])
        except (AssertionError, UnboundLocalError) as error:  # Optuna's, in place of what came of telling the storage
            raise error.__context__ or error from None
    return [trial for trial in ended if trial.state in FINISHED]


def _free(study: Study, number: int) -> Candidate | None:
    """Return the next candidate in the order of the seed for the trial of this number, or None if none is free.

    As many are passed over as were begun before and have not failed, so that workers do not choose the same.
    """
    space = _space(study)
    every = list(product(*(space[name] for name in sorted(space))))
    np.random.RandomState(study.user_attrs["seed"]).shuffle(every)
    others = [other for other in _trials(study) if other.state != TrialState.FAIL and other.number != number]
    queued, taken = [_queued(other) for other in others], [_candidate(other) for other in others]
    order = [dict(zip(sorted(space), values, strict=True)) for values in every]
    order = [candidate for candidate in order if candidate not in queued]
    place = sum(other.number < number for other in others) % max(1, len(order))
    return next((candidate for candidate in order[place:] + order[:place] if candidate not in taken), None)


def _queued(trial: FrozenTrial) -> Candidate | None:
    """Return the candidate that a trial was queued with, if it was."""
    found: Candidate | None = trial.system_attrs.get("fixed_params")
    return found


def _candidate(trial: FrozenTrial) -> Candidate:
    """Return the candidate of a trial, as far as it is written down."""
    return _queued(trial) or trial.params


def _choose(study: Study, trial: Trial) -> Candidate:
    """Return the candidate that was queued or that the sampler chose; where it was taken, queue a free one instead."""
    space = _space(study)
    chosen = {name: trial.suggest_categorical(name, values) for name, values in space.items()}
    others = [other for other in _trials(study) if other.number != trial.number]
    taken = [other.params for other in others if other.state != TrialState.FAIL]
    if chosen not in taken:
        return chosen
    if free := _free(study, trial.number):
        study.enqueue_trial(free)
    raise _Taken


def _evaluate(trial: Trial, rewards: Iterable[Float[np.ndarray, " cls"]], prune: bool) -> float:
    """Return the mean of the rewards over all masks; report it to the pruner on the way."""
    total, masks = 0.0, 0
    for photos, values in enumerate(rewards, start=1):
        total, masks = total + float(values.sum()), masks + len(values)
        if prune and photos >= FIRST_CHECK and (photos - FIRST_CHECK) % CHECK_EVERY == 0:
            trial.report(total / masks, photos)
            if trial.should_prune():
                raise optuna.TrialPruned
    return total / masks


def _storage(url: str, grace: int) -> RDBStorage:
    lite = url.startswith("sqlite:")
    engine = {"connect_args": {"timeout": 60}} if lite else {}
    beats: dict[str, Any] = {"heartbeat_interval": max(1, grace // 6), "grace_period": grace}
    connect = partial(RDBStorage, url, engine, heartbeat_stale_trial_callback=_retry, **beats)
    try:
        storage = connect()
    except SQLAlchemyError:  # two workers that start at the same moment both make the tables
        time.sleep(1)
        storage = connect()
    if lite:
        _lock_before_reading(storage.engine)
    return storage


def _lock_before_reading(engine: Engine) -> None:
    """Have SQLite lock the study from a transaction's first read on.

    Optuna reads a trial for an update, and SQLite knows no such reading: two workers would both find the trial queued,
    or running, and both run or finish it.
    """
    engine.dispose()  # connections of before
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))


@contextmanager
def _optuna() -> Iterator[None]:
    """Turn what Optuna raises about its storage into one line, and leave out its notes on experimental features."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        cause = getattr(error.__cause__ or error, "orig", error)
        raise InputError(f"the study cannot be read or written ({one_line(cause)}); give another --storage") from error


def _picture(objective: Objective, candidate: Candidate, index: int) -> str:
    """Return the masks that a candidate gives and the class maps they come from, as the URL of a JPEG."""
    example = objective.examples[index]
    photo, classes = example.read(), example.classes
    labels = objective.labels(photo, classes, candidate)
    background = (BACKGROUND,) if objective.config.has_background(len(classes)) else ()
    maps = objective.maps(photo, classes).at(candidate["layer"], candidate["head"])
    picture = panels(photo, labels, (*background, *classes), maps.numpy())
    picture.thumbnail((SIDE, SIDE))
    return data_url(picture)
