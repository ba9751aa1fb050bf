"""The page: ``studio`` does the work and knows no page, ``page`` shows it."""
