"""The checks before any work: topics, their settings, the ledger, the work folder.

Every finding is one line that names the setting and the way out. Nothing is changed.
"""

from collections.abc import Mapping

from tasks.attempts import check_storage
from tasks.errors import SettingsError
from tasks.formats.registry import check_format, describe_format, with_schema_types
from tasks.kafka.clients import Admin
from tasks.kafka.ledger import Ledger, check_ledger
from tasks.kafka.reach import require_broker, require_leaders
from tasks.kafka.topics import describe_topics, require_no_collision
from tasks.output_folders import check_output_folders
from tasks.outputs import check_absent_topics, check_output_partitions, check_outputs
from tasks.ownership import JobView
from tasks.permissions import check_permissions
from tasks.settings.budget import check_limit
from tasks.settings.column_types import ColumnType
from tasks.settings.connection import Connection, use_connection
from tasks.settings.job import Job
from tasks.settings.scheduler import check_runner
from tasks.settings.sorts import RECORD_FIELDS, format_columns, parse_columns, read_columns
from tasks.source import check_end, require_source
from tasks.workdir import check_folder

# Settings of a job that decide what its outputs hold: fixed by its first run.
_FIXED_WAY_OUT = "take another --job-name (and, to write to the same outputs, --append)"


def check_before_lease(job: Job, connection: Connection, admin: Admin, patience: float = 0) -> None:
    """Check format, broker, limits, work folder, permissions, source and ledger: errors of exit status 2.

    `patience`: seconds to wait for the source. Format, limits, folder and permissions are checked before that.
    """
    check_limit(job)
    check_end(job)
    check_runner(job.runner, job.scheduler, connection)
    # A schema may lack what the job names.
    with use_connection(connection):
        check_format(job)
    check_folder(job)
    check_storage(job)
    require_broker(admin, connection, job.start_timeout)
    check_permissions(job, admin)
    source = require_source(admin, job.source_topic, patience)
    written = [*(sort.topic for sort in job.topic_sorts), job.dead_letters, job.ledger]
    require_no_collision(admin, written)
    require_leaders(admin, connection, [source, *describe_topics(admin, written).values()], job.start_timeout)
    check_output_partitions(job, source)
    check_outputs(job, admin)
    check_output_folders(job, admin)
    check_ledger(admin, job.ledger)
    check_absent_topics(job, admin, source)


def take_up_job(view: JobView) -> None:
    """Give the job the types of its ledger or schema; SettingsError if it differs from what the ledger has.

    Types that a run inferred are fixed from then on, as given ones are.
    """
    job, last = view.job, view.ledger.last
    if last is not None and view.ledger.placed and job.untyped:
        recorded = _recorded_types(last.format)
        # A record leaves out the default types of record fields.
        kinds = {name: recorded.get(name) or RECORD_FIELDS.get(name) for name in job.untyped}
        view.job = job.with_types({name: str(kind) for name, kind in kinds.items() if kind})
    view.job = with_schema_types(view.job)
    check_job_unchanged(view.job, view.ledger)


def _recorded_types(recorded: Mapping[str, str]) -> Mapping[str, ColumnType | None]:
    """Return the types that a run record has, of paths into values and of record fields."""
    paths = "" if recorded.get("name", "csv") == "csv" else recorded.get("columns", "")
    columns = ",".join(filter(None, (paths, recorded.get("fields"))))
    return read_columns(columns, paths=True) if columns else {}


def check_job_unchanged(job: Job, ledger: Ledger) -> None:
    """Raise SettingsError if the job differs from the one that its ledger records.

    Until a run has placed a record only the source is fixed: nothing was sorted by the job's other settings.
    """
    last = ledger.last
    if last is None:
        return
    then, now = {"source": last.source_topic}, {"source": job.source_topic}
    if ledger.placed:
        then |= {"partition-by": last.partition_by, "output-key": last.output_key}
        now |= {"partition-by": job.partition_by, "output-key": job.output_key}
        then |= {"sorts": ", ".join(f"{sort.columns}={sort.topic}" for sort in last.sorts), **_options(last.format)}
        now |= {"sorts": ", ".join(map(str, job.sort_list)), **_options(describe_format(job))}
    for name in then | now:
        if then.get(name) != now.get(name):
            raise SettingsError(
                f"job {job.name} {_difference(name, then.get(name), now.get(name))}: "
                f"start it as it was, or {_FIXED_WAY_OUT}"
            )
    if job.start is not None and not job.replaces:
        raise SettingsError(
            f"--start is for a job's first run, and {job.name} has run {last.run}: leave it out "
            "(it goes on where the last run ended), or take another --job-name"
        )


def _difference(name: str, then: str | None, now: str | None) -> str:
    had = f"has no {name}" if then is None else f"has {name} {then!r}"
    return f"{had} by its ledger, and was started {'without' if now is None else f'with {now!r}'}"


def _options(recorded: Mapping[str, str]) -> dict[str, str]:
    """Return a record's facts of the format, without what each run has of its own; old ones lack a name."""
    options = {name: value for name, value in recorded.items() if name not in {"name", "rules", "schemas"}}
    name = recorded.get("name", "csv")
    if name == "csv" and "columns" in recorded:
        options["columns"] = format_columns(parse_columns(recorded["columns"]))
    return {"format": name, **options}
