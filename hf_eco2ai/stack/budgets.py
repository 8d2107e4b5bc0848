"""Shares of budgets that are used, one value per budget, as alerts and recording rules ask for them.

A budget is a run's, or its project's; then each of the project's runs tells of the same one. It is spent at its limit (>=), as
for the training itself, which stops there with `budget_action="stop"`.
"""

from hf_eco2ai.stack.promql import once, seconds, who, with_model

BUDGET = ("budget", "scope", "period")
SERIES = "on (run_id, job, instance)"
"""What one target says of one run."""

USED = "budget:hf_training_budget_used_ratio:max"
"""The recording rule of `used()`: what is served now."""

ALIKE_SECONDS = 120
"""Runs of a project that live know the same of it. After as long a run counts as stale (`stale_seconds`)."""

_OF_DAY = "time() % 86400"
_OF_MONTH = "86400 * (scalar(day_of_month()) - 1) + time() % 86400"
"""Seconds since the day or month began (UTC)."""

_UPDATED = once("hf_training_last_update_timestamp", "run_id", "job", "instance")


def used(kind: str = "", kept: str = "") -> str:
    """Share used of budgets of a kind, or of all kinds: those of runs with run_id, those of projects without.

    A run's own endpoint goes away with it, and its alert would be announced as resolved one scrape later. So where nothing is
    said any more, what was recorded last counts for as long as `kept`. It is no `keep_firing_for`, since a budget that was
    raised, or has begun anew with the day, is spent no more at once.
    """
    if not kept:
        return f"({_told(kind, '')})"
    return f"({_told(kind, kept)}\nor on (run_id, project_name, budget) ({_remembered(kind, kept)}))"


def _told(kind: str, named: str) -> str:
    """What is told now; `named` is a window for names, as of `who`."""

    def shares(scope: str, run: str = "!=") -> str:
        of_kind = f'budget="{kind}", ' if kind else ""
        return f'hf_training_budget_used_ratio{{{of_kind}scope="{scope}", run_id{run}""}}'

    of_runs = once(f"{shares('run')} unless {_former()}", "run_id", *BUDGET)
    of_projects = once(_newest(shares("project")), "run_id", *BUDGET)
    known = f"{of_projects} * on (run_id) group_left (project_name) {who(named)}"
    return (
        f"{with_model(of_runs, named)}"
        f"\nor {once(known, 'project_name', *BUDGET)}"
        f"\nor {once(_newest(shares('project', '=')), 'project_name', *BUDGET)}"
    )


def _former() -> str:
    """Right side of `unless`: of periods that are over, since a run that has ended says for good what it said last."""
    day = f'label_replace({_UPDATED} < time() - {_OF_DAY}, "period", "day", "", "")'
    month = f'label_replace({_UPDATED} < time() - ({_OF_MONTH}), "period", "month", "", "")'
    return f"on (run_id, job, instance, period) ({day} or {month})"


def _newest(shares: str) -> str:
    """What the runs of a project say that live, or ended last: they know more than others, or have a budget that was raised."""
    when = f"({shares} * 0 + {SERIES} group_left () {_UPDATED})"
    newest = once(when, "project_name", "budget")
    return f"{shares} unless {_former()}\nunless {when} < on (project_name, budget) group_left () ({newest} - {ALIKE_SECONDS})"


def _remembered(kind: str, kept: str) -> str:
    """What was recorded last, in the present day or month. What was said of `other` was said of several projects."""

    def last(whose: str) -> str:
        return f'last_over_time({USED}{{budget="{kind}", {whose}}}[{kept}])'

    of_runs = with_model(once(last('run_id!=""'), "run_id", *BUDGET), kept)
    day = f'label_replace(vector({_OF_DAY}) < {seconds(kept)}, "period", "day", "", "")'
    month = f'label_replace(vector({_OF_MONTH}) < {seconds(kept)}, "period", "month", "", "")'
    of_projects = last('run_id="", project_name!="other"')
    return f"({of_runs}\nor {of_projects})\nunless on (period) ({day} or {month})"


def burning(kind: str, times: str, long: tuple[str, int], short: tuple[str, int]) -> str:
    """How many times as fast as the pace that would just spend the budget, over the long window: where more than `times` in both.

    The pace of a run's budget is the budget over the whole duration of the run at its present speed, which is its time to go over
    the share that is left to do. That of a day's or month's is the budget over the day or the month (UTC). A project's budget
    without a period has none. Only budgets that would be spent before that end, and are not spent yet.

    Windows come with their seconds. They are full or say nothing: a resumed run comes with a share used that is not of that hour.
    """
    today = "time() % 86400"
    month = "(scalar(days_in_month()) * 86400)"
    left_of_month = f"((scalar(days_in_month() - day_of_month()) + 1) * 86400 - {today})"
    to_go = once("hf_training_eta_seconds", "run_id")
    of_run = "on (run_id) group_left () "

    def fast(which: str, whole: str, left: str) -> str:
        share = f'{USED}{{budget="{kind}", {which}}}'
        in_long, in_short = (f"({share} - {share} offset {window}) / {seconds}" for window, seconds in (long, short))
        return (
            f"({in_long} * {whole} > {times}\nand {in_short} * {whole} > {times}"
            f"\nand {share} + {in_long} * {left} >= 1\nand {share} < 1)"
        )

    return "\nor ".join(
        (
            fast(
                'scope="run", period="none"',
                f"{of_run}({to_go} / (1 - {once('hf_training_progress_ratio', 'run_id')}))",
                f"{of_run}({to_go})",
            ),
            fast('period="day"', "86400", f"(86400 - {today})"),
            fast('period="month"', month, left_of_month),
        )
    )
