"""A door for others: a user's own log density, own network and own callback, from the fit to the model folder."""

from __future__ import annotations

import json
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared_fits import table

import mulligan as mg
from mulligan.compilations import compilations
from mulligan.core import Density, Sampler
from mulligan.errors import FormatError, UsageError
from mulligan.learners import watches
from mulligan.models.flow import make_flow


class Laplace(Density):
    """Independent Laplace laws; a NumPy field, which must be learned too."""

    kind: ClassVar[str] = "exact"
    mean: jax.Array
    log_scale: np.ndarray
    slope: jax.Array | None = None

    def log_prob(self, x, given=None):
        mean = self.mean if given is None else self.mean + self.slope @ given
        return jnp.sum(-jnp.abs(x - mean) / jnp.exp(self.log_scale) - self.log_scale - jnp.log(2.0))


class Drawn(Sampler, Density):
    """The same with draws, and an ``__init__`` of its own, which loading must not need."""

    kind: ClassVar[str] = "exact"
    mean: jax.Array
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, dim):
        self.mean, self.sizes = jnp.zeros(dim), (dim, 1)

    def log_prob(self, x, given=None):
        return jnp.sum(-jnp.abs(x - self.mean) - jnp.log(2.0))

    def sample(self, key, given=None):
        return self.mean + jax.random.laplace(key, self.mean.shape)


class MLP(eqx.Module):
    """A network with the name of one of ours; ``weights`` is decayed."""

    weights: jax.Array
    out: eqx.nn.Linear

    def __call__(self, x):
        return self.out(jnp.tanh(self.weights @ x))


def laplace(dim, generator, given=0):
    return Laplace(jnp.zeros(dim), np.zeros(dim, np.float32), jnp.zeros((dim, given)) if given else None)


def network(inputs, outputs, generator):
    linear = eqx.nn.Linear(7, outputs, key=jax.random.key(int(generator.integers(2**31))))
    return MLP(jnp.asarray(generator.normal(size=(7, inputs)), jnp.float32), linear)


def flow(dim, generator, given=0):
    return make_flow(dim, generator, given=given, network=network, layers=2, bins=4)


MINE = mg.Own(laplace, name="mine")
DRAWN = mg.Own(lambda dim, generator: Drawn(dim), name="drawn")
FLOW = mg.Own(flow, name="my-flow")


def fit(own=MINE, where="plane", steps=50, **more):
    return mg.fit(table(where), own, effort="quick", steps=steps, **more)


# --- own log density, own network -------------------------------------------------------------------------------------


def test_an_own_density_is_fitted_by_maximum_likelihood():
    """The maximum-likelihood Laplace law has the median as its mean, and the mean distance from it as its scale."""
    fitted = fit(steps=None, rate=0.1, batch=100_000)
    points = fitted.codec.encode(table("plane").values).flat
    distance = np.abs(points - np.median(points, axis=0)).mean(0)
    np.testing.assert_allclose(fitted.model.mean, np.median(points, axis=0), atol=0.15)
    np.testing.assert_allclose(np.exp(fitted.model.log_scale), distance, rtol=0.1)
    assert fitted.family == fitted.label == "mine" and fitted.log_prob_kind == "exact"
    assert fitted.card["row"]["parameters"] == 4 and fitted.card["row"]["strokes"] is None
    assert [choice["option"] for choice in fitted.card["row"]["choices"]] == ["decay=0"]  # it has no weight matrix
    assert "Own(build, name='mine')" in fitted.card["reproduce"]["command"]


@pytest.mark.parametrize("own", [MINE, DRAWN, FLOW], ids=lambda own: own.name)
def test_an_own_model_repeats_bit_for_bit_and_compiles_once(own):
    one = fit(own)
    with compilations() as seen:
        two = fit(own)
    assert seen.count == 0 and np.array_equal(one.log_prob(table("plane")), two.log_prob(table("plane")))


def test_only_a_sampler_is_drawn_from():
    assert fit().capabilities == ("Density",) and fit(DRAWN).capabilities == ("Sampler", "Density")
    assert fit(DRAWN).sample(5).values.shape == (5, 2)
    with pytest.raises(UsageError, match="mine cannot be drawn from"):
        fit().sample(5)


@pytest.mark.parametrize("own", [MINE, FLOW], ids=lambda own: own.name)
def test_an_own_model_is_conditional(own):
    fitted = fit(own, "mixed", given=["kind"])
    rows = table("mixed")
    other = rows.with_values(np.roll(rows.values, 1, axis=0))
    assert np.isfinite(fitted.log_prob(rows)).all() and not np.array_equal(
        fitted.log_prob(rows), fitted.log_prob(other)
    )
    if own is FLOW:
        assert set(fitted.sample(20, given={"kind": "red"})["kind"]) == {"red"}


def test_own_models_are_compared(tmp_path):
    options = {"mine": {"rate": 0.1}, "gmm": {"parts": 1}}
    card = mg.compare(table("plane"), ["mixture", MINE, DRAWN], effort="quick", options=options, out=tmp_path / "out")
    rows = {row["family"]: row for row in card.report["families"]}
    assert [row["status"] for row in rows.values()] == ["ok"] * 3 and list(rows) == ["mixture", "mine", "drawn"]
    assert rows["mine"]["two_sample_auc"] is None and rows["drawn"]["two_sample_auc"]["value"] > 0.5
    assert rows["mine"]["truth_gap"]["value"] > rows["mine"]["truth_gap"]["stderr"]
    assert (tmp_path / "out" / "index.html").is_file()
    with pytest.raises(UsageError, match="named twice"):
        mg.compare(table("plane"), [MINE, MINE])


class Each(Density):
    """log p of every coordinate: the sum is forgotten."""

    kind: ClassVar[str] = "exact"
    mean: jax.Array

    def log_prob(self, x, given=None):
        return -((x - self.mean) ** 2)


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda dim, generator: 3, "build returned a int, which is no Density"),
        (lambda dim, generator: Laplace(0.0, 0.0), "nothing to learn"),
        (lambda dim, generator: Each(jnp.zeros(dim)), r"is of shape \(2,\).*sum over the coordinates"),
    ],
)
def test_a_build_that_makes_no_density_is_refused(build, words):
    with pytest.raises(UsageError, match=words):
        fit(mg.Own(build, name="mine"))


@pytest.mark.parametrize("name", ["flow", "gmm", "coupling", "Mine", "a b", "../x", ""])
def test_a_name_that_is_taken_or_no_name_is_refused(name):
    with pytest.raises(UsageError, match="another name"):
        mg.Own(laplace, name=name)


def test_what_is_no_family_is_refused():
    for wrong in (laplace, 3, None):
        with pytest.raises(UsageError, match=r"mulligan\.Own\(build\)"):
            mg.fit(table("plane"), wrong)
    with pytest.raises(UsageError, match="a function: build"):
        mg.Own(3)


def test_a_network_of_the_wrong_shape_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"output has shape \(3,\)"):
        make_flow(2, rng, network=lambda inputs, outputs, generator: network(inputs, 3, generator))
    with pytest.raises(ValueError, match="leave one out"):
        make_flow(2, rng, network=network, autoregressive=True)


# --- model folders ----------------------------------------------------------------------------------------------------

CLASSES = {"mine": [Laplace], "drawn": [Drawn], "my-flow": [MLP, eqx.nn.Linear]}


@pytest.mark.parametrize("own", [MINE, DRAWN, FLOW], ids=lambda own: own.name)
def test_a_folder_of_an_own_model_needs_its_classes(own, tmp_path):
    fitted = fit(own)
    fitted.save(tmp_path / "model")
    with pytest.raises(FormatError) as raised:
        mg.load(tmp_path / "model")
    names = sorted(cls.__name__ for cls in CLASSES[own.name])
    assert f"classes=[{', '.join(names)}]" in str(raised.value)
    again = mg.load(tmp_path / "model", classes=CLASSES[own.name])
    assert type(again.model) is type(fitted.model) and again.family == own.name
    assert jax.tree.structure(again.model) == jax.tree.structure(fitted.model)
    assert np.array_equal(again.log_prob(table("plane")), fitted.log_prob(table("plane")))


def test_ours_and_the_users_classes_of_one_name_are_kept_apart(tmp_path):
    """The user's MLP is not ours, whatever it is called: neither is taken for the other."""
    path = fit(FLOW).save(tmp_path / "model")
    text = (path / "config.json").read_text()
    config = json.loads(text)
    described = config["model"]["fields"]["layers"]["module"]["fields"]["conditioner"]["module"]
    assert described["class"] == "MLP" and described.pop("own") is True
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError):
        mg.load(path, classes=CLASSES["my-flow"])
    (path / "config.json").write_text(text)
    assert isinstance(mg.load(path, classes=CLASSES["my-flow"]).model.layers.conditioner, MLP)


@pytest.mark.parametrize("name", ["os.system", "os:system", "subprocess.Popen", "mulligan.cli:main", "Laplace"])
def test_a_folder_cannot_say_where_code_is(name, tmp_path):
    path = fit(DRAWN).save(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    config["model"]["class"] = name
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError):
        mg.load(path, classes=[Drawn, Laplace])


def test_classes_that_are_none_are_refused(tmp_path):
    for wrong, words in (
        ([3], "no Equinox module"),
        ([dict], "no Equinox module"),
        ([MLP, type("MLP", (MLP,), {})], "two"),
    ):
        with pytest.raises(UsageError, match=words):
            mg.load(tmp_path, classes=wrong)


class WithFunction(Density):
    kind: ClassVar[str] = "exact"
    mean: jax.Array
    bend: object

    def log_prob(self, x, given=None):
        return -jnp.sum(self.bend(x - self.mean))


def test_a_function_in_a_field_cannot_be_saved_and_is_named(tmp_path):
    fitted = fit(mg.Own(lambda dim, generator: WithFunction(jnp.zeros(dim), jnp.abs), name="bent"))
    with pytest.raises(FormatError, match="WithFunction cannot be saved: bend is a"):
        fitted.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# --- own callback -----------------------------------------------------------------------------------------------------


class Seen:
    """A callback that writes down what it is told, spoils it, and stops the fit at ``last``."""

    def __init__(self, every=10, last=None, crash=None):
        self.every, self.last, self.crash, self.calls = every, last, crash, []

    def __call__(self, step, model, history):
        assert set(history) == {"train", "select", "gradient_norm"} and all(len(c) == step for c in history.values())
        self.calls.append((step, float(history["train"][-1]), np.asarray(model.mean).tolist()))
        for curve in history.values():
            curve[:] = 7.0
        if step == self.crash:
            raise RuntimeError("killed")
        return f"stopped at {step}" if step == self.last else None


def same(one, two):
    leaves = zip(jax.tree.leaves(one.model), jax.tree.leaves(two.model), strict=True)
    curves = all(np.array_equal(one.history[name], two.history[name], equal_nan=True) for name in one.history)
    return curves and set(one.history) == set(two.history) and all(np.array_equal(a, b) for a, b in leaves)


def test_a_callback_sees_the_run_and_changes_nothing(monkeypatch):
    seen, plain = Seen(every=7), fit()
    assert same(fit(watch=[seen, Seen(every=50)]), plain)
    assert [step for step, *_ in seen.calls] == list(range(7, 51, 7))
    assert len({train for _, train, _ in seen.calls}) == 7 and seen.calls[0][2] != seen.calls[-1][2]
    monkeypatch.setattr(watches, "copied", lambda history: history)  # the twin
    assert not same(fit(watch=[Seen(every=7)]), plain)


def test_a_function_without_every_is_called_at_each_look():
    steps = []
    fit(watch=lambda step, model, history: steps.append((step, bool(np.isnan(history["select"][-1])))))
    assert steps == [(25, False), (50, False)]


def test_a_sentence_ends_the_whole_fit():
    stopped = fit(FLOW, steps=None, decay=None, watch=lambda step, model, history: "enough")
    assert stopped.card["stopped"] == "enough" and stopped.card["row"]["steps"] == 25
    assert len(stopped.card["row"]["choices"]) == 1
    assert same(fit(steps=50, watch=Seen(last=30)), fit(steps=50, watch=[Seen(last=30)]))


def test_a_run_with_callbacks_is_resumed_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("mulligan.checkpoints.SECONDS", 0.0)
    whole, kept = Seen(every=5), tmp_path / "kept"
    straight = fit(steps=100, watch=whole)
    with pytest.raises(RuntimeError, match="killed"):
        fit(steps=100, watch=Seen(every=5, crash=85), checkpoint=kept)
    rest = Seen(every=5)
    assert same(fit(steps=100, watch=rest, checkpoint=kept, resume=True), straight)
    assert rest.calls == whole.calls[-len(rest.calls) :] and 0 < len(rest.calls) < len(whole.calls)


def forgotten(self, *arguments):
    self.halt.sentence = None
    return KEEP(self, *arguments)


KEEP = watches.Resumed.keep


@pytest.mark.parametrize("keep", [KEEP, forgotten], ids=["sound", "twin that forgets"])
def test_a_stop_by_a_callback_is_remembered(tmp_path, monkeypatch, keep):
    monkeypatch.setattr("mulligan.checkpoints.SECONDS", 0.0)
    monkeypatch.setattr(watches.Resumed, "keep", keep)
    stopped = fit(watch=Seen(last=20), checkpoint=tmp_path / "kept")
    again = Seen(last=20)
    resumed = fit(watch=again, checkpoint=tmp_path / "kept", resume=True)
    assert same(resumed, stopped) == (keep is KEEP)
    if keep is KEEP:
        assert again.calls == [] and resumed.card["stopped"] == stopped.card["stopped"] == "stopped at 20"
        assert same(fit(checkpoint=tmp_path / "kept", resume=True), fit())  # without the callback it goes on


@pytest.mark.parametrize("watch", [[3], 3, [Seen(every=0)], [Seen(every=2.5)], [Seen(every=True)]])
def test_what_is_no_callback_is_refused(watch):
    with pytest.raises(UsageError):
        fit(watch=watch)


def test_an_answer_that_is_no_sentence_and_a_family_without_steps_are_refused():
    with pytest.raises(UsageError, match="returned True at step 25"):
        fit(watch=lambda step, model, history: True)
    with pytest.raises(UsageError, match="gaussian is not trained by gradient"):
        mg.fit(table("plane"), "gaussian", watch=[Seen()])
