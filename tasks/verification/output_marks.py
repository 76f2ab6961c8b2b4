"""The marks of an output's records for the quick pass, with all checks that need the records, one after the other."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.verification.fetched import Fetched, FetchedReader, require
from tasks.verification.forms import OutputForm
from tasks.verification.key_columns import KeyEncoder
from tasks.verification.marks import MODULUS, Marker, Ranks
from tasks.verification.plan import PartitionPlan
from tasks.verification.tools import Tools


class OutputMarks:
    """Sums the marks of one output, partition by partition. `sum`: modulo 2^64; `has_ties`: whether keys are equal."""

    def __init__(
        self, tools: Tools, reader: FetchedReader, topic: str, form: OutputForm, encoder: KeyEncoder, marker: Marker
    ) -> None:
        self.sum = 0
        self._tools = tools
        self._reader = reader
        self._topic = topic
        self._form = form
        self._encoder = encoder
        self._marker = marker
        self._ranks = TieRanks()

    @property
    def has_ties(self) -> bool:
        """Whether two records have the same key."""
        return self._ranks.has_ties

    def read(self, plan: PartitionPlan, start: int, end: int) -> None:
        """Read the records with offsets in [start, end). UnprovenError at the first that is not as it must be."""
        if self._form.by != "range":
            self._ranks.begin()
        count = 0
        for fetched in self._reader.read(self._topic, plan.partition, start, end):
            self._tools.count(len(fetched))
            # Others were written by no run of the job.
            require(plan.first <= fetched.offsets[0] and fetched.offsets[-1] < plan.stop)
            self._add(fetched)
            count += len(fetched)
        require(count == plan.count)

    def _add(self, fetched: Fetched) -> None:
        encoded, block = self._encoder.encode(fetched), fetched.listed
        require(not encoded.rejected and not self._form.find_misplaced(block))
        ranks = self._ranks.rank(encoded.keys[0])
        marks = self._form.mark(self._marker, self._form.find(block), self._form.are(block))
        self.sum = (self.sum + self._marker.sum(marks, ranks if self.has_ties else None)) % MODULUS


class TieRanks:
    """Ranks records among those of their key, where keys must ascend."""

    def __init__(self) -> None:
        self._last: bytes | None = None
        self._run = 0
        self.has_ties = False

    def begin(self) -> None:
        """Begin with nothing before: what follows may be lower."""
        self._last = None

    def rank(self, keys: pa.Array) -> Ranks:
        """Return the ranks of the next records. UnprovenError if they are not in order."""
        first = keys[0].as_py()
        require(self._last is None or self._last <= first)
        above, below = keys.slice(1), keys.slice(0, len(keys) - 1)
        require(not pc.any(pc.less(above, below)).as_py())
        same = np.append(first == self._last, np.asarray(pc.equal(above, below)))
        self._last = keys[-1].as_py()
        return self._rank(same)

    def _rank(self, same: npt.NDArray[np.bool_]) -> Ranks:
        """Return the ranks of records. `same`: whether each has the key of the one before."""
        self.has_ties = self.has_ties or bool(same.any())
        index = np.arange(len(same))
        firsts = np.where(same, 0, index)
        # The first records may go on with the last key.
        ranks = index - np.maximum.accumulate(firsts)
        leading = int(np.argmin(same)) if not same.all() else len(same)
        ranks[:leading] += self._run + 1 if leading else 0
        self._run = int(ranks[-1])
        return ranks
