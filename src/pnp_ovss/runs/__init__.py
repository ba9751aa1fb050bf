"""Many photos: one result per photo, written once; a stopped run goes on.

photos     which photos there are, and their bytes
results    where results lie, which are there already, and packing them into Parquet
work       one process: photos are read, seen by the model and refined at the same time
cluster    many processes or machines, by Ray
run        what is still to be done, and in which order
"""

from pnp_ovss.runs.photos import Source, find_photos
from pnp_ovss.runs.results import FORMATS, Results
from pnp_ovss.runs.run import Run, open_run
from pnp_ovss.runs.work import Job, Names, Outcome, Worker, work_here

__all__ = [
    "FORMATS",
    "Job",
    "Names",
    "Outcome",
    "Results",
    "Run",
    "Source",
    "Worker",
    "find_photos",
    "open_run",
    "work_here",
]
