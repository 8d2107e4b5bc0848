"""What the runs of a project have used in a period, against sums made by hand."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.folder import RunsFolder
from hf_eco2ai.journal.format import Header
from hf_eco2ai.journal.read import Refused
from hf_eco2ai.journal.spending import Spending
from hf_eco2ai.records import Footprint, HostTotals
from tests.journal.make import BEGAN, as_bytes, header, here, host_totals, identity, put, used

MIDNIGHT = BEGAN + 1000
"""The period begins a thousand seconds after the journals do."""

Line = tuple[float, float]
"""Seconds after the begin, and joules used until then."""


def run(
    folder: Path,
    run_id: str,
    *written: Line,
    end: bool = True,
    project: str = "llama-finetune",
    elsewhere: Mapping[str, tuple[float, ...]] | None = None,
    changed: float | None = None,
    host: str = "node1",
    number: int = 1,
    **more: Any,
) -> Path:
    """A journal of lines; `elsewhere` is what other hosts had used at each of them."""
    begin = header(
        run=lines.run(identity(run_id=run_id, project_name=project)),
        host=host,
        attempt=number,
        **{"launch": f"{run_id}/{number}", **more},
    )
    return put(folder, [begin, *_lines(begin, written, end, elsewhere or {})], changed=changed or BEGAN + written[-1][0])


def _lines(begin: Header, written: tuple[Line, ...], end: bool, elsewhere: Mapping[str, tuple[float, ...]]) -> list[Any]:
    def others(n: int) -> list[lines.HostUsed]:
        return [lines.host_used(host_totals(host, joules[n], cost_per_joule=0.5)) for host, joules in elsewhere.items()]

    last = len(written) - 1
    return [
        used(
            joules,
            at=at,
            header=begin,
            end=end and n == last,
            elsewhere=others(n),
            used=lines.host_used(host_totals(begin.host, joules, cost_per_joule=0.5)),
        )
        for n, (at, joules) in enumerate(written)
    ]


class Project:
    """A project seen from our own run, with what cannot be read."""

    def __init__(self, folder: Path, *, run_id: str = "own", launch: str = "own/9", currency: str = "EUR") -> None:
        self.refused: list[Refused] = []
        self.folder = folder
        self.spending = Spending(
            RunsFolder(folder, here(), self.refused.append), "llama-finetune", run_id, currency, launch=launch
        )

    def others(self, since: float = MIDNIGHT) -> Footprint:
        return self.spending.since(since, Footprint()).others


def joules(amount: float) -> Any:
    """With a tenth in grams and half in money, as all footprints here."""
    around: Any = pytest.approx
    return Footprint(amount, around(amount / 10), around(amount / 2))


def test_what_runs_have_used_in_a_period_is_what_they_used_less_what_they_had_used_before_it(tmp_path: Path) -> None:
    run(tmp_path, "before", (500, 70), (900, 90))
    run(tmp_path, "across", (500, 10), (999, 25), (1001, 26), (2000, 100))
    run(tmp_path, "within", (1100, 7), (1200, 11))
    assert Project(tmp_path).others() == joules(75 + 11)


def test_without_a_period_all_counts(tmp_path: Path) -> None:
    run(tmp_path, "before", (500, 70), (900, 90))
    run(tmp_path, "across", (999, 25), (2000, 100))
    spent = Project(tmp_path).spending.since(0.0, Footprint(40, 4))
    assert spent.others == joules(190)
    assert spent.not_counted == Footprint()


def test_a_line_at_the_very_begin_of_a_period_is_before_it(tmp_path: Path) -> None:
    run(tmp_path, "across", (1000, 25), (2000, 100))
    assert Project(tmp_path).others() == joules(75)


def test_a_project_without_runs_has_spent_nothing(tmp_path: Path) -> None:
    assert Project(tmp_path / "missing").others() == Footprint()


def test_runs_of_other_projects_do_not_count(tmp_path: Path) -> None:
    run(tmp_path, "ours", (1100, 11))
    run(tmp_path, "theirs", (1100, 1000), project="another")
    assert Project(tmp_path).others() == joules(11)


def test_money_of_another_currency_is_left_out_and_its_energy_is_not(tmp_path: Path) -> None:
    run(tmp_path, "ours", (1100, 11))
    run(tmp_path, "dollars", (1100, 100), tariff=lines.Prices(per_kwh=0.5, currency="USD"))
    spent = Project(tmp_path).others()
    assert spent.joules == 111
    assert spent.grams == pytest.approx(11.1)
    assert spent.energy_cost == pytest.approx(5.5)


def test_a_run_that_was_resumed_in_the_period_counts_what_each_attempt_used_in_it(tmp_path: Path) -> None:
    run(tmp_path, "resumed", (500, 10), (1500, 60), end=False)
    run(tmp_path, "resumed", (1700, 5), (1800, 8), number=2, inherited=[lines.host_used(host_totals("node1", 60))])
    assert Project(tmp_path).others() == joules(50 + 8)


def test_hosts_with_journals_of_their_own_count_by_them_and_others_by_hearsay_once(tmp_path: Path) -> None:
    heard = {"node2": (20.0, 50.0), "node3": (1.0, 4.0)}
    run(tmp_path, "wide", (900, 10), (1100, 60), elsewhere=heard, launch="L")
    run(tmp_path, "wide", (900, 21), (1100, 52), host="node2", launch="L", leads=False)
    assert Project(tmp_path).others() == joules((60 - 10) + (52 - 21) + (4 - 1))


def test_a_copy_of_a_journal_counts_once(tmp_path: Path) -> None:
    path = run(tmp_path, "ours", (1100, 11))
    (tmp_path / "copy.ndjson").write_bytes(path.read_bytes())
    assert Project(tmp_path).others() == joules(11)


# What our own run has used


def own(folder: Path, inherited: float, **more: Any) -> Footprint:
    totals = host_totals("node1", inherited, cost_per_joule=0.5)
    return Project(folder, **more).spending.since(MIDNIGHT, totals.total).not_counted


def test_what_our_run_had_used_before_the_period_does_not_count_in_it(tmp_path: Path) -> None:
    """An earlier attempt: 10 J before midnight, 50 J after it. All 60 J are inherited."""
    run(tmp_path, "own", (500, 10), (1500, 60), end=False)
    assert own(tmp_path, 60) == joules(10)
    assert Project(tmp_path).others() == Footprint()


def test_what_our_run_uses_now_was_never_inherited(tmp_path: Path) -> None:
    run(tmp_path, "own", (500, 10), (1500, 60), end=False)
    run(tmp_path, "own", (1600, 7), number=9, end=False)
    run(tmp_path, "own", (1600, 5), number=9, host="node2", leads=False)  # Has ended already.
    assert own(tmp_path, 60) == joules(10)


def test_an_attempt_that_still_runs_is_ours_where_nobody_says_which_is(tmp_path: Path) -> None:
    run(tmp_path, "own", (500, 10), (1500, 60), end=True)
    begin = run(tmp_path, "own", (1600, 7), number=2, end=False)
    project = Project(tmp_path, launch="")
    project.spending = Spending(RunsFolder(tmp_path, here(alive={4711: 1000.0})), "llama-finetune", "own", "EUR")
    assert begin.exists()
    assert project.spending.since(MIDNIGHT, host_totals("node1", 60, cost_per_joule=0.5).total).not_counted == joules(10)


def test_where_the_journals_of_our_run_are_gone_nothing_it_inherited_counts(tmp_path: Path) -> None:
    """No journal says that it was used in the period."""
    assert own(tmp_path, 60) == joules(60)


# What is read


def test_only_what_has_changed_is_read_again(tmp_path: Path) -> None:
    """What is read now would be refused."""
    first, second = (run(tmp_path, run_id, (1100, 11)) for run_id in ("a", "b"))
    project = Project(tmp_path)
    assert project.others() == joules(22)
    for path in (first, second):
        status, size = path.stat(), path.stat().st_size
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert project.others() == joules(22)
    assert project.refused == []
    os.utime(second)
    assert project.others() == joules(11)
    assert {reason.path for reason in project.refused} <= {second}


def test_a_journal_that_has_grown_is_read_again(tmp_path: Path) -> None:
    run(tmp_path, "a", (1100, 11), end=False)
    project = Project(tmp_path)
    assert project.others() == joules(11)
    run(tmp_path, "a", (1100, 11), (1200, 30))
    run(tmp_path, "b", (1200, 1))
    assert project.others() == joules(31)


def test_a_journal_that_has_been_deleted_counts_no_more(tmp_path: Path) -> None:
    path = run(tmp_path, "a", (1100, 11))
    project = Project(tmp_path)
    assert project.others() == joules(11)
    path.unlink()
    assert project.others() == Footprint()


def test_journals_untouched_since_before_the_period_are_not_opened(tmp_path: Path) -> None:
    """Were it read, it would be refused."""
    path = run(tmp_path, "old", (500, 11))
    path.write_bytes(b"{damaged}\n")
    os.utime(path, (MIDNIGHT - 1, MIDNIGHT - 1))
    project = Project(tmp_path)
    assert project.others() == Footprint()
    assert project.refused == []


def test_a_new_period_begins_with_nothing(tmp_path: Path) -> None:
    run(tmp_path, "a", (1100, 11), (3000, 30))
    project = Project(tmp_path)
    assert project.others() == joules(30)
    assert project.others(MIDNIGHT + 1000) == joules(19)
    assert project.others(MIDNIGHT + 9000) == Footprint()


def test_a_damaged_journal_is_told_and_the_others_count(tmp_path: Path) -> None:
    run(tmp_path, "a", (1100, 11))
    (tmp_path / "damaged.ndjson").write_bytes(b"{}\n")
    (tmp_path / "folder.ndjson").mkdir()
    project = Project(tmp_path)
    assert project.others() == joules(11)
    assert {reason.path.name for reason in project.refused} == {"damaged.ndjson", "folder.ndjson"}


def test_a_run_that_has_written_only_its_header_has_used_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(as_bytes([header()]))
    assert Project(tmp_path).others() == Footprint()


def test_what_hosts_inherited_is_told_by_other_journals(tmp_path: Path) -> None:
    inherited: HostTotals = host_totals("node1", 500)
    run(tmp_path, "a", (1100, 11), inherited=[lines.host_used(inherited)])
    assert Project(tmp_path).others() == joules(11)
