"""The process that ``harness`` gives inputs to."""

import json
import os
import sys

from fuzz.harness import serve

serve(**json.loads(sys.argv[1]))
os._exit(0)  # without waiting for the servers that targets share
