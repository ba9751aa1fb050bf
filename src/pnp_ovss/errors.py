"""What can go wrong for a user. Every message is one line: what was expected, what came, what to do.

PnpError
├── InputError    a photo, class names, maps or a file that cannot be used
├── ConfigError   a setting that does not exist, is out of range or does not fit the model
└── ModelError    a model that cannot be found, fetched, read or used
"""

from importlib import import_module
from types import ModuleType

from pnp_ovss.redaction import redacted


class PnpError(Exception):
    """Anything a user can cause and mend. The command line prints it as one line and exits with 2.

    The message is made printable here, once for all: names of files and classes may hold anything. And no secret is in
    it, whoever worded it (see ``redaction``).
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class InputError(PnpError):
    """A photo, class names, maps or a file that cannot be used."""


class ConfigError(PnpError):
    """A setting that does not exist, is out of range or does not fit the model."""


class ModelError(PnpError):
    """A model that cannot be found, fetched, read or used."""


def printable(text: object) -> str:
    """Return the text in one line, without secrets, and with what cannot be printed escaped."""
    line = " ".join(redacted(str(text)).splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def one_line(error: object) -> str:
    """Return what went wrong as part of a line: an error's words, else its kind; 200 printable characters at most."""
    text = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(redacted(text).split()) or type(error).__name__)[:200]


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Return a module of a package that comes with an extra; ``purpose`` is what needs it.

    Raises: ConfigError if it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        advice = f"run pip install 'pnp-ovss[{extra}]'"
        raise ConfigError(f"{purpose} needs {package}, which is not installed; {advice}") from error
