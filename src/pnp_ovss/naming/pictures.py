"""A photo as it is sent: small, without metadata; and its fingerprint."""

import base64
import hashlib
import io

from PIL import Image

from pnp_ovss.types import RGB

LONGEST_SIDE, QUALITY = 1024, 88


def sent_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of the photo as it is sent: no side longer than ``LONGEST_SIDE``."""
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def jpeg(photo: RGB) -> bytes:
    """Return the photo as JPEG of that size. Only its pixels are in it: no place, no camera, no name."""
    picture = Image.fromarray(photo)
    size = sent_size(*picture.size)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def data_url(content: bytes) -> str:
    """Return a JPEG as the URL that a chat message holds."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"


def fingerprint(photo: RGB) -> str:
    """Return the SHA-256 of the photo's pixels and size, whatever file they came from."""
    digest = hashlib.sha256(f"{photo.shape[0]} x {photo.shape[1]}:".encode())
    digest.update(photo.tobytes())
    return digest.hexdigest()
