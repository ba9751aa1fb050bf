"""What can go wrong for a user. Every message is one line: what came, what is wanted, what to do.

PnpError
├── InputError    a photo, class names, maps or a file that cannot be used
├── ConfigError   a setting that does not exist, is out of range or does not fit the model
└── ModelError    a model that cannot be found, fetched, read or used
"""


class PnpError(Exception):
    """Anything a user can cause and mend. The command line prints it as one line and exits with 2."""


class InputError(PnpError):
    """A photo, class names, maps or a file that cannot be used."""


class ConfigError(PnpError):
    """A setting that does not exist, is out of range or does not fit the model."""


class ModelError(PnpError):
    """A model that cannot be found, fetched, read or used."""


def one_line(error: object) -> str:
    """Return what went wrong as part of a line: an error's words, else its kind; 200 printable characters at most."""
    text = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
    line = " ".join(text.split()) or type(error).__name__
    return "".join(character for character in line if character.isprintable())[:200]
