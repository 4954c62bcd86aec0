"""The table of a report, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from theworld.evaluation.outcomes import OUTCOMES
from theworld.evaluation.rows import TYPES, Row


def table_of(rows: Sequence[Row], *, title: str, caption: str) -> Table:
    """Rows as a table; of the outcomes that state nothing to score, those that occur have a column of counts.

    Args:
        rows: Groups, then types and everything.
        title: Above the table.
        caption: Below it.
    """
    table = Table(title=title, caption=caption, caption_justify="left")
    table.add_column("group", no_wrap=True)
    blind = ["blind"] if any(row.blind is not None for row in rows) else []
    unread = [outcome for outcome in OUTCOMES[2:] if any(row.outcomes[outcome] for row in rows)]
    for heading in ("n", "success", "95 % interval", "error", "constant*", *blind, "chance", *unread):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        following = rows[number + 1].name if number + 1 < len(rows) else ""
        is_total = row.name in (*TYPES, "overall")
        table.add_row(
            row.name,
            str(row.n),
            _percent(row.accuracy),
            f"{_percent(row.interval.low)} to {_percent(row.interval.high)}",
            _error(row),
            _percent(row.best_constant),
            *(_percent(row.blind) for _ in blind),
            _percent(row.chance),
            *(str(row.outcomes[outcome]) for outcome in unread),
            style="bold" if is_total else "",
            end_section=not is_total and following in (*TYPES, "overall"),
        )
    return table


def _error(row: Row) -> str:
    if row.relative_error is not None and row.degrees is not None:
        return f"{row.relative_error:.2f}, {row.degrees:.1f}\u00b0"
    if row.relative_error is not None:
        return f"{row.relative_error:.2f}"
    return "-" if row.degrees is None else f"{row.degrees:.1f}\u00b0"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
