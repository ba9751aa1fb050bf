"""Files that are whole or not there: each is written beside its place and then renamed."""

import io
import os
import secrets
from pathlib import Path

from PIL import Image

from pnp_ovss.errors import InputError


def write_bytes(path: Path, content: bytes) -> None:
    """Put ``content`` into the file, with the folders above it; a failed or interrupted write leaves nothing behind.

    Raises: InputError if the place cannot be written.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.part")  # not from the name, which may be as long as names may be
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "xb") as file:
                file.write(content)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written ({_reason(error)}); choose another place or make room") from error


def write_text(path: Path, content: str) -> None:
    """Put ``content`` into the file as UTF-8, as ``write_bytes`` does; what it cannot hold is escaped, as in JSON."""
    write_bytes(path, content.encode("utf-8", errors="backslashreplace"))


def save_png(path: Path, image: Image.Image) -> None:
    """Put the picture into the file as PNG, as ``write_bytes`` does."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def check_folder(folder: Path) -> None:
    """Raise InputError if no file could be written into ``folder``, which need not exist and is not made."""
    nearest = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), folder)
    probe = nearest / f".{secrets.token_hex(8)}.part"
    try:
        try:
            probe.touch(exist_ok=False)
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the folder {folder} cannot be written ({_reason(error)}); give another one with --out"
        ) from error


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).lower()
