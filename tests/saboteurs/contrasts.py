"""Broken twins of what learns an energy-based model: tests/exact/test_energy.py must refuse each."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mulligan.objectives.contrastive import Contrast, contrastive_loss
from mulligan.objectives.noise_contrastive import NoiseContrast, noise_contrastive_loss


def sign_of_f_flipped(model, key, batch):
    loss, told = contrastive_loss(model, key, batch)
    return -loss, told


def negative_phase_missing(model, key, batch):
    return -jnp.mean(jax.vmap(model.f)(batch.points)), {"train": jnp.zeros(())}


def phases_swapped(model, key, batch):
    return contrastive_loss(model, key, Contrast(batch.negatives, batch.points))


def half_of_the_negatives(model, key, batch):
    gap = jnp.mean(jax.vmap(model.f)(batch.points)) - 0.5 * jnp.mean(jax.vmap(model.f)(batch.negatives))
    return -gap, {"train": gap}


CONTRASTS = (sign_of_f_flipped, negative_phase_missing, phases_swapped, half_of_the_negatives)


def ratio_forgotten(model, key, batch):
    """log ν left out of the log odds."""
    points = jnp.log(batch.noise.shape[0] / batch.points.shape[0])
    return noise_contrastive_loss(
        model, key, batch._replace(points_offset=batch.points_offset + points, noise_offset=batch.noise_offset + points)
    )


def offset_of_the_wrong_sign(model, key, batch):
    return noise_contrastive_loss(
        model, key, NoiseContrast(batch.points, batch.noise, -batch.points_offset, -batch.noise_offset)
    )


def labels_swapped(model, key, batch):
    return noise_contrastive_loss(
        model, key, NoiseContrast(batch.noise, batch.points, batch.noise_offset, batch.points_offset)
    )


NOISES = (ratio_forgotten, offset_of_the_wrong_sign, labels_swapped)
