"""The kinds of folders by how they are written: of this machine, or S3."""

from tasks.folders.base import OutputFolder
from tasks.folders.local import LocalFolder
from tasks.settings.outputs import S3, folder_of


def open_folder(output: str) -> OutputFolder:
    """Return the folder of an output; nothing is created."""
    if folder_of(output).startswith(S3):
        # It takes a fifth of a second to load.
        from tasks.folders.s3 import S3Folder

        return S3Folder(output)
    return LocalFolder(output)
