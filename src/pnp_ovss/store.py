"""The former name of ``files``."""

from pnp_ovss.files import Folder, check_folder, remove, save_png, write_bytes, write_text

__all__ = ["Folder", "check_folder", "remove", "save_png", "write_bytes", "write_text"]
