"""The walk with pictures: a U-Net trained on digits carries noise to digits, by the ODE and by the SDE.

Definition. The library's ``diffusion`` on the 8 x 8 digits of scikit-learn with a U-Net: D(x, t) ≈ E[x_0|x_t]. The ODE takes
Heun's steps, the SDE the reverse steps with noise, from the same start. Judged on digits that it has not seen: the mean
squared error of D beside that of the best linear denoiser, m + α Σ (α² Σ + σ² I)⁻¹ (x − α m), with the mean and covariance
of the training digits; that one knows everything but what is not Gaussian.
Serves the notes' picture of the U-Net; ``diffusion.denoising`` on a trained model.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mulligan.lab.experiment import Range, experiment
from mulligan.lab.identity import excess, mean_and_error, rounding
from mulligan.lab.recording import Curve, Field, Panel, Recording, Scale
from mulligan.loop import compile_small
from mulligan.quantity import Quantity
from mulligan.samplers.reverse import HeunODE, ReverseSDE

SIDE, SHEET, SEEN = 8, 4, 1500  # pixels, pictures a side, training rows (of 1 797)
STEPS = 23
NOISE = np.array(
    [0.2, 0.4, 0.8, 1.6, 3.2]
)  # σ/α at which the denoisers are compared, in standard deviations of a pixel


@compile_small
def _paths(kernel: Any, model: Any, key: Any, x: Any, times: Any) -> Any:
    """Positions and denoised pictures, (n, steps + 1, d) each."""

    def one(key: Any, x: Any) -> Any:
        def step(state: Any, given: Any) -> Any:
            key, pair = given
            state, _ = kernel.step(key, state, pair)
            return state, (state.position, model.denoise(state.position, pair[1]))

        keys = jax.random.split(key, times.size - 1)
        path, thought = jax.lax.scan(step, kernel.init(key, x), (keys, (times[:-1], times[1:])))[1]
        first = model.denoise(x, times[0])
        return jnp.concatenate([x[None], path]), jnp.concatenate([first[None], thought])

    return jax.vmap(one)(jax.random.split(key, len(x)), x)


@compile_small
def _errors(model: Any, x0: Any, e: Any, t: Any) -> Any:
    """|D(α x_0 + σ e, t) − x_0|² a pixel, for each row."""
    noised = model.schedule.alpha(t) * x0 + model.schedule.sigma(t) * e
    return jnp.mean((jax.vmap(lambda x: model.denoise(x, t))(noised) - x0) ** 2, axis=1)


def linear_errors(seen: np.ndarray, x0: np.ndarray, e: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """The same of the best linear denoiser for the mean and covariance of the ``seen`` rows (m, d).

    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(4000, 2))
    >>> bool(abs(linear_errors(rows, rows, rng.normal(size=(4000, 2)), 1.0, 1.0).mean() - 0.5) < 0.05)
    True
    """
    mean, covariance = seen.mean(axis=0), np.cov(seen.T)
    gain = alpha * covariance @ np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(len(mean)))
    return ((mean + (alpha * (x0 - mean) + sigma * e) @ gain.T - x0) ** 2).mean(axis=1)


@experiment(9, "The walk with pictures: a U-Net carries noise to digits", trained=True)
def walk_with_pictures(*, seconds: Annotated[int, Range(10, 3600)] = 150, seed: int = 0) -> Recording:
    """Training for about ``seconds``, then 16 chains by the ODE and 16 by the SDE from the same noise.

    Raises UsageError for a value out of its range. Ho, Jain and Abbeel (2020); Karras et al. (2022).

    >>> from mulligan.lab.experiment import shipped
    >>> shipped("walk_with_pictures").length
    24
    """
    from mulligan.workbench.fitting import fit
    from mulligan.workbench.sources import read

    with jax.enable_x64(False):
        digits = read("digits")
        fitted = fit(
            digits.rows(slice(0, SEEN)), "diffusion", seed=seed, network="unet", channels=(32, 48), budget=f"{seconds}s"
        )
        model, rng = fitted.model.denoiser, np.random.default_rng([seed, 90])
        points = lambda rows: fitted.codec.encode(rows, draws=1).flat  # noqa: E731
        seen, unseen = (points(digits.rows(part).values) for part in (slice(0, SEEN), slice(SEEN, len(digits))))
        ends = points(np.array([np.zeros(SIDE**2), np.full(SIDE**2, 16.0)]))
        times = model.schedule.grid(STEPS)
        scale = float(model.schedule.sigma(times[0]))
        start = jnp.asarray(rng.normal(size=(SHEET**2, SIDE**2)) * scale, jnp.float32)
        key = jax.random.key(seed)
        kernels = HeunODE(model), ReverseSDE(model, jnp.asarray(1.0, jnp.float32))
        (ode, thought), (sde, _) = (map(np.asarray, _paths(kernel, model, key, start, times)) for kernel in kernels)
        losses, linear = _losses(model, seen, unseen, rng)
    levels = [float(model.schedule.sigma(t) / model.schedule.alpha(t)) for t in times]
    shown = (float(ends[0].mean()), float(ends[1].mean()))
    better = linear - losses
    bound = fitted.card["row"]["bits_per_dim"]
    return Recording(
        panels=(
            _sheet("by the ODE (Heun)", ode, shown),
            _sheet("by the SDE, from the same noise", sde, shown),
            _sheet("E[x₀|x_t]: what the network thinks, ODE", thought, shown),
            _compared(losses, linear),
        ),
        captions=tuple(_caption(k, level) for k, level in enumerate(levels)),
        see="Noise becomes digits. What the network thinks is a blurred mean of many digits at first, and decides later.",
        numbers={
            "noise σ_t/α_t": tuple(Quantity(level, "exact") for level in levels),
            "bits a pixel, unseen digits": (Quantity.from_json(bound),),
        },
        checks={
            "on unseen digits the U-Net beats the best linear denoiser at medium noise": rounding(
                {
                    f"noise {n:g}": (excess(3 * mean_and_error(b)[1], b.mean()), 0.0)
                    for n, b in zip(NOISE[1:4], better[1:4])
                }
            ),
            "ODE and SDE end apart": rounding({"a pixel": (excess(0.3, np.abs(ode[:, -1] - sde[:, -1]).mean()), 0.0)}),
        },
        rate=3.0,
    )


def _losses(
    model: Any, seen: np.ndarray, unseen: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of the network and of the linear denoiser, (levels, rows), for the same noise."""
    found, linear = [], []
    for level in NOISE:
        t = model.schedule.at_noise(jnp.asarray(level, jnp.float32))
        e = rng.normal(size=unseen.shape).astype(np.float32)
        found.append(np.asarray(_errors(model, jnp.asarray(unseen), jnp.asarray(e), t)))
        linear.append(linear_errors(seen, unseen, e, float(model.schedule.alpha(t)), float(model.schedule.sigma(t))))
    return np.stack(found), np.stack(linear)


def _sheet(title: str, pictures: np.ndarray, shown: tuple[float, float]) -> Panel:
    """16 pictures (16, frames, 64) as one, with a pixel between them."""
    frames = pictures.shape[1]
    side = SHEET * (SIDE + 1) - 1
    sheet = np.full((frames, side, side), 0.5 * (shown[0] + shown[1]))
    for k in range(SHEET**2):
        row, column = (SIDE + 1) * (k // SHEET), (SIDE + 1) * (k % SHEET)
        sheet[:, row : row + SIDE, column : column + SIDE] = pictures[k].reshape(frames, SIDE, SIDE)
    axis = np.arange(float(side))
    drawn = np.clip(sheet, *shown)[:, ::-1]  # the first row of a picture is its upper one
    field = Field(title, axis, axis, drawn, palette="grey", low=shown[0], high=shown[1])
    return Panel(title, Scale(""), Scale(""), (field,), square=True, bare=True, legend=False)


def _compared(losses: np.ndarray, linear: np.ndarray) -> Panel:
    layers = []
    for label, values, role in (("best linear denoiser", linear, "data"), ("the U-Net", losses, "model")):
        mean, error = mean_and_error(values.T)
        band = {"low": (mean - 1.96 * error)[None], "high": (mean + 1.96 * error)[None]}
        layers.append(Curve(label, NOISE, mean[None], role=role, dots=True, **band))  # type: ignore[arg-type]
    y = Scale("squared error a pixel", 0.0, 1.4 * float(linear.mean(axis=1).max()))
    return Panel("unseen digits, denoised (95 % band)", Scale("noise σ/α", log=True), y, tuple(layers))


def _caption(k: int, level: float) -> str:
    if k == 0:
        return "Pure noise. The network's best guess is the mean of all digits, nearly the same for each chain."
    if k == STEPS:
        return "The end of the walk: ODE and SDE have made different digits of the same noise."
    return f"Step {k} of {STEPS}, noise {level:.3g} standard deviations of a pixel."
