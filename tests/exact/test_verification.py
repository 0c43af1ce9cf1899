"""``mulligan verify``: every id of the theory page, one family-wise level, exit code 1 where something fails."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mulligan.cli import main
from mulligan.lab import identity as harness
from mulligan.lab.identity import Check, Identity, identities, monte_carlo
from mulligan.lab.verification import judge, threshold, verify

THEORY = Path(__file__).parents[3] / "shared" / "THEORY.md"


def _noise(seed, *, shift=0.0):
    return monte_carlo({"": (shift, 0.0, 1.0)})


def _planted(shift, wrong=9.0):
    return Identity(
        "x.y",
        1,
        "0 = 0",
        "monte-carlo",
        lambda seed, **parts: _noise(seed, **{"shift": shift, **parts}),
        {"moved": {"shift": wrong}},
    )


@pytest.mark.skipif(not THEORY.exists(), reason="the theory page is not part of the package")
def test_every_id_of_the_theory_page_is_an_identity():
    known = {each.id for each in identities()}
    asked = set()
    for line in THEORY.read_text().splitlines():
        if line.startswith("- `"):
            head = re.match(r"- ((?:`[a-z_.]+`(?:, )?)+)( \[E\])?", line)
            if head and not head[2]:
                asked |= set(re.findall(r"`([a-z_.]+)`", head[1]))
    assert len(asked) > 40
    assert asked <= known, sorted(asked - known)


def test_bonferroni():
    assert threshold(1) == pytest.approx(3.2905, abs=1e-4)
    assert threshold(100) > threshold(10)


def test_a_comparison_is_judged_at_the_level_of_its_family():
    assert verify([_planted(3.2)]).holds
    assert not verify([_planted(3.4)]).holds
    assert verify([_planted(3.4), _planted(0.0)]).holds
    assert judge(Check(1.0, 0.0, float("nan"), 1.0, "holds", "monte-carlo"), 9.0).verdict == "fails"


@pytest.mark.parametrize(
    ("shift", "wrong", "flags", "code"),
    [(0.0, 9.0, ["--sabotage"], 0), (9.0, 9.0, [], 1), (0.0, 0.0, ["--sabotage"], 1)],
)
def test_exit_code(monkeypatch, capsys, shift, wrong, flags, code):
    monkeypatch.setattr(harness, "identities", lambda chapter=None: (_planted(shift, wrong),))
    assert main(["verify", "--json", *flags]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["identities"][0]["verdict"] == ("fails" if shift else "holds")
    assert found["family"]["comparisons"] == 1


def test_unknown_id_names_the_nearest(capsys):
    assert main(["verify", "density.jiont"]) == 2
    assert "density.joint" in capsys.readouterr().err
