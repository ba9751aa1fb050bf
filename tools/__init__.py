"""Scripts for those who work on the package; none of them ships with it."""
