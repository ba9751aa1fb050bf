"""The process that ``harness`` gives inputs to."""

import json
import sys

from fuzz.harness import serve

serve(**json.loads(sys.argv[1]))
