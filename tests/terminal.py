"""What a command printed, as a person at the terminal would read it."""

import re


def errors_of(capsys) -> list[str]:
    """Return the lines on stderr, the progress bar's left out."""
    text = re.sub(r"\r[^\r\n]*(?=\r|$)", "", capsys.readouterr().err)
    return [
        line
        for line in text.replace("\r", "").splitlines()
        if "photo]" not in line and "photo/s]" not in line and line.strip()
    ]
