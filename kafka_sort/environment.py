"""The environment of a command, put right before its libraries see it: a machine need not be a person's own.

What can be put right is put right for this process and its children; what cannot is reported in one line.
"""

import codecs
import os
import resource
import sys
import warnings

from tasks.errors import SettingsError
from tasks.settings.folders import home_folder

# A run with Prefect's server, client and a few brokers holds some 60 files open; each output partition a few more.
_FEWEST_FILES = 128
_ERRORS = "kafka-sort"


def prepare_environment() -> None:
    """Put the environment right. SettingsError where a command cannot work in it."""
    _check_working_folder()
    _give_home()
    _keep_own_files_usable()
    _raise_file_limit()
    _print_anything()
    # The shells that watch child processes need `cat`, `sleep` and `rm`.
    os.environ["PATH"] = os.pathsep.join(filter(None, (os.environ.get("PATH"), os.defpath)))
    # Warnings of libraries are for developers. As errors they would end a run that works, also in child processes.
    warnings.simplefilter("ignore")
    os.environ.pop("PYTHONWARNINGS", None)


def _check_working_folder() -> None:
    try:
        os.getcwd()  # noqa: PTH109  # only the name is needed; nothing is opened
    except OSError as error:
        raise SettingsError(
            f"the working folder cannot be used ({error.strerror}): change to one that exists"
        ) from None


def _give_home() -> None:
    """Set HOME: Prefect and other libraries fail without one, and a bare uid in a container has none."""
    home = home_folder()
    if os.environ.get("HOME") != str(home):
        os.environ["HOME"] = str(home)


def require_room_for_prefect() -> None:
    """Raise SettingsError where Prefect can read or keep nothing; Prefect's own error would not say what to do."""
    if not os.access(".", os.R_OK | os.X_OK):
        raise SettingsError(
            "the working folder cannot be read, and Prefect looks for settings there: change to another"
        )
    if {"PREFECT_API_URL", "PREFECT_HOME"} & os.environ.keys():
        return
    try:
        home_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        (home_folder() / ".prefect").mkdir(exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the home folder {home_folder()} cannot be written ({error.strerror}), and Prefect keeps its history "
            "there: set HOME or PREFECT_HOME to a folder of your own"
        ) from None


def _keep_own_files_usable() -> None:
    """Correct a umask that takes the user's new files from the user: each new folder would be useless."""
    former = os.umask(0o077)
    os.umask(former & 0o077)


def _raise_file_limit() -> None:
    """Raise the limit of open files as far as permitted: the usual one is for programs with one connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # On macOS the hard limit is infinite, and the kernel refuses it as the soft one.
        wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 10_240)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft < _FEWEST_FILES:
        raise SettingsError(f"this process may open {soft} files, and needs {_FEWEST_FILES} at least: raise ulimit -n")


def _print_anything() -> None:
    """Escape characters that standard output's encoding does not have, as JSON and Python write them."""
    codecs.register_error(_ERRORS, _escape)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors=_ERRORS)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end
