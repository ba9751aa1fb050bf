"""``python -m pnp_ovss`` is ``pnp-ovss``."""

import sys

from pnp_ovss.cli import main

sys.exit(main())
