"""The plain reading: a few sentences, each of which follows from numbers of the report.

Rules. Two families are told apart only where the 95 % interval of their *paired* difference excludes 0, and the smallest
gap to a known law is of every family whose interval overlaps. A bound speaks for one side. What the rows are too few to
show is said with a number: about 2·(median stderr of the differences).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mulligan.quantity import Quantity, verdict
from mulligan.report.cells import COPYING, label, ordered, unit
from mulligan.report.formatting import auc, count, decimals, fixed, interval, listed, one_line, share

Family = Mapping[str, Any]
CLOSE = 0.3  # nats a row: a simpler family whose interval does not go further below is worth trying first
FEW_ROWS = 200
CHANCE = 0.5
SAMPLE_BASELINE = "resample"  # draws training rows: what perfect-looking samples without a model score


def reading(report: Mapping[str, Any]) -> list[str]:
    """What the numbers allow one to say, in at most six short paragraphs of one or two sentences.

    They tell, in this order: which families cannot be told apart from the reference and which are worse, and by how
    much; what bounds leave open and who has no log p; the family with the fewest parameters among the close ones; what
    the samples miss; what failed; and which differences these rows cannot show.

    >>> reading({"families": [], "reference": None, "split": {"test": 0}})
    ['No family has been fitted: nothing can be concluded.']
    """
    if not report["families"]:
        return ["No family has been fitted: nothing can be concluded."]
    fitted = [family for family in ordered(report) if family["status"] == "ok"]
    paragraphs = [
        _ranking(report, fitted),
        _open_questions(report, fitted),
        _simplest(report, fitted),
        _samples(fitted),
        _failures(report),
        _limits(report, fitted),
    ]
    return [paragraph for paragraph in paragraphs if paragraph]


def _compared(report: Mapping[str, Any], fitted: Sequence[Family]) -> list[tuple[Family, Quantity]]:
    """Families that have a difference to the reference, with it."""
    pairs = []
    for family in fitted:
        delta = family.get("delta_to_best")
        if delta and delta["kind"] != "none" and family["family"] != report.get("reference"):
            pairs.append((family, Quantity.from_json(delta)))
    return pairs


def _test_rows(report: Mapping[str, Any], fitted: Sequence[Family]) -> int | None:
    """Rows that the log p of the families stands on; the law's 100 000 draws of a truth gap do not count."""
    stated = (family["log_prob"].get("n") for family in fitted if family["log_prob"]["kind"] != "none")
    return next((n for n in stated if n), report["split"].get("test"))


def _reference(report: Mapping[str, Any], fitted: Sequence[Family]) -> Family | None:
    return next((family for family in fitted if family["family"] == report.get("reference")), None)


def _ranking(report: Mapping[str, Any], fitted: Sequence[Family]) -> str:
    reference = _reference(report, fitted)
    if reference is None:
        return "No family is the reference, so no differences were taken: rank nothing by this report."
    name, pairs = label(reference), _compared(report, fitted)
    head = f"{name} was best on the select rows, so differences are taken against it."
    sentences = [head]
    tied = [label(f) for f, d in pairs if d.two_sided and d.low is not None and verdict(d) == "undecided"]
    if tied:
        rows = _test_rows(report, fitted)
        on = f" on these {count(rows)} test rows" if rows else ""
        sentences.append(f"{listed(tied)} cannot be told apart from it at 95 %{on}.")
    measure = unit(report)
    for word, side in (("Worse", "lower"), ("Better", "higher")):
        found = [f"{label(f)} by {_size(d)}" for f, d in pairs if verdict(d) == side]
        if found:
            sentences.append(f"{word} on the test rows: {'; '.join(found)} ({measure}, 95 % interval).")
    gaps = _nearest(fitted)
    if gaps:
        names = "; ".join(
            f"{label(f)}, {fixed(gap.value, decimals(gap.stderr))} ({interval(gap.to_json())})" for f, gap in gaps
        )
        subject = (
            "the smallest gap to it is that of" if len(gaps) == 1 else "by their intervals the smallest gap may be of"
        )
        sentences.append(f"The law is known; {subject} {names} {measure}.")
    if pairs or gaps:
        sentences.append("Each 95 % interval holds by itself, not all of them jointly.")
    return " ".join(sentences)


def _nearest(fitted: Sequence[Family]) -> list[tuple[Family, Quantity]]:
    """The families whose gap to the law may be the smallest: their intervals overlap that of the smallest value."""
    gaps = [(f, Quantity.from_json(f["truth_gap"])) for f in fitted if f.get("truth_gap")]
    stated = [(f, gap) for f, gap in gaps if gap.two_sided and gap.low is not None and gap.high is not None]
    stated.sort(key=lambda pair: pair[1].value or 0.0)
    return [(f, gap) for f, gap in stated if (gap.low or 0.0) <= (stated[0][1].high or 0.0)]


def _size(difference: Quantity) -> str:
    """A difference as a positive size with its interval; only the side that a bound claims."""
    digits = decimals(difference.stderr)
    ends = sorted(abs(end) for end in (difference.low, difference.high) if end is not None)
    if len(ends) == 1:
        return f"at least {fixed(ends[0], digits)}"
    return f"{fixed(abs(difference.value or 0.0), digits)} ({fixed(ends[0], digits)} to {fixed(ends[1], digits)})"


def _open_questions(report: Mapping[str, Any], fitted: Sequence[Family]) -> str:
    """What one-sided numbers leave open, what is not finite, and who has no number at all."""
    sentences = []
    pairs = _compared(report, fitted)
    for kind, word in (("lower bound", "worse"), ("upper bound", "better")):
        names = [label(f) for f, d in pairs if d.kind == kind and verdict(d) == "undecided"]
        if names:
            subject = f"The bounds of {listed(names)} do" if len(names) > 1 else f"The bound of {names[0]} does"
            verb = "they are" if len(names) > 1 else "it is"
            sentences.append(f"{subject} not show that {verb} {word} than the reference.")
    as_bounds = [label(f) for f, d in pairs if d.note.startswith("difference of two")]
    if as_bounds:
        sentences.append(f"Compared as bounds, not as log p: {listed(as_bounds)} and the reference.")
    infinite = [f for f in fitted if f["log_prob"]["kind"] != "none" and f["log_prob"]["value"] is None]
    if infinite:
        why = _reasons(infinite, lambda f: f["log_prob"]["note"])
        sentences.append(f"The mean log p is not finite, which ranks nothing: {why}.")
    without = [f for f in fitted if f["log_prob"]["kind"] == "none"]
    if without:
        why = _reasons(without, lambda f: f["log_prob"]["note"])
        sentences.append(f"Without a log p, so judged by samples only: {why}.")
    return " ".join(sentences)


def _reasons(families: Sequence[Family], note: Callable[[Family], str | None]) -> str:
    """Names with their reasons, as one list."""
    texts = [(label(family), one_line(note(family) or "").rstrip(".")) for family in families]
    return "; ".join(f"{name} ({why})" if why else name for name, why in texts)


def _simplest(report: Mapping[str, Any], fitted: Sequence[Family]) -> str:
    """The family with the fewest parameters among those shown to be within CLOSE of the reference, if it is another.

    Shown means by the whole interval: its lower end decides, not the value.
    """
    reference = _reference(report, fitted)
    if reference is None:
        return ""
    close = [(f, d) for f, d in _compared(report, fitted) if d.low is not None and d.low >= -CLOSE]
    close = [(f, d) for f, d in close if f.get("parameters") is not None]
    if not close:
        return ""
    family, delta = min(close, key=lambda pair: pair[0]["parameters"])
    most = reference.get("parameters")
    if most is not None and family["parameters"] >= most:
        return ""
    rival = "" if most is None else f" against {count(most)}"
    size = fixed(delta.value, decimals(delta.stderr))
    return (
        f"{label(family)} has the fewest parameters ({count(family['parameters'])}{rival}) of the families "
        f"shown to be at most {CLOSE} {unit(report)} below the reference (difference {size}, 95 % interval "
        f"{interval(delta.to_json())}): try it first if you want simplicity."
    )


def _samples(fitted: Sequence[Family]) -> str:
    """What a classifier sees in the samples, and which holes they miss."""
    judged = [f for f in fitted if f.get("two_sample_auc") and f["two_sample_auc"].get("low") is not None]
    baseline = next((f for f in judged if f["family"] == SAMPLE_BASELINE), None)
    models = [f for f in judged if f is not baseline]
    told = [f for f in models if f["two_sample_auc"]["low"] > CHANCE]
    told.sort(key=lambda f: -f["two_sample_auc"]["value"])
    sentences = []
    if told:
        names = listed([f"{label(f)} ({auc(f['two_sample_auc'])})" for f in told])
        sentences.append(
            f"A classifier tells these samples from real rows (95 % interval of the AUC above .5): {names}."
        )
    elif models:
        sentences.append(
            "The classifier tells no family's samples from real rows at 95 %, which does not show equality."
        )
    if baseline is not None:
        quantity = baseline["two_sample_auc"]
        known = f"{label(baseline)}, which is no model and only repeats training rows, gets {auc(quantity)}"
        if quantity["low"] > CHANCE:
            known += ": even real training rows are told apart, so read every AUC against that one and not against .5"
        sentences.append(f"{known}.")
    sentences += _use([f for f in models if f.get("use") and f["use"]["difference"].get("high") is not None])
    sentences += _likeness([f for f in fitted if f["family"] != SAMPLE_BASELINE and f.get("samples")])
    missing = [f for f in fitted if f.get("holes") and f["holes"]["found"] < f["holes"]["of"]]
    if missing:
        texts = [f"{label(f)} {count(f['holes']['of'] - f['holes']['found'])} of {f['holes']['of']}" for f in missing]
        sentences.append(f"Holes that the samples miss: {listed(texts)}.")
    return " ".join(sentences)


def _likeness(models: Sequence[Family]) -> list[str]:
    """Which samples leave data unreached (where no holes are known), and which are copies."""
    sentences = []
    short = [f for f in models if not f.get("holes") and _high(f, "coverage") < f["samples"]["expected_coverage"]]
    if short:
        expected = share(short[0]["samples"]["expected_coverage"])
        names = listed([f"{label(f)} ({auc(f['samples']['coverage'])})" for f in short])
        sentences.append(f"Samples that leave part of the data unreached (coverage below {expected}): {names}.")
    copied = [f for f in models if _value(f, "copied_p") <= COPYING]
    if copied:
        names = listed([f"{label(f)} (copied share {share(_value(f, 'copied'))})" for f in copied])
        sentences.append(f"Samples nearer to training rows than to test rows, beyond chance: {names}.")
    return sentences


def _use(models: Sequence[Family]) -> list[str]:
    """Which samples teach a predictor less than as many real rows do."""
    less = [f for f in models if f["use"]["difference"]["high"] < 0]
    less.sort(key=lambda f: f["use"]["difference"]["value"])
    if less:
        sizes = [(f, f["use"]["difference"]) for f in less]
        names = listed([f"{one_line(f['family'])} ({fixed(d['value'], 2)}, {_between(d)})" for f, d in sizes])
        return [f"A predictor learns less from these samples than from as many real rows (share explained): {names}."]
    return ["No family's samples are shown to teach a predictor less than real rows do."] if models else []


def _between(quantity: Mapping[str, Any]) -> str:
    return f"{fixed(quantity['low'], 2)} to {fixed(quantity['high'], 2)}"


def _value(family: Family, name: str) -> float:
    value = (family["samples"].get(name) or {}).get("value")
    return 1.0 if value is None else float(value)


def _high(family: Family, name: str) -> float:
    high = family["samples"][name].get("high")
    return 1.0 if high is None else float(high)


def _failures(report: Mapping[str, Any]) -> str:
    failed = [f for f in report["families"] if f["status"] == "failed"]
    return f"Failed, and so not judged: {_reasons(failed, lambda f: f['reason'])}." if failed else ""


def _limits(report: Mapping[str, Any], fitted: Sequence[Family]) -> str:
    """What these rows are too few to show."""
    rows = _test_rows(report, fitted)
    errors = [d.stderr for _, d in _compared(report, fitted) if d.stderr]
    if not fitted or not rows:
        return ""
    if errors:
        smallest = 2 * statistics.median(errors)
        seen = f"differences smaller than about {fixed(smallest, decimals(smallest))} {unit(report)} cannot be seen"
    else:
        widths = [(f["two_sample_auc"]["stderr"] or 0) for f in fitted if f.get("two_sample_auc")]
        if not any(widths):
            return ""
        seen = f"an AUC within about {share(2 * statistics.median(widths))} of .50 cannot be told from chance"
    only = " That is few: treat every ranking here as provisional." if rows < FEW_ROWS else ""
    return f"On {count(rows)} test rows {seen}.{only}"
