"""Where people annotate: a Label Studio backend, a CVAT function, a FiftyOne zoo model. One module each."""
