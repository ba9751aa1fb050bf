"""The page: ``work`` segments photos for many visitors and knows no Gradio, ``page`` shows it."""
