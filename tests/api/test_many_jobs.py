"""Lists, figures and sweeps among very many ended jobs: each reads about as many rows as it answers with.

Judged by the rows that PostgreSQL looks at, not by a clock: what a busy machine needs for them says nothing.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from app.core.pagination import PageQuery
from app.core.unit import Services
from app.jobs import gauge, repository, retention
from app.jobs.states import JobStatus
from app.keys import quotas
from benchmarks.service import seed

OWNER, OTHER = "owner_" + "0" * 26, "owner_" + "1" * 26
OLD, QUEUED = 20_000, 200
FEW = 3 * QUEUED  # rows that an answer may cost: its own and, for figures, what waits


@pytest.fixture
def crowded(services: Services) -> Services:
    """Somebody's months of work, another one's few jobs among them, and a queue."""
    engine = services.engine
    model = seed.seed_model(engine, OWNER)
    seed.seed_jobs(engine, OWNER, model, OLD, JobStatus.SUCCEEDED, events=1)
    seed.seed_jobs(engine, OWNER, model, QUEUED, JobStatus.QUEUED)
    with engine.begin() as connection:
        # Spread over the whole time: a tenth failed, five belong to somebody else, five were cancelled.
        for change, every in (("status = 'failed'", 10), (f"owner_id = '{OTHER}'", OLD // 5)):
            number = "right(id, 24)::bigint"
            connection.execute(
                text(f"UPDATE jobs SET {change} WHERE result IS NOT NULL AND {number} % {every} = 1")
            )
        oldest = f"SELECT id FROM jobs WHERE owner_id = '{OWNER}' ORDER BY id LIMIT 5"
        connection.execute(text(f"UPDATE jobs SET status = 'cancelled' WHERE id IN ({oldest})"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
    return services


@pytest.fixture
def rows_read(crowded: Services) -> Iterator[Callable[[Callable[[Session], object]], int]]:
    """How many rows and index entries the statements of an action look at."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, _many: bool) -> None:
        statements.append((statement, parameters))

    event.listen(crowded.engine, "before_cursor_execute", note)

    def count(action: Callable[[Session], object]) -> int:
        statements.clear()
        with crowded.sessions() as session:
            action(session)
        asked = [pair for pair in statements if pair[0].lstrip().upper().startswith("SELECT")]
        assert asked
        return sum(_looked_at(crowded.engine, *pair) for pair in asked)

    yield count
    event.remove(crowded.engine, "before_cursor_execute", note)


def _looked_at(engine: Engine, statement: str, parameters: Any) -> int:
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        (plan,) = cursor.fetchone()[0]
        connection.rollback()
    return _scanned(plan["Plan"])


def _scanned(node: dict[str, Any]) -> int:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    own = node["Actual Rows"] + removed if "Scan" in node["Node Type"] else 0
    return round(own * node["Actual Loops"]) + sum(_scanned(child) for child in node.get("Plans", []))


Count = Callable[[Callable[[Session], object]], int]


def test_a_page_of_any_list_reads_about_a_pages_rows(rows_read: Count) -> None:
    """A list of nearly everything may step over the few that are something else."""
    for owner in (OWNER, OTHER):
        for status in (None, *JobStatus):
            read = rows_read(lambda s, o=owner, st=status: repository.page_of(s, o, PageQuery(), st))
            assert read <= 25 + QUEUED, f"{owner} {status}: {read} rows"


def test_a_page_deep_in_the_list_costs_what_the_first_does(rows_read: Count) -> None:
    deep = "job_00" + str(OLD // 2).zfill(24)
    page = PageQuery(after=deep)
    for status in (None, JobStatus.SUCCEEDED, JobStatus.FAILED):
        assert rows_read(lambda s, status=status: repository.page_of(s, OWNER, page, status)) <= 25


def test_the_figures_count_what_waits_not_what_was(rows_read: Count, crowded: Services) -> None:
    assert rows_read(lambda _: gauge.families(crowded.sessions, crowded.clock)) <= FEW


def test_a_quota_counts_what_is_active(rows_read: Count) -> None:
    assert rows_read(lambda session: quotas.active_jobs(session, OWNER)) <= FEW


def test_retention_looks_at_what_is_due(rows_read: Count, crowded: Services) -> None:
    long_ago = crowded.clock.now() - timedelta(days=3650)
    assert rows_read(lambda session: retention._ended(session, long_ago)) <= 5
