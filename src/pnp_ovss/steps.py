"""Long work in steps: a generator that pauses between them and returns the result, so that it can be left halfway."""

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")

Steps = Generator[None, None, Result]


def finished(steps: Steps[Result]) -> Result:
    """Take all the steps and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
