"""The search for the candidate of the largest reward: an Optuna study, which resumes and which many workers share."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.tuning.space import Candidate, Space

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.exceptions import StorageInternalError
    from optuna.samplers import BaseSampler, TPESampler
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.trial import FrozenTrial, Trial, TrialState
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import SQLAlchemyError
except ImportError as error:
    raise ConfigError("tuning needs optuna, which is not installed; pip install 'pnp-ovss[tune]'") from error

__all__ = ["Finished", "Sampler", "Search", "open_search"]

Sampler = Literal["random", "tpe", "grid"]

FIRST_CHECK, CHECK_EVERY = 10, 5
"""Photos before a candidate is first compared with the others, and from one comparison to the next."""
NEVER_PRUNED = 5
"""Candidates that are looked at whole, so that there is something to compare with."""
GRACE = 30
"""Seconds without a sign of life from a worker until its trial is given to another."""
OVER = (TrialState.COMPLETE, TrialState.PRUNED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Optuna says of its heartbeat: that it is experimental. The version is bounded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


with _quiet():
    _ASIDE = RetryHeartbeatStaleTrialCallback()
"""Puts a trial that did not finish back on the pile."""

Rewards = Callable[[Candidate], Iterable[Float[np.ndarray, " cls"]]]
"""Gives a candidate's rewards photo by photo, in the same order for all."""


@dataclass(frozen=True)
class Finished:
    """A candidate and what it earned: the mean over the classes of all photos, or of those until it was dropped."""

    candidate: Candidate
    reward: float
    dropped: bool
    classes: int
    seconds: float


@dataclass(frozen=True)
class Search:
    """A study of Optuna, and the space it searches."""

    study: optuna.Study
    space: Space
    place: str
    """Its storage, for messages."""

    def run(self, rewards: Rewards, trials: int, prune: bool = True) -> Iterator[Finished]:
        """Work until ``trials`` candidates are over, this worker's and others' together; yield this worker's.

        No candidate is looked at twice. Dropped early are those whose mean reward, after ``FIRST_CHECK`` photos and
        every ``CHECK_EVERY`` further ones, is below the median of the candidates that were looked at whole.

        Raises: InputError if the storage stops working; what was finished before stays.
        """
        wanted = min(trials, len(self.space.candidates()))
        while (over := self._count(*OVER)) < wanted:
            if over + self._count(TrialState.RUNNING) >= wanted:
                time.sleep(0.5)  # others are at the last ones; should they die, theirs come to us
                with _plain(self.place), _quiet():
                    optuna.storages.fail_stale_trials(self.study)
                if not self._count(TrialState.WAITING):
                    continue
            mine = self._run_one(rewards, prune)
            if mine is not None:
                yield mine

    def finished(self) -> list[Finished]:
        """Return every candidate that is over, by whichever worker, in the order they were begun."""
        with _plain(self.place):
            trials = self.study.get_trials(deepcopy=False, states=OVER)
        return [
            Finished(
                Candidate(**trial.params),
                trial.user_attrs["reward"],
                trial.state == TrialState.PRUNED,
                trial.user_attrs["classes"],
                trial.user_attrs["seconds"],
            )
            for trial in trials
        ]

    def best(self) -> Finished | None:
        """Return the candidate of the largest reward, the one begun first among equals; None before any is over."""
        whole = [one for one in self.finished() if not one.dropped]
        return max(whole, key=lambda one: one.reward, default=None)

    def _run_one(self, rewards: Rewards, prune: bool) -> Finished | None:
        """Look at one candidate; None if another worker was faster to take it."""
        mine: list[Finished] = []
        number: list[int] = []

        def objective(trial: Trial) -> float:
            number.append(trial.number)
            candidate = self._claim(trial)
            finished = _measured(trial, candidate, rewards(candidate), prune)
            mine.append(finished)
            for name in ("reward", "classes", "seconds"):
                trial.set_user_attr(name, getattr(finished, name))
            if finished.dropped:
                raise optuna.TrialPruned
            return finished.reward

        with _plain(self.place):
            try:
                self.study.optimize(objective, n_trials=1, catch=(_Taken,))
            except BaseException:  # Ctrl-C above all: what was begun goes back to the pile
                for trial in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
                    if trial.number in number:
                        _ASIDE(self.study, trial)
                raise
        return mine[0] if mine else None

    def _claim(self, trial: Trial) -> Candidate:
        """Return the candidate of a trial; no other has or had it."""
        chosen = {name: trial.suggest_categorical(name, values) for name, values in _choices(self.space).items()}
        # First written, then compared: of two who take the same one at a time, both see it, and both go on to others.
        if any(other.params == chosen and other.number != trial.number for other in _taken(self.study)):
            raise _Taken
        return Candidate(**chosen)

    def _count(self, *states: TrialState) -> int:
        with _plain(self.place):
            return len(self.study.get_trials(deepcopy=False, states=states))


def open_search(
    url: str, about: dict[str, Any], space: Space, sampler: Sampler = "random", seed: int = 0, grace: int = GRACE
) -> Search:
    """Return the search at a storage URL, new or begun earlier; ``sqlite:///study.db`` is a file of this folder.

    ``about`` says what the rewards are rewards of, in values that JSON has. After ``grace`` seconds without a sign of
    life, the trial of a worker that was killed is taken up by another.

    Raises: ConfigError if the study was begun with something else; InputError if the storage cannot be used.
    """
    told = about | {"sampler": sampler, "seed": seed, "space": {name: list(vars(space)[name]) for name in vars(space)}}
    candidates = space.candidates()
    order = candidates if sampler == "grid" else _shuffled(candidates, seed)
    place = shown_storage(url)
    with _plain(place), _quiet():
        study = optuna.create_study(
            storage=_storage(url, grace),
            study_name="pnp-ovss",
            direction="maximize",
            load_if_exists=True,
            sampler=_Learned(order, space, seed) if sampler == "tpe" else _InOrder(order, space),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=NEVER_PRUNED, n_warmup_steps=FIRST_CHECK - 1),
        )
        held = study.user_attrs
        for name, value in told.items():
            if name not in held:
                study.set_user_attr(name, value)
            elif held[name] != value:
                raise ConfigError(
                    f"the study in {place} was begun with another {name}: {_short(held[name])}, not {_short(value)}; "
                    "give what it was begun with, or another place"
                )
    return Search(study, space, place)


def _measured(
    trial: Trial, candidate: Candidate, rewards: Iterable[Float[np.ndarray, " cls"]], prune: bool
) -> Finished:
    """Add up a candidate's rewards until there are no more, or it is dropped."""
    begin, total, classes, dropped = time.perf_counter(), 0.0, 0, False
    for seen, values in enumerate(rewards, start=1):
        total, classes = total + float(values.sum()), classes + len(values)
        if prune and seen >= FIRST_CHECK and (seen - FIRST_CHECK) % CHECK_EVERY == 0:
            trial.report(total / classes, seen)
            if dropped := bool(trial.should_prune()):
                break
    return Finished(candidate, total / classes, dropped, classes, time.perf_counter() - begin)


class _InOrder(BaseSampler):
    """Gives the n-th trial the n-th candidate. Trials are numbered by the storage, so workers never meet."""

    def __init__(self, order: Sequence[Candidate], space: Space) -> None:
        self._order = [vars(candidate) for candidate in order]
        self._choices = {name: CategoricalDistribution(values) for name, values in _choices(space).items()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._choices)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        before = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
        # A trial taken up again has the candidate of the one before, and uses up none.
        rank = sum("failed_trial" not in other.system_attrs for other in before)
        if rank < len(self._order):
            return self._order[rank]
        return self._first_free(study, trial)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise RuntimeError(f"{param_name} is not in the space")

    def _first_free(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        taken = [other.params for other in _taken(study) if other.number != trial.number]
        return next((chosen for chosen in self._order if chosen not in taken), self._order[0])


class _Learned(_InOrder):
    """Asks a tree-structured Parzen estimator; where it names a candidate that was tried, the next in order counts."""

    def __init__(self, order: Sequence[Candidate], space: Space, seed: int) -> None:
        super().__init__(order, space)
        self._estimator = TPESampler(seed=seed, constant_liar=True, multivariate=False)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if len(study.get_trials(deepcopy=False, states=OVER)) < FIRST_CHECK:
            return self._first_free(study, trial)
        chosen = {
            name: self._estimator.sample_independent(study, trial, name, choices)
            for name, choices in self._choices.items()
        }
        taken = [other.params for other in _taken(study) if other.number != trial.number]
        return self._first_free(study, trial) if chosen in taken else chosen


class _Taken(Exception):
    """Another worker took this candidate."""


def _taken(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]


def _choices(space: Space) -> dict[str, tuple[Any, ...]]:
    return {"layer": space.layers, "head": space.heads, "threshold": space.thresholds, "blur": space.blurs}


def _shuffled(candidates: Sequence[Candidate], seed: int) -> list[Candidate]:
    return [candidates[index] for index in np.random.default_rng(seed).permutation(len(candidates))]


def _storage(url: str, grace: int) -> RDBStorage:
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {}
    opened = partial(
        RDBStorage,
        url,
        engine_kwargs=patience,
        heartbeat_interval=max(1, grace // 6),
        grace_period=grace,
        heartbeat_stale_trial_callback=_ASIDE,
    )
    for wait in (0.2, 1.0):
        try:
            return opened()
        except SQLAlchemyError as error:  # two workers that start at the same moment both make the tables
            if "already exists" not in str(error):
                raise
        time.sleep(wait)
    return opened()


@contextmanager
def _plain(place: str) -> Iterator[None]:
    """Say in one line what is wrong with the storage."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        raise InputError(
            f"the study in {place} cannot be read or written ({reason}); make room or give another --storage, and it "
            "goes on where it was"
        ) from error


def sqlite(path: Path) -> str:
    """Return the address of a storage in an SQLite file."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)


def shown_storage(url: str) -> str:
    """Return the address of a storage without its password.

    Raises: ConfigError if it is none.
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError as error:
        raise ConfigError("the storage is no address such as sqlite:///study.db; give one with --storage") from error


def _short(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else text[: most - 3] + "..."
