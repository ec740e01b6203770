"""Keeps every measurement: SQLite in the user's data folder, or any database SQLAlchemy speaks to.

Writers may be many: SQLite runs in WAL mode with a long busy timeout, a run is one transaction, and the
tables are made with IF NOT EXISTS, so that two first writers don't meet.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from pathlib import Path
from shutil import disk_usage
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from ..errors import EdgeoptError, InputError
from .records import Record, Run

_SCHEMA_VERSION = 1
_SHARED_MEMORY_BYTES = 32 * 1024  # what SQLite lays beside a database before it reads
_TABLES = sa.MetaData()
_META = sa.Table(
    "edgeopt_meta",
    _TABLES,
    sa.Column("key", sa.String(40), primary_key=True),
    sa.Column("value", sa.String(200)),
)
_RUNS = sa.Table(
    "edgeopt_runs",
    _TABLES,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("created_at", sa.String(40), nullable=False, index=True),
    sa.Column("command", sa.String(40), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
)
_MEASUREMENTS = sa.Table(
    "edgeopt_measurements",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.String(40), sa.ForeignKey("edgeopt_runs.id"), nullable=False, index=True),
    sa.Column("metric", sa.String(60), nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("artifact", sa.Text, nullable=False),
    sa.Column("artifact_sha256", sa.String(64), nullable=False, index=True),
    sa.Column("target", sa.String(200), nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("threads", sa.Integer, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Column("samples", sa.Text, nullable=False),
)
# What SQLite says -> what to do. A file of no bytes is no damage: a first command that is killed before it has made
# the tables leaves one, and SQLite takes it for a new database.
_HELP = {
    "not a database|malformed": "it is damaged: restore it from a backup, or move it away and a new one is made",
    "readonly|unable to open": "check the rights of the file and its folder, or give another --store",
    "is locked": "another program holds it: run again when that is done, or give another --store",
}


def _utc(since: str) -> str:
    """A date or time as the store writes times; one without a zone is UTC.

    Raises:
        InputError: neither a date nor a time.
    """
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise InputError(
            f"--since takes a date or a time (UTC), e.g. 2026-11-01 or 2026-11-01T18:30, not {since!r}."
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="seconds")


class Store:
    """A place that keeps runs.

    Args:
        url: an SQLAlchemy URL; by default SQLite at :func:`default_path`.
        to_read: nothing will be added, so that a SQLite file where nothing can be written, or none, will do.

    Raises:
        InputError: the URL is not one, its driver is missing, its disk is full, or it was written by a newer edgeopt.
        EdgeoptError: the database can't be opened.
    """

    def __init__(self, url: str | None = None, *, to_read: bool = False) -> None:
        self.url = url or f"sqlite:///{default_path()}"
        untouched = False
        try:
            parsed = sa.make_url(self.url)
            self._is_sqlite = parsed.get_backend_name() == "sqlite"
            if to_read and self._is_sqlite and parsed.database:
                parsed, untouched = _without_writing(parsed, Path(parsed.database))
            if self._is_sqlite and parsed.database and not untouched:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            arguments = {"timeout": 60} if self._is_sqlite else {}
            self._engine = sa.create_engine(parsed, connect_args=arguments)
        except (SQLAlchemyError, ValueError) as error:
            raise InputError(f"--store {self.url} is not a database URL ({_short(error)}).") from error
        except ModuleNotFoundError as error:
            raise InputError(
                f"--store {parsed.drivername} needs the package {error.name}: install edgeopt[postgresql]."
            ) from error
        except OSError as error:
            raise EdgeoptError(
                f"the store's folder can't be made: {error.strerror}: {error.filename}; give another --store, "
                "or set EDGEOPT_DATA_DIR."
            ) from error
        if self._is_sqlite and not untouched:
            sa.event.listen(self._engine, "connect", _configure_sqlite)
        self._create(untouched)

    def add(self, run: Run) -> str:
        """Keep a run, whole or not at all; returns its id.

        Raises:
            EdgeoptError: the database refused.
        """
        rows = [_row(run.id, record) for record in run.records]
        with self._transaction() as connection:
            connection.execute(
                _RUNS.insert(),
                {"id": run.id, "created_at": run.created_at, "command": run.command, "subject": run.subject},
            )
            if rows:
                connection.execute(_MEASUREMENTS.insert(), rows)
        return run.id

    def history(
        self,
        *,
        artifact: str | None = None,
        metric: str | None = None,
        target: str | None = None,
        run_id: str | None = None,
        since: str | None = None,
        limit: int | None = 50,
    ) -> list[dict[str, Any]]:
        """Stored measurements, newest first, each as in JSON with ``run_id``, ``created_at``, ``command``.

        Args:
            artifact: part of an artefact's or subject's name. since: ISO date or time (UTC).

        Raises:
            InputError: since is no date.
        """
        query = (
            sa.select(_RUNS.c.created_at, _RUNS.c.command, _RUNS.c.subject, _MEASUREMENTS)
            .join(_RUNS, _RUNS.c.id == _MEASUREMENTS.c.run_id)
            .order_by(_RUNS.c.created_at.desc(), _MEASUREMENTS.c.run_id, _MEASUREMENTS.c.id)
        )
        if artifact:
            either = sa.or_(
                _MEASUREMENTS.c.artifact.contains(artifact, autoescape=True),
                _RUNS.c.subject.contains(artifact, autoescape=True),
            )
            query = query.where(either)
        for column, wanted in (
            (_MEASUREMENTS.c.metric, metric),
            (_MEASUREMENTS.c.target, target),
            (_MEASUREMENTS.c.run_id, run_id),
        ):
            if wanted:
                query = query.where(column == wanted)
        if since:
            query = query.where(_RUNS.c.created_at >= _utc(since))
        if limit:
            query = query.limit(limit)
        with self._transaction() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            {
                "run_id": row["run_id"],
                "created_at": row["created_at"],
                "command": row["command"],
                "subject": row["subject"],
                **json.loads(row["record"]),
            }
            for row in rows
        ]

    def run(self, run_id: str) -> list[Record]:
        """The records of one run, with their single run times.

        Raises:
            InputError: no run has this id.
        """
        query = sa.select(_MEASUREMENTS).where(_MEASUREMENTS.c.run_id == run_id).order_by(_MEASUREMENTS.c.id)
        with self._transaction() as connection:
            rows = connection.execute(query).mappings().all()
        if not rows:
            raise InputError(f"the store has no run {run_id!r}: see edgeopt history.")
        return [record_from_json(json.loads(row["record"]), json.loads(row["samples"])) for row in rows]

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _create(self, untouched: bool) -> None:
        statements: list[sa.Executable] = [
            sa.schema.CreateTable(t, if_not_exists=True) for t in _TABLES.sorted_tables
        ]
        indexes: list[sa.Executable] = [
            sa.schema.CreateIndex(index, if_not_exists=True)
            for table in _TABLES.sorted_tables
            for index in table.indexes
        ]
        # PostgreSQL's IF NOT EXISTS still collides when two create at the same moment: try again.
        for attempt in range(5):
            try:
                with self._engine.begin() as connection:
                    for statement in [] if untouched else [*statements, *indexes]:
                        connection.execute(statement)
                    query = sa.select(_META.c.value).where(_META.c.key == "schema_version")
                    version = connection.execute(query).scalar()
                    if version is None:
                        connection.execute(
                            _META.insert(), {"key": "schema_version", "value": str(_SCHEMA_VERSION)}
                        )
                break
            except (IntegrityError, ProgrammingError, OperationalError) as error:
                if attempt == 4:
                    raise self._failure("can't be opened", error) from error
                time.sleep(0.05 * 2**attempt)
            except DBAPIError as error:
                raise self._failure("can't be opened", error) from error
        if version is not None and int(version) > _SCHEMA_VERSION:
            raise InputError(f"the store {_safe(self.url)} was written by a newer edgeopt: upgrade edgeopt.")

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise self._failure("failed", error) from error

    def _failure(self, what: str, error: Exception) -> EdgeoptError:
        said = _short(error)
        # A full disk is told like everywhere else, where it is the user's to mend and no failure of ours. SQLite
        # also calls it an I/O error, when the memory that readers share can't grow.
        if "disk is full" in said or ("disk I/O error" in said and self._no_space()):
            return InputError(
                f"the store {_safe(self.url)} {what}: its disk is full; free some space, or give another --store."
            )
        helps = next((advice for words, advice in _HELP.items() if re.search(words, said)), "")
        return EdgeoptError(f"the store {_safe(self.url)} {what}: {said}{f'; {helps}' if helps else ''}.")

    def _no_space(self) -> bool:
        database = sa.make_url(self.url).database if self._is_sqlite else None
        return database is not None and disk_usage(Path(database).parent).free < _SHARED_MEMORY_BYTES


def default_path() -> Path:
    """Where the SQLite store lies: ``$EDGEOPT_DATA_DIR`` or the user's data folder."""
    override = os.environ.get("EDGEOPT_DATA_DIR")
    if override:
        return Path(override).expanduser() / "results.sqlite"
    from platformdirs import user_data_dir

    return Path(user_data_dir("edgeopt", appauthor=False)) / "results.sqlite"


_REQUIRED = tuple(
    one.name for one in fields(Record) if one.default is MISSING and one.default_factory is MISSING
)


def record_from_json(found: dict[str, Any], samples: Sequence[Sequence[float]] = ()) -> Record:
    """A record out of its JSON object; keys it doesn't know are left out.

    Raises:
        InputError: a key that every record has is missing.
    """
    known = {key: value for key, value in found.items() if key in Record.__dataclass_fields__}
    ci95 = known.get("ci95")
    if missing := [key for key in _REQUIRED if key not in known]:
        raise InputError(f"this is not a measurement of edgeopt: it has no {', '.join(missing)}.")
    known["ci95"] = (float(ci95[0]), float(ci95[1])) if ci95 else None
    known["warnings"] = tuple(known.get("warnings") or ())
    known["samples"] = tuple(tuple(one) for one in samples)
    return Record(**known)


def _row(run_id: str, record: Record) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "metric": record.metric,
        "value": record.value,
        "artifact": record.artifact,
        "artifact_sha256": record.artifact_sha256,
        "target": record.target,
        "device": str(record.conditions.get("device", "")),
        "threads": record.threads,
        "record": json.dumps(record.as_json()),
        "samples": json.dumps([[round(t, 6) for t in one] for one in record.samples]),  # to a nanosecond
    }


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=60000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _without_writing(url: sa.URL, file: Path) -> tuple[sa.URL, bool]:
    """(where to read from, whether that is a file as it stands): SQLite lays files beside a database, even to read.

    Where it can, ``url`` is all right. Else a file is read as it stands, unless a writer that was killed left
    what belongs into it beside it; without a file an empty store in memory stands for it.
    """
    place = next(p for p in (file.parent, *file.absolute().parents) if p.exists())
    if os.access(place, os.W_OK) and disk_usage(place).free >= _SHARED_MEMORY_BYTES:
        return url, False
    if not file.exists() or not file.stat().st_size:
        return sa.make_url("sqlite://"), False
    log = file.with_name(f"{file.name}-wal")
    if log.exists() and log.stat().st_size:
        return url, False
    return url.set(
        database=f"file:{quote(str(file.absolute()))}", query={"immutable": "1", "uri": "true"}
    ), True


def _safe(url: str) -> str:
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "(unreadable URL)"


def _short(error: Exception) -> str:
    text = str(getattr(error, "orig", None) or error)
    return " ".join(text.split())[:200].rstrip(".")
