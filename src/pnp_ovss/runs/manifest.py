"""The former place of ``record.about_model`` and ``record.check_same``."""

from pnp_ovss.runs.record import about_model, check_same

__all__ = ["about_model", "check_same"]
