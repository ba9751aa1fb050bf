"""Where people work: the page, a Label Studio backend, a CVAT function, a FiftyOne zoo model."""
