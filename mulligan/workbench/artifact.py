"""Model folders: ``config.json``, ``weights.safetensors``, ``schema.json``, ``history.csv``, ``card.md``,
``calibration.npy``. No pickle anywhere.

A folder is written beside its place under a temporary name and renamed when it is whole, so a half-written folder is never
loadable. Weights are rebuilt into the model's structure, which is made from ``config.json``: names of classes, which are
those of the catalog or handed to ``load`` by the caller; nothing in a folder is ever imported or executed.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mulligan.errors import FormatError, SetupError, UsageError
from mulligan.workbench.card import card_text
from mulligan.workbench.folders import (
    COMMAND,
    FILES,
    RESUME,
    check_writable,
    holds_training,
    is_unfinished,
    write_into,
    write_swapped,
)
from mulligan.workbench.modules import dismantle, own_classes, rebuild

if TYPE_CHECKING:
    from mulligan.workbench.fitted import Fitted

FORMAT = 1


def save(fitted: Fitted, path: str | Path, overwrite: bool = False) -> Path:
    """Write the folder whole, or not at all; returns its path.

    A folder that holds nothing but the checkpoints of this very fit (``checkpoint=path/"resume"``) is filled; they are
    removed then, unless the fit was interrupted and can go on. Raises UsageError where something else is there,
    SetupError where it cannot be written; what was there stays.
    """
    path = Path(path)
    own = fitted.checkpoint is not None and fitted.checkpoint.resolve() == (path / RESUME).resolve()
    into = own and holds_training(path)
    if not (into and is_unfinished(path)):
        check_writable(path, overwrite)
    try:
        if into:
            write_into(path, lambda folder: _write(fitted, folder), bool(fitted.card.get("interrupted")))
        else:
            path.resolve().parent.mkdir(parents=True, exist_ok=True)
            write_swapped(path, lambda folder: _write(fitted, folder))
    except OSError as error:
        do = f"make room, then mulligan fit --resume {path}" if into else "-o elsewhere"
        raise SetupError(f"cannot write {path}", error.strerror or str(error), do=do) from error
    return path


def load(path: str | Path, classes: Sequence[type] = ()) -> Fitted:
    """The model in a folder.

    A model of your own (``mulligan.Own``) names classes of your own: hand them in as ``classes``, for a folder never
    says where code is. Raises FormatError where the folder is broken, foreign or newer, or names a class that is not
    there; UsageError for ``classes`` that are no Equinox modules.
    """
    require_finished(Path(path))
    try:
        return _load(Path(path), classes)
    except FormatError as error:
        if error.do and (error.where or error.why):
            raise
        where = error.where or ("" if str(path) in error.what else str(path))
        why = error.why or "Nothing in a folder is believed before it was checked"
        do = error.do or "take an undamaged copy, or fit it once more (card.md holds the command)"
        raise FormatError(error.what, where, why, do) from error


def _load(path: Path, classes: Sequence[type]) -> Fitted:
    from mulligan.catalog import FAMILIES
    from mulligan.data.given import codec_from_json
    from mulligan.workbench.fitted import Fitted
    from mulligan.workbench.soundness import check_codec, check_model

    own = own_classes(classes)
    config = _read_config(path)
    try:
        codec = codec_from_json(_read_json(path / "schema.json"))
        check_codec(codec)
        model = rebuild(config["model"], _read_weights(path / "weights.safetensors"), own, path)
        family, label = str(config["family"]), str(config["label"])
        variant, card = config["variant"], dict(config["card"])
        check_model(model, codec)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise FormatError(
            f"{path} does not hold what its config.json promises", f"{type(error).__name__}: {error}"
        ) from error
    if family not in FAMILIES and config.get("own") is not True:
        raise FormatError(f"{path} holds a model of family {family!r}", why="this version does not know it")
    calibration = _read_calibration(path / "calibration.npy")
    return Fitted(family, variant, label, codec, model, card, _read_history(path / "history.csv"), calibration)


# --- writing -----------------------------------------------------------------------------------------------------------


def _write(fitted: Fitted, folder: Path) -> None:
    from safetensors.numpy import save as as_bytes

    from mulligan.catalog import FAMILIES
    from mulligan.data.given import codec_to_json

    arrays, model = dismantle(fitted.model)
    # Not safetensors' own save_file: a full disk would be an error of its own kind there, not an OSError.
    (folder / "weights.safetensors").write_bytes(as_bytes(arrays))
    config = {
        "format": FORMAT,
        "family": fitted.family,
        "variant": fitted.variant,
        "label": fitted.label,
        "model": model,
        "card": fitted.card,
    }
    if fitted.family not in FAMILIES:
        config["own"] = True
    (folder / "config.json").write_text(_json(config), encoding="utf-8")
    (folder / "schema.json").write_text(_json(codec_to_json(fitted.codec)), encoding="utf-8")
    np.save(folder / "calibration.npy", fitted.calibration, allow_pickle=False)
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *fitted.history])
        for step, row in enumerate(zip(*fitted.history.values()), start=1):
            writer.writerow([step, *(repr(float(value)) for value in row)])
    (folder / "card.md").write_text(card_text(fitted), encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


# --- reading -----------------------------------------------------------------------------------------------------------


def require_finished(path: Path) -> None:
    """FormatError where a folder holds a training and no model yet."""
    if holds_training(path) and not (path / "config.json").is_file():
        kept = (path / RESUME / COMMAND).is_file()
        do = f"mulligan fit --resume {path}" if kept else "the same mulligan.fit with resume=True"
        raise FormatError(f"{path}: training was not finished", do=do)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        why, do = "There is neither a folder nor a file of this name", f"mulligan fit FILE --family NAME -o {path}"
        raise FormatError(f"no model folder '{path}' here", why=why, do=do)
    if path.is_file():
        kind = (
            "a pickle, which can run code when opened"
            if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib")
            else "a file"
        )
        raise FormatError(f"{path} is {kind}", why="a model is a folder with safetensors in it")
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise FormatError(f"{path} is not a model folder: it lacks {', '.join(missing)}")
    config = _read_json(path / "config.json")
    found = config.get("format") if isinstance(config, dict) else None
    if not isinstance(found, int) or isinstance(found, bool):
        raise FormatError(f"{path}/config.json has no format number", why="it was not written by mulligan")
    if found < 1:
        raise FormatError(f"{path}/config.json has format {found}", why="there is no such format")
    if found > FORMAT:
        raise FormatError(
            f"{path} was written by a newer mulligan (format {found}); this one reads format {FORMAT}",
            do="pip install -U mulligan",
        )
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON", str(error)) from error


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
    # A safetensors file starts with the length of its header in eight bytes, and a length of 640 has the first two of a
    # pickle. No header is so long that the other six are not 0; in a pickle or an archive they are not.
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK") and any(head[2:]):
        raise FormatError(
            f"{path} is a pickle or an archive, not safetensors", why="opening one can run code; it is refused"
        )
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise FormatError(
            f"{path} is broken", f"{size:,} bytes; {error}", "it may have been cut off or altered"
        ) from error


def _read_calibration(path: Path) -> np.ndarray:
    if not path.is_file():
        return np.zeros(0)
    try:
        scores = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise FormatError(f"{path} is broken", str(error)) from error
    if not isinstance(scores, np.ndarray) or scores.ndim != 1 or scores.dtype.kind != "f" or np.isnan(scores).any():
        raise FormatError(f"{path} is broken", why="It holds the log p of rows: one axis of floats, none of them NaN")
    return scores


def _read_history(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2:
        return {}
    try:
        columns = np.asarray(rows[1:], float).T
    except ValueError as error:
        raise FormatError(f"{path} is broken", str(error)) from error
    return dict(zip(rows[0][1:], columns[1:]))
