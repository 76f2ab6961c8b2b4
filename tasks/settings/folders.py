"""Folders of the user of this process, who may have neither a home nor a name (a container, a bare uid)."""

import os
import tempfile
from pathlib import Path


def home_folder() -> Path:
    """Return the user's home; without one, a folder for this user among the temporary files, which is not created."""
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    # An empty or relative HOME would be another folder in each working folder.
    named = os.environ.get("HOME", "/").startswith("/")
    return home if named and home.is_absolute() else Path(tempfile.gettempdir()) / f"kafka-sort-home-{os.geteuid()}"


def cache_folder() -> Path:
    """Return the folder of what can be recreated: $KAFKA_SORT_CACHE, else kafka-sort in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or home_folder() / ".cache"
    return Path(os.environ.get("KAFKA_SORT_CACHE") or Path(home) / "kafka-sort").absolute()
