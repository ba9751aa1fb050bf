"""``python -m pnp_ovss`` is ``pnp-ovss``."""

import sys

from pnp_ovss.cli import run

sys.exit(run())
