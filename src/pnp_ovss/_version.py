"""The version of this package, as its metadata has it."""

from importlib.metadata import version

VERSION = version("pnp-ovss")
