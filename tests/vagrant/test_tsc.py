"""The rate of the processor's time stamp counter."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from vagrant.runner import tsc

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 processor")


def test_two_measurements_agree() -> None:
    one, other = tsc.measure(), tsc.measure()
    assert one == pytest.approx(other, rel=0.001)
    assert 100_000 < one < 20_000_000  # as kHz, that is a processor


def test_kernel_parameters() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vagrant.runner.tsc"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    reliable, rate = done.stdout.split(" ")
    assert reliable == "tsc=reliable"
    assert int(rate.removeprefix("tsc_early_khz=")) == pytest.approx(tsc.measure(), rel=0.001)


def test_another_processor_has_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert tsc.clock_options() == []
