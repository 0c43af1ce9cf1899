"""Pictures in every form that they come in, from the file to the sheet of samples; and every message on the way."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import zlib

import numpy as np
import pytest

import mulligan as mg
from mulligan.data.codec import Codec, fit_codec
from mulligan.data.describe import describe, describe_json
from mulligan.data.images import are_pictures, read_idx
from mulligan.data.splits import make_split, row_numbers
from mulligan.data.table import ImageShape
from mulligan.errors import DataError, MulliganError, UsageError
from mulligan.quantity import Quantity, bits_per_dimension
from mulligan.report.png import png_bytes, sheet
from mulligan.workbench.sources import open_rows

Image = pytest.importorskip("PIL.Image")  # in the test extra, so a skip would be a fault of the installation


@pytest.fixture
def pictures(seed):
    return np.random.default_rng(seed).integers(0, 256, (40, 6, 5), np.uint8)


def idx(array, kind=8):
    return bytes([0, 0, kind, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def message(call):
    with pytest.raises(MulliganError) as caught:
        call()
    return str(caught.value)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["idx", "idx.gz", "npy", "npz", "png", "jpeg"])
def test_every_form_gives_the_same_pictures(form, pictures, tmp_path):
    path = tmp_path / f"some.{form}"
    if form.startswith("idx"):
        path.write_bytes(gzip.compress(idx(pictures)) if form.endswith("gz") else idx(pictures))
    elif form == "npy":
        np.save(path, pictures)
    elif form == "npz":
        np.savez(path, x=pictures)
    else:
        path = tmp_path / "folder"
        for place, picture in enumerate(pictures):
            (path / f"{place % 2}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path / f"{place % 2}" / f"{place:03d}.{form}")
    table = mg.read(str(path))
    assert table.schema.image == ImageShape(6, 5, 1, 256) and len(table) == 40
    assert table.names[:3] == ("p00", "p01", "p02") and table.names[-1] == "p54"
    order = [*range(0, 40, 2), *range(1, 40, 2)] if form in ("png", "jpeg") else slice(None)
    if form == "jpeg":  # lossy: noise is what it is worst at
        assert np.abs(table.pictures[..., 0].astype(int) - pictures[order]).mean() < 40
    else:
        np.testing.assert_array_equal(table.pictures[..., 0], pictures[order])


def test_what_is_no_picture_stays_a_table(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n")
    assert not are_pictures(tmp_path / "a.csv") and not are_pictures(tmp_path) and not are_pictures(np.zeros((5, 64)))
    assert not are_pictures("moons") and mg.read(np.random.default_rng(0).normal(size=(50, 4))).schema.image is None
    with gzip.open(tmp_path / "a.csv.gz", "w") as file:
        file.write(b"x,y\n1,2\n")
    assert "compressed with gzip" in message(lambda: mg.read(str(tmp_path / "a.csv.gz")))


def test_broken_files_are_named(pictures, tmp_path):
    def found(name, data):
        (tmp_path / name).write_bytes(data)
        return message(lambda: mg.read(str(tmp_path / name)))

    good = idx(pictures)
    assert found("labels", idx(np.arange(9, dtype=np.uint8))).startswith("labels holds 9 labels, not pictures")
    assert "= 1,200 bytes, there are 1,195" in found("short", good[:-5])
    assert "there are more" in found("long", good + b"x")
    assert "there are fewer" in found("vast", good[:4] + b"\xff" * 12 + good[16:])  # not read into memory
    assert "broken" in found("cut.gz", gzip.compress(good)[:-40])
    assert "type 0x0d" in found("floats", idx(pictures.astype(">f4"), 13))
    assert "Pictures have height and width" in found("flat", idx(pictures[:, :, 0]))
    np.savez(tmp_path / "x.npz", x=pictures)
    data = (tmp_path / "x.npz").read_bytes()
    assert "y.npz is broken" in found("y.npz", data[:200] + bytes([data[200] ^ 255]) + data[201:])


def test_arrays_of_numbers_that_are_no_levels(pictures):
    assert "not whole" in message(lambda: mg.read(pictures / 255.0))
    assert "from 0 to 300" in message(lambda: mg.read(np.full((3, 2, 2), 300) * np.array([0, 1, 1])[:, None, None]))
    assert "moveaxis" in message(lambda: mg.read(np.zeros((4, 1, 8, 8), np.uint8)))
    assert "--resize 32" in message(lambda: mg.read(np.zeros((2, 200, 100), np.uint8)))
    assert "at least 2" in message(lambda: mg.read(pictures[:1]))
    assert "17 levels go from 0 to 16" in message(lambda: mg.read(pictures, levels=17))
    assert mg.read(pictures > 100).schema.image.levels == 2
    assert mg.read(pictures.astype(float)).schema.image.levels == 256
    assert mg.read((pictures > 100) * np.uint8(255)).schema.image.levels == 2
    dim = mg.read(pictures // 20)
    assert dim.schema.image.levels == 256 and "--levels 13" in " ".join(dim.notes)


def test_options_of_pictures(pictures):
    grey = mg.read(np.repeat(pictures[..., None], 3, axis=3), grey=True)
    np.testing.assert_array_equal(grey.pictures[..., 0], pictures)
    half = mg.read(pictures, binarise="half")
    np.testing.assert_array_equal(half.values.reshape(pictures.shape), pictures >= 128)
    bright = np.broadcast_to(np.arange(0, 256, 51, dtype=np.uint8)[None, :, None], (3000, 6, 2))
    drawn = mg.read(bright, binarise="draw", seed=3).values.reshape(bright.shape).mean((0, 2))
    np.testing.assert_allclose(drawn, np.arange(6) / 5, atol=4.75 * 0.5 / np.sqrt(6000))
    assert drawn[0] == 0 and drawn[-1] == 1
    small = mg.read(np.tile(pictures[:, :4, :4].repeat(2, 1).repeat(2, 2), 1), resize=4)
    np.testing.assert_array_equal(small.pictures[..., 0], pictures[:, :4, :4])  # the mean of four equal pixels
    assert mg.read(pictures, rows=7).notes[0].startswith("7 of 40 pictures")
    assert "take no --drop" in message(lambda: mg.read(pictures, drop=("p00",)))
    assert "for pictures" in message(lambda: mg.read("penguins", grey=True))
    for wrong in ({"binarise": "maybe"}, {"resize": 0}, {"levels": 1}, {"rows": 0}):
        with pytest.raises(UsageError):
            mg.read(pictures, **wrong)


def test_a_plot_beside_tables_makes_no_folder_of_pictures(pictures, tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x,y\n1,2\n3,4\n")
    Image.fromarray(pictures[0]).save(tmp_path / "plot.png")
    assert "Tables inside: a.csv, b.csv" in message(lambda: mg.read(str(tmp_path)))
    for place in range(4):
        Image.fromarray(pictures[place]).save(tmp_path / f"{place}.png")
    assert are_pictures(tmp_path)


def test_folders(pictures, tmp_path):
    for place in range(4):
        Image.fromarray(pictures[place]).save(tmp_path / f"{place}.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    assert "1 other file in it left alone" in mg.read(str(tmp_path)).notes
    Image.fromarray(pictures[0].repeat(2, 1)).save(tmp_path / "wide.png")
    said = message(lambda: mg.read(str(tmp_path)))
    assert "pictures of 2 sizes (5 x 6 (4), 10 x 6 (1))" in said and "--resize 32" in said
    assert mg.read(str(tmp_path), resize=4).schema.image == ImageShape(4, 4, 1, 256)
    (tmp_path / "wide.png").unlink()
    Image.fromarray(np.stack([pictures[0]] * 3, 2)).save(tmp_path / "colour.png")
    mixed = mg.read(str(tmp_path))
    assert mixed.schema.image.channels == 3 and "4 grey and 1 colour pictures" in " ".join(mixed.notes)
    assert mg.read(str(tmp_path), grey=True).schema.image.channels == 1
    (tmp_path / "colour.png").unlink()
    deep = Image.fromarray(pictures[0].astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    table = mg.read(str(tmp_path))
    assert "16 bits a pixel" in " ".join(table.notes)
    np.testing.assert_array_equal(table.pictures[-1, ..., 0], pictures[0])
    clear = np.stack([pictures[0], np.where(pictures[0] > 99, 255, 0)], 2).astype(np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert "transparent" in " ".join(mg.read(str(tmp_path)).notes)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    assert message(lambda: mg.read(str(tmp_path))).startswith("broken.png is no readable picture")


# --- the table --------------------------------------------------------------------------------------------------------


def test_digits_are_pictures():
    table = mg.read("digits")
    assert table.schema.image == ImageShape(8, 8, 1, 17) and len(table.names) == 64 and table.values.max() == 16
    said = "\n".join(describe(table, make_split(table, 0)))
    assert "1,797 pictures of 8 x 8 pixels, 17 grey levels" in said and "3 of 64 pixels are the same" in said
    assert describe_json(table)["image"] == {"height": 8, "width": 8, "channels": 1, "levels": 17}


def test_duplicates_of_pictures_stay_together(pictures):
    big = np.random.default_rng(0).integers(0, 256, (60, 20, 20), np.uint8)
    table = mg.read(np.concatenate([big, big[:20]]))
    assert "20 duplicate pictures" in " ".join(table.notes)
    split = make_split(table, 0)
    parts = np.zeros(80, int)
    parts[split.select], parts[split.test] = 1, 2
    np.testing.assert_array_equal(parts[60:], parts[:20])
    wide, narrow = row_numbers(table.values), np.unique(table.values, axis=0, return_inverse=True)[1].reshape(-1)
    assert len(np.unique(np.stack([wide, narrow]), axis=1).T) == 60 == wide.max() + 1  # the same partition


def test_codec_is_one_scale_and_uniform(pictures):
    table = mg.read(pictures)
    codec = fit_codec(table)
    encoded = codec.encode(table.values, 3, salt=1)
    assert encoded.points.shape == (40, 3, 30) and len({(p.mean, p.scale) for p in codec.parts}) == 1
    levels = encoded.points * codec.parts[0].scale + codec.parts[0].mean
    inside = levels - table.values[:, None, :]
    assert inside.min() >= -0.5 and inside.max() <= 0.5 and abs(inside.mean()) < 0.02
    np.testing.assert_allclose(encoded.log_jacobian, -30 * np.log(codec.parts[0].scale))
    for k in range(3):
        np.testing.assert_array_equal(codec.decode(encoded.points[:, k]), table.values)
    ends = codec.decode(np.array([[-1e9] * 30, [1e9] * 30]))
    assert (ends[0] == 0).all() and (ends[1] == 255).all()  # the ends own what lies beyond
    again = Codec.from_json(json.loads(json.dumps(codec.to_json())))
    assert again == codec
    generic = Codec(
        mg.Table(table.schema, table.values, table.source).schema.__class__(table.schema.columns), codec.parts
    )
    slow = generic.encode(table.values, 3, salt=1)
    np.testing.assert_allclose(slow.points, encoded.points, atol=1e-9)  # column by column comes to the same
    np.testing.assert_allclose(slow.log_jacobian, encoded.log_jacobian)
    assert codec.encode(table.values).points.shape[1] == 16
    assert (
        fit_codec(mg.read(pictures.repeat(5, 1).repeat(5, 2))).encode(table.values[:2].repeat(25, 1)).points.shape[1]
        == 1
    )


def test_other_pictures_conform(pictures, tmp_path):
    schema = mg.read(pictures).schema
    np.save(tmp_path / "more.npy", pictures[:3])
    np.testing.assert_array_equal(open_rows(str(tmp_path / "more.npy"), schema).pictures[..., 0], pictures[:3])
    assert "pictures of 5 x 6 x 1" in message(lambda: open_rows(pictures.swapaxes(1, 2), schema))
    assert "--grey" in message(lambda: open_rows(np.repeat(pictures[..., None], 3, 3), schema))
    digits = mg.read("digits").schema
    for dtype in (np.uint8, float):
        said = message(lambda: open_rows(np.full((2, 8, 8), 40, dtype), digits))  # noqa: B023
        assert "a pixel of 40. The model knows 8 x 8 pixels, 17 grey levels" in said
    two = (pictures[:3] > 99) * np.uint8(255)
    np.testing.assert_array_equal(open_rows(two, schema).pictures[..., 0], two)  # few, and black or white by chance
    with pytest.raises(DataError, match="knows the columns"):
        open_rows(pictures, mg.read("iris").schema)


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_takes_and_gives_pictures(tmp_path, monkeypatch, capsys):
    """One fit of a small table: a sheet and an array of samples, scores of the array, and what cannot be asked for."""
    from mulligan.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULLIGAN_CACHE", "off")
    rng = np.random.default_rng(0)
    values = (rng.integers(0, 4, (300, 1, 1)) + rng.integers(0, 2, (300, 3, 3))).astype(np.uint8)
    (tmp_path / "some.gz").write_bytes(gzip.compress(idx(values)))

    def run(*arguments):
        code = main(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    assert run("look", "some.gz", "--levels", "5")[1].startswith(
        "some.gz   300 pictures of 3 x 3 pixels, 5 grey levels"
    )
    code, out, _ = run("fit", "some.gz", "--family", "gaussian", "--levels", "5", "-o", "m")
    assert code == 0 and "bits/dim, upper bound" in out and "3 x 3 pixels, 5 grey levels" in out
    assert run("sample", "m", "-o", "new.png")[0] == 0
    assert np.asarray(Image.open(tmp_path / "new.png")).shape == (16 + 8 * 64, 16 + 8 * 64)
    assert run("sample", "m", "-n", "20", "-o", "new.npy")[0] == 0
    new = np.load(tmp_path / "new.npy")
    assert new.shape == (20, 3, 3) and new.dtype == np.uint8 and new.max() <= 4
    code, out, _ = run("log-prob", "m", "new.npy", "--json")
    assert code == 0 and json.loads(out)["kind"] == "lower bound"
    report = mg.load("m").card["row"]["bits_per_dim"]
    row = mg.load("m").card["row"]["log_prob"]
    assert report["value"] == pytest.approx(-row["value"] / 9 / np.log(2)) and report["kind"] == "upper bound"
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{a:.4f},{b:.4f}\n" for a, b in rng.normal(size=(60, 2))))
    assert run("fit", "t.csv", "--family", "gaussian", "-o", "t")[0] == 0
    code, _, err = run("sample", "t", "-o", "t.png")
    assert code == 2 and "no model of pictures" in err
    code, _, err = run("look", "t.csv", "--grey")
    assert code == 2 and "--grey is for pictures" in err


# --- numbers and pictures that leave ------------------------------------------------------------------------------------


def test_bits_per_dimension_of_a_uniform_law():
    """log p = −30 ln 256 is 8 bits for each of 30 pixels, whatever else; bounds and ends change sides."""
    bound = Quantity(-30 * np.log(256), "lower bound", -30 * np.log(256) - 1.0, None, stderr=0.3, n=9, unit="nats/row")
    bits = bits_per_dimension(bound, 30)
    assert bits.value == pytest.approx(8) and bits.kind == "upper bound" and bits.unit == "bits/dim"
    assert bits.low is None and bits.high == pytest.approx(8 + 1 / (30 * np.log(2))) and bits.stderr > 0
    assert bits_per_dimension(Quantity(None, "none", note="a GAN"), 30).kind == "none"


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (4, 9, 3)])
def test_png_is_read_by_another_library(shape, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    read = np.asarray(Image.open(io.BytesIO(png_bytes(pixels))))
    np.testing.assert_array_equal(read, pixels.reshape(read.shape))


def test_png_refuses_what_it_cannot_hold():
    for wrong in (np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(ValueError):
            png_bytes(wrong)


def test_a_wrong_checksum_is_seen(pictures, monkeypatch):
    """The saboteur: a writer whose checksums are those of the data without the chunk's name."""
    monkeypatch.setattr("mulligan.report.png._chunk", lambda name, data: (
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(data).to_bytes(4, "big")
    ))  # fmt: skip
    with pytest.raises(Exception):  # noqa: B017 - whatever Pillow raises for it
        Image.open(io.BytesIO(png_bytes(pictures[0]))).load()


def test_sheet_holds_every_picture(pictures):
    page = sheet(pictures[:5, :, :, None], 256, across=2)
    zoom, gap = 10, 10
    assert page.shape == (gap + 3 * (60 + gap), gap + 2 * (50 + gap), 1)
    for k in range(5):
        top, left = gap + k // 2 * (60 + gap), gap + k % 2 * (50 + gap)
        np.testing.assert_array_equal(page[top : top + 60 : zoom, left : left + 50 : zoom, 0], pictures[k])
    assert sheet(np.full((1, 60, 60, 1), 16), 17).max() == 255


def test_the_page_shows_a_sheet_for_each_family(pictures):
    from mulligan.report.cells import cells
    from mulligan.report.html import to_html
    from mulligan.workbench.assessment import failed_row

    image = {"height": 6, "width": 5, "channels": 1, "levels": 256}
    row = failed_row("gaussian", "a made-up one")
    bits = Quantity(3.25, "upper bound", None, 3.3, stderr=0.02, n=9, unit="bits/dim")
    report = {
        "data": {"name": "p", "sha256": None, "rows": 40, "columns": [], "image": image, "measure": "m", "notes": []},
        "split": {"train": 28, "select": 6, "test": 6, "seed": 0, "digest": "0"},
        "families": [row | {"bits_per_dim": bits.to_json()}],
        "reading": [],
        "reference": None,
        "reproduce": {"command": "c", "seed": 0, "versions": {}},
        "selection_note": "",
    }
    flat = pictures.reshape(40, -1)
    shown = {"image": image, "names": ["p00"], "real": flat, "samples": {"gaussian": flat[::-1]}, "curves": {}}
    page = to_html(report, shown)
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    for data, rows in zip(found, (pictures, pictures[::-1]), strict=True):
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(drawn, sheet(rows[..., None], 256)[..., 0])
    assert "40 pictures of 6 x 5 pixels, 256 levels" in page
    assert cells(report).rows[0][cells(report).heads.index("bits/dim ± SE")] == "≤ 3.25 ± 0.02"
    assert "bits/dim ± SE" not in cells(report | {"families": [row]}).heads


def test_idx_keeps_order():
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(read_idx("x", idx(values))[..., 0], values)
