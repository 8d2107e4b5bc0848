"""Pieces of alerts' texts, in Prometheus' templates. Labels are `$labels`, the expression's value is `$value`."""


def number(form: str) -> str:
    """The value, as Go's printf writes it."""
    return f'{{{{ $value | printf "%{form}" }}}}'


def label(name: str) -> str:
    """A label's value."""
    return f"{{{{ $labels.{name} }}}}"


AMOUNT = number(".5g")
"""Five digits: 16.4, 12345, 0.00024726. A run may emit a gram or a tonne."""

PERCENT = "{{ $value | humanizePercentage }}"

OF_WHAT = f"{label('project_name')}: run {label('run_id')}"

WHOSE_BUDGET = (
    f"{{{{ if $labels.run_id }}}}run {label('run_id')} ({label('project_name')}){{{{ else }}}}project {label('project_name')}"
    f'{{{{ end }}}}{{{{ if ne $labels.period "none" }}}} for this {label("period")} (UTC){{{{ end }}}}'
)


def queried(times: str, run: str, project: str) -> str:
    """What Prometheus answers to a query, times something, of the alert's run or else its project.

    `%[2]q` in the query is the run_id or project_name, quoted, and `%[3]g` the alert's value.
    """

    def asked(query: str, name: str) -> str:
        answer = '{{ . | first | value | printf "%.5g" }}'
        return f"{{{{ with query (printf `%[1]g * ({query})` {times} $labels.{name} $value) }}}}{answer}{{{{ end }}}}"

    return f"{{{{ if $labels.run_id }}}}{asked(run, 'run_id')}{{{{ else }}}}{asked(project, 'project_name')}{{{{ end }}}}"
