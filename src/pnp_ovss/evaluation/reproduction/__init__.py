"""A published table run again, cell by cell: what is asked for, what is there, what came out, and what to look at.

``tables.json`` has the tables: a new row, or a new column, is a line there. A row names its line of the published
scores, and how it is run: ``method``, ``model``, ``preset`` and single ``settings``; ``names``, "given" or "replies";
``protocol``; ``words``, which vocabulary each data set is asked for by; ``note``, what to know of it. A row that cannot
run says what it ``lacks``, a cell that cannot, in ``except``, why. A column has data sets, of which a row takes the one
that it has a published score on. ``classes.csv`` has published scores of single classes.
"""
