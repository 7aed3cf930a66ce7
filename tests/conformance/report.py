"""A run of the conformance tests on a terminal: progress while it goes, then counts and failures."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.conformance.campaign import Campaign
from tests.conformance.verdict import OUTCOMES

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow", "crashed": "magenta"}


def progress(console: Console) -> Progress:
    """Return a progress bar whose tasks have a field `last`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}"),
        console=console,
    )


def print_all(campaign: Campaign, console: Console) -> None:
    """Print the counts, then what failed, with the reasons."""
    console.print(counts(campaign))
    for verdict, limit in campaign.failures():
        place = f"{verdict.test} ({verdict.profile}, {verdict.transport}) {verdict.outcome}"
        console.print(place, style="yellow" if limit else "bold red", markup=False, highlight=False)
        lines = [f"{limit.reason} ({limit.source})"] if limit else list(verdict.reasons)
        for line in lines:
            console.print(f"    {line}", markup=False, highlight=False)
    if campaign.missing:
        console.print(f"{len(campaign.missing)} tests were not run", style="bold red")


def counts(campaign: Campaign) -> Table:
    """Return the table of the counts: a row a lane, and what passes on some kind of disk."""
    table = Table(title=f"libiscsi's {len(campaign.tests)} tests, on Linux {campaign.kernel}")
    table.add_column("profile")
    table.add_column("over")
    for outcome in OUTCOMES:
        table.add_column(outcome, justify="right", style=_COLOURS[outcome])
    table.add_column("the transport's", justify="right")
    for lane in campaign.lanes:
        found = campaign.counts(lane)
        excused = sum(
            1
            for verdict, limit in campaign.failures()
            if limit and (verdict.profile, verdict.transport) == lane
        )
        table.add_row(*lane, *(str(found[outcome]) for outcome in OUTCOMES), str(excused))
    for transport in sorted({transport for _, transport in campaign.lanes}, reverse=True):
        table.add_row("any of them", transport, str(len(campaign.passed_somewhere(transport))))
    return table
