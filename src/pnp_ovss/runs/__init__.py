"""Many photos: one result per photo, written once; a stopped run goes on.

pipeline   the one way through many photos: read, name, segment, refine
record     what is written for a photo, and reading it again
batch      a run: which photos there are, what is left to be done, one process at work, packing into Parquet
cluster    many processes or machines, by Ray
"""
