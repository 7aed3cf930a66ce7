"""Plots of the findings, as PNG files (matplotlib)."""

from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from tests.bench.vm.findings import OURS, Findings

_COLOURS: Final = ("#1b6ca8", "#9aa0a6", "#c5c8cc", "#e07a5f", "#81b29a", "#f2cc8f", "#b07aa1")


def draw(findings: Findings, folder: Path) -> list[Path]:
    """Draw everything that was measured; return the files."""
    drawn = []
    if findings.workloads:
        drawn += [_bars(findings, folder / "peers.png"), _cpu(findings, folder / "cpu.png")]
    if findings.of("scaling"):
        drawn.append(_scaling(findings, folder / "scaling.png"))
    return drawn


def _bars(findings: Findings, path: Path) -> Path:
    """Commands a second of everybody, a picture for each workload; whiskers from the least to the most."""
    workloads, names = findings.workloads, findings.contestants
    rows = -(-len(workloads) // 3)
    figure, grid = plt.subplots(rows, 3, figsize=(13, 2.6 * rows), squeeze=False)
    for axes in grid.flat[len(workloads) :]:
        axes.axis("off")
    for axes, workload in zip(grid.flat, workloads, strict=False):
        values = [findings.values(workload, name) for name in names]
        middles = [findings.median(workload, name) for name in names]
        errors = [
            [middle - min(found) for middle, found in zip(middles, values, strict=True)],
            [max(found) - middle for middle, found in zip(middles, values, strict=True)],
        ]
        axes.barh(names, middles, xerr=errors, color=_COLOURS, error_kw={"lw": 0.8})
        axes.invert_yaxis()
        axes.set_title(workload, fontsize=9)
        axes.tick_params(labelsize=7)
    return _save(figure, path, "commands a second: medians, least and most")


def _cpu(findings: Findings, path: Path) -> Path:
    """CPU time of the whole machine for a command."""
    workloads = findings.workloads
    figure, axes = plt.subplots(figsize=(13, 5))
    names = findings.contestants
    width = 0.8 / len(names)
    for index, (name, colour) in enumerate(zip(names, _COLOURS, strict=False)):
        places = [place + index * width for place in range(len(workloads))]
        heights = [findings.median(workload, name, "machine_us") for workload in workloads]
        axes.bar(places, heights, width, label=name, color=colour)
    axes.set_xticks([place + 0.4 for place in range(len(workloads))], workloads, rotation=25, ha="right")
    axes.tick_params(labelsize=7)
    axes.set_yscale("log")
    axes.legend(fontsize=7)
    return _save(figure, path, "CPU time of the machine for a command, in microseconds (fio's included)")


def _scaling(findings: Findings, path: Path) -> Path:
    """Commands a second over LUNs, a line for each number of engines."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for engines, by_luns in findings.scaling().items():
        axes.plot(
            list(by_luns), list(by_luns.values()), marker="o", label=f"{engines} engine{'s'[: engines - 1]}"
        )
    axes.set_xlabel("LUNs")
    axes.set_ylim(bottom=0)
    axes.legend()
    return _save(figure, path, f"{OURS}: 4 KiB random reads a second, depth 8 on each LUN")


def _save(figure: plt.Figure, path: Path, title: str) -> Path:
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)
    return path
