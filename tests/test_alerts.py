"""Alert packets become stamps: pixels and ids exact, edges on their side, bad packets named, reruns read nothing."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("fastavro")

import fastavro

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.locking import alone_in
from astroml_plugin.sources import Stamps
from astroml_plugin.sources.alerts.avro import record_reader
from astroml_plugin.sources.alerts.packets import Packet, Reading, count, records
from astroml_plugin.sources.alerts.pictures import fitted, middle, read_picture
from tests.alert_packets import (
    CUTOUTS,
    FIRST_CANDID,
    SCHEMA,
    alert,
    message,
    schema,
    write_night,
    write_packet,
)
from workflows.cli import main
from workflows.ingest import ingest


def _ids(stamps: str) -> list[int]:
    return sorted(Stamps.open(stamps).labels(["object_id"])["object_id"].to_pylist())


def test_pixels_ids_and_columns_are_exact(tmp_path):
    write_night(tmp_path / "night", 5)
    result = ingest(tmp_path / "night", out=tmp_path / "stamps.zarr")
    stamps = Stamps.open(result.source)
    assert (result.rows, stamps.bands, stamps.size) == (5, ("science", "template", "difference"), (21, 21))
    image, variance, psf = stamps.read_rows(range(5))
    assert variance is None
    assert psf is None
    given = alert(3)
    for band, name in enumerate(("Science", "Template", "Difference")):
        wanted = read_picture(given[f"cutout{name}"]).image
        np.testing.assert_array_equal(image[3, band], wanted)
        assert wanted.std() > 0.5
    row = stamps.labels().slice(3, 1).to_pylist()[0]
    assert row["object_id"] == FIRST_CANDID + 3  # beyond 2^53: a float would have lost it
    assert row["objectidps1"] == 2**60 + 7
    assert row["objectId"] == "ZTF18aaaa3"
    assert (row["ra"], row["dec"]) == (10.03, -4.997)
    assert row["zero_point"] == row["magzpsci"] == 26.25
    assert (row["packet_alert"], row["packet_alerts"]) == (0, 1)
    assert row["packet"].endswith(f"{FIRST_CANDID + 3}.avro")
    assert stamps.zero_points == (None, None, None)  # DN, another unit for each exposure
    assert stamps.pixel_scale == 1.01


def test_new_packets_are_added_and_old_ones_not_read_again(tmp_path):
    night = write_night(tmp_path / "night", 3)
    first = ingest(night, out=tmp_path / "stamps.zarr")
    for file in night.iterdir():
        file.write_bytes(b"")  # would be a failure if it was read again
    write_night(night, 2, first=3)
    second = ingest(night, out=tmp_path / "stamps.zarr")
    assert (first.rows, second.rows, second.failed) == (3, 2, ())
    assert _ids(second.source) == [FIRST_CANDID + number for number in range(5)]
    third = ingest(night, out=tmp_path / "stamps.zarr")
    assert (third.rows, third.units_done, third.units_skipped) == (0, 0, 2)


def test_alerts_that_come_again_in_other_packets_are_not_doubled(tmp_path):
    write_night(tmp_path / "night", 3)
    ingest(tmp_path / "night", out=tmp_path / "stamps.zarr")
    other = write_night(tmp_path / "moved", 4)
    again = alert(1, ra=99.0)  # a survey that begins its numbers anew
    write_packet(other / "other.avro", again)
    result = ingest(other, out=tmp_path / "stamps.zarr")
    assert result.rows == 2
    assert "3 alerts are there already" in result.notes[0]
    assert _ids(result.source) == [FIRST_CANDID, FIRST_CANDID + 1, FIRST_CANDID + 1, FIRST_CANDID + 2, FIRST_CANDID + 3]


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_a_container_of_many_alerts_fills_several_blocks(tmp_path, codec):
    alerts = [alert(number) for number in range(11)]
    file = write_packet(tmp_path / "many.avro", *alerts, codec=codec)
    assert count(Packet("many", str(file))) == 11
    result = ingest(file, out=tmp_path / "stamps.zarr", block=4)
    assert (result.rows, result.units_done) == (11, 3)
    assert _ids(result.source) == [FIRST_CANDID + number for number in range(11)]
    assert ingest(file, out=tmp_path / "stamps.zarr", block=4).rows == 0
    table = Stamps.open(result.source).labels(["packet_alert", "packet_alerts"])
    assert sorted(table["packet_alert"].to_pylist()) == list(range(11))
    assert set(table["packet_alerts"].to_pylist()) == {11}


def test_what_a_stopped_run_had_not_written_of_a_container_is_read_next_time(tmp_path):
    file = write_packet(tmp_path / "many.avro", *(alert(number) for number in range(10)))
    stamps = ingest(file, out=tmp_path / "stamps.zarr", block=4).source
    gone = storage.list_files(storage.join(stamps, "objects"), ".parquet")[1]
    Path(stamps, "objects", gone).unlink()  # as after a kill: pixels without objects are no block
    there = len(_ids(stamps))
    assert 0 < there < 10
    assert ingest(file, out=tmp_path / "stamps.zarr", block=4).rows == 10 - there
    assert _ids(stamps) == [FIRST_CANDID + number for number in range(10)]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_archives_of_packets(tmp_path, suffix):
    night = write_night(tmp_path / "night", 5)
    with tarfile.open(tmp_path / f"night.{suffix}", f"w:{'gz' if suffix.endswith('gz') else ''}") as archive:
        for file in sorted(night.iterdir()):
            archive.add(file, f"20240101/{file.name}")
    result = ingest(tmp_path / f"night.{suffix}", kind="auto", out=tmp_path / "stamps.zarr", block=2)
    assert result.rows == 5
    assert _ids(result.source) == [FIRST_CANDID + number for number in range(5)]
    assert ingest(tmp_path / f"night.{suffix}", kind="auto", out=tmp_path / "stamps.zarr").rows == 0


def test_rows_of_parquet_of_rubin(tmp_path):
    rows = [_rubin(number, size=12 + 2 * (number == 1)) for number in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rubin.parquet", row_group_size=2)
    result = ingest(tmp_path / "rubin.parquet", kind="lsst", out=tmp_path / "stamps.zarr", block=3)
    stamps = Stamps.open(result.source)
    assert (result.rows, result.units_done, stamps.zero_points) == (5, 2, (31.4,) * 3)
    assert stamps.pixel_scale == 0.2
    assert "1 alerts have larger stamps" in result.notes[0]
    table = stamps.labels()
    assert sorted(table["object_id"].to_pylist()) == [2**61 + number for number in range(5)]
    assert table["diaObjectId"].type == pa.int64()
    assert set(table["diaObjectId"].to_pylist()) == {2**60 + 1}  # several alerts of one object are kept
    np.testing.assert_allclose(table["jacobian"].to_pylist()[0], [0.2, 0, 0, 0.2], atol=1e-12)  # East is -x here
    image, variance, _ = stamps.read_rows(range(5))
    np.testing.assert_array_equal(variance[:, 0, 3, 3], 4.0)
    row = table["object_id"].to_pylist().index(2**61 + 1)
    assert image[row, 0, 6, 6] == 77  # the centre pixel of 14 x 14 is that of 12 x 12


def _rubin(number: int, size: int) -> dict:
    from astropy.io import fits

    image = np.zeros((size, size), np.float32)
    image[size // 2, size // 2] = 77
    cards = {"BUNIT": "nJy", "CRPIX1": 6, "CRPIX2": 6, "CRVAL1": 5.0, "CRVAL2": 1.0, "PC1_1": -0.2 / 3600}
    cards |= {"PC1_2": 0.0, "PC2_1": 0.0, "PC2_2": 0.2 / 3600, "CDELT1": 1.0, "CDELT2": 1.0}
    variance = fits.ImageHDU(np.full((size, size), 4, np.float32), fits.Header([("UTYPE", "VarianceUncertainty")]))
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(image, fits.Header(list(cards.items()))), variance]).writeto(file)
    pictures = dict.fromkeys(("cutoutScience", "cutoutTemplate", "cutoutDifference"), file.getvalue())
    source = {"diaSourceId": 2**61 + number, "diaObjectId": 2**60 + 1, "ra": 5.0, "dec": 1.0, "psfFlux": 1e3}
    return {"alertId": 2**61 + number, "diaSource": source, **pictures}


def test_messages_of_kafka_need_their_schema(tmp_path):
    (tmp_path / "night").mkdir()
    (tmp_path / "night" / "1.avro").write_bytes(message(alert(1)))
    with pytest.raises(InputError, match=r"without its schema \(number 7 of a registry\).*--schema"):
        ingest(tmp_path / "night", out=tmp_path / "stamps.zarr")
    (tmp_path / "ztf.avsc").write_text(json.dumps(SCHEMA))
    result = ingest(tmp_path / "night", schema=str(tmp_path / "ztf.avsc"), out=tmp_path / "stamps.zarr")
    assert _ids(result.source) == [FIRST_CANDID + 1]
    other = schema()
    other["fields"].pop()
    (tmp_path / "other.avsc").write_text(json.dumps(other))
    with pytest.raises(InputError, match="bytes are left"):
        ingest(tmp_path / "night", schema=str(tmp_path / "other.avsc"), out=tmp_path / "other.zarr")


def test_bad_packets_are_named_and_the_others_ingested(tmp_path):
    night = write_night(tmp_path / "night", 3)
    good = (night / f"{FIRST_CANDID}.avro").read_bytes()
    other = write_packet(tmp_path / "other.avro", alert(8)).read_bytes()
    bare = write_packet(tmp_path / "bare.avro", alert(9, missing=CUTOUTS)).read_bytes()
    bad = {
        "cut.avro": (good[:-400], "cut short"),
        "empty.avro": (b"", "empty"),
        "text.avro": (b"not avro at all", "no Avro file"),
        "marker.avro": (other[:-1] + bytes([other[-1] ^ 1]), "marker"),
        "none.avro": (bare, "no cutouts"),
        "codec.avro": (good.replace(b"avro.codec\x08null", b"avro.codec\x08snap"), "packed by snap"),
    }
    for name, (data, _) in bad.items():
        (night / name).write_bytes(data)
    result = ingest(night, out=tmp_path / "stamps.zarr")
    told = {Path(packet).name: reason for packet, reason in result.failed}
    assert set(told) == set(bad)
    assert all(words in told[name] for name, (_, words) in bad.items()), told
    assert _ids(result.source) == [FIRST_CANDID + number for number in (0, 1, 2, 8)]  # 8 stands before the damage
    table = storage.read_table(storage.join(result.source, "failures.parquet"))
    assert sorted(Path(one).name for one in table["packet"].to_pylist()) == sorted(bad)
    assert len(ingest(night, out=tmp_path / "stamps.zarr").failed) == len(bad)  # told again until it is mended


def test_missing_cutouts_and_short_edges_are_nan(tmp_path):
    low, high = slice(6, None), slice(None, 15)
    write_packet(tmp_path / "n" / "0.avro", alert(0))
    write_packet(tmp_path / "n" / "1.avro", alert(1, missing=("Template",)))
    write_packet(tmp_path / "n" / "2.avro", alert(2, shape=(low, high), xpos=3000.0, ypos=4.0))
    stamps = Stamps.open(ingest(tmp_path / "n", out=tmp_path / "stamps.zarr").source)
    image, _, _ = stamps.read_rows(range(3))
    assert np.isnan(image[1, 1]).all()
    assert np.isfinite(image[1, [0, 2]]).all()
    whole = read_picture(alert(2)["cutoutScience"]).image
    np.testing.assert_array_equal(image[2, 0, 6:, :15], whole[6:, :15])
    assert np.isnan(image[2, 0, :6]).all()
    assert np.isnan(image[2, 0, :, 15:]).all()


@pytest.mark.parametrize("size", [9, 31])
def test_the_alert_is_in_the_middle_of_stamps_of_any_size(tmp_path, size):
    given = {
        0: {},
        1: {"shape": (slice(6, None), slice(None, 15)), "xpos": 3000.0, "ypos": 5.0},
        2: {"shape": (slice(3, None), slice(3, None)), "xpos": 8.0, "ypos": 8.2},  # no other survey
        3: {"shape": (slice(None), slice(4, None)), "xpos": 7.0, "ypos": 700.0},
    }
    for number, more in given.items():
        write_packet(tmp_path / "n" / f"{number}.avro", alert(number, **more))
    other = alert(4, size=17, xpos=2.0) | {"objectId": "ABC"}  # smaller pictures of another survey are whole
    write_packet(tmp_path / "n" / "4.avro", other)
    stamps = Stamps.open(ingest(tmp_path / "n", out=tmp_path / "s.zarr", stamp_size=size, pixel_scale=1.0).source)
    image, _, _ = stamps.read_rows(range(5))
    for number in range(4):
        whole = read_picture(alert(number)["cutoutScience"]).image
        assert image[number, 0, size // 2, size // 2] == whole[10, 10], number
        assert image[number, 0, size // 2 + 2, size // 2 + 1] == whole[12, 11], number
    assert image[4, 0, size // 2, size // 2] == read_picture(other["cutoutScience"]).image[8, 8]


def test_another_survey_does_not_get_the_pixel_scale_of_the_first(tmp_path):
    write_packet(tmp_path / "n" / "0.avro", alert(0))
    write_packet(tmp_path / "n" / "1.avro", alert(1) | {"objectId": "PGIR19abc"})
    result = ingest(tmp_path / "n", out=tmp_path / "stamps.zarr")
    assert (result.rows, len(result.failed)) == (1, 1)
    assert "another survey than ZTF" in result.failed[0][1]
    stated = ingest(tmp_path / "n", out=tmp_path / "stated.zarr", pixel_scale=8.7)
    assert (stated.rows, stated.failed) == (2, ())


def test_alerts_without_a_place_are_not_doubled_and_ids_beyond_int64_are_named(tmp_path):
    nowhere = _rubin(1, size=12)
    nowhere["diaSource"] |= {"ra": None, "dec": None}
    for name in ("one", "again"):
        pq.write_table(pa.Table.from_pylist([nowhere, _rubin(2, size=12)]), tmp_path / f"{name}.parquet")
        assert ingest(tmp_path / f"{name}.parquet", kind="lsst", out=tmp_path / "s.zarr").rows == 2 * (name == "one")
    large = _rubin(3, size=12)
    large["diaSource"]["diaSourceId"] = 2**63 + 1
    rows = [_rubin(4, size=12), large]
    ids = pa.struct([("diaSourceId", pa.uint64()), ("ra", pa.float64()), ("dec", pa.float64())])
    sources = pa.array([{name: row["diaSource"][name] for name in ("diaSourceId", "ra", "dec")} for row in rows], ids)
    others = pa.Table.from_pylist([{name: row[name] for name in row if name != "diaSource"} for row in rows])
    pq.write_table(others.append_column("diaSource", sources), tmp_path / "large.parquet")
    result = ingest(tmp_path / "large.parquet", kind="lsst", out=tmp_path / "s.zarr")
    assert (result.rows, len(result.failed)) == (1, 1)
    assert "int64" in result.failed[0][1]


def test_values_are_passed_over_as_fastavro_does():
    parts = [{"name": "a", "type": ["null", "float"]}, {"name": "b", "type": "long"}]
    inner = {"type": "record", "name": "i", "fields": parts}
    types = {
        "null": (["null", "int"], [None, 5, -(2**30)]),
        "number": ("long", [0, -1, 2**62, 300]),
        "text": (["string", "null", "bytes"], ["", "ü" * 99, None, b"\x00" * 300]),
        "flag": ("boolean", [True, False]),
        "fixed": ({"type": "fixed", "name": "f", "size": 3}, [b"\n\n\n"]),
        "enum": ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, ["A", "B"]),
        "list": ({"type": "array", "items": inner}, [[], [{"a": None, "b": 1}, {"a": 2.5, "b": -(2**40)}] * 40]),
        "again": (["null", {"type": "array", "items": ["i", "string"]}], [None, ["x", {"a": 1.0, "b": 2}]]),
        "map": ({"type": "map", "values": "double"}, [{}, {"key": 1.0, "other": 2.0}]),
    }
    fields = [{"name": name, "type": kind} for name, (kind, _) in types.items()]
    parsed = fastavro.parse_schema({"type": "record", "name": "r", "fields": fields}, _force=True)
    random = np.random.default_rng(3)
    for _ in range(200):
        record = {name: values[random.integers(len(values))] for name, (_, values) in types.items()}
        file = io.BytesIO()
        fastavro.schemaless_writer(file, parsed, record)
        data = file.getvalue()
        reader = record_reader(json.dumps({"type": "record", "name": "r", "fields": fields}).encode(), _no_field)
        assert [run.skip is not None for run in reader.runs] == [True]
        assert reader.runs[0].skip(data + b"rest", 0) == len(data)
        for length in range(0, len(data), 37):
            with pytest.raises(InputError, match="damaged"):
                reader.runs[0].skip(data[:length], 0)


def _no_field(name: str) -> bool:
    return False


def test_the_centre_pixel_stays_the_centre():
    values = np.arange(35, dtype=np.float32).reshape(5, 7)
    for size in (3, 4, 5, 6, 9, 10):
        assert fitted(values, size)[size // 2, size // 2] == values[2, 3]
        assert fitted(values, size, (4, 0))[size // 2, size // 2] == values[4, 0]
    assert middle((21, 500), (300.0, 300.0), 21) == (10, 250)  # no border cuts like this
    assert middle((40, 63), (3000.0, 9.0), 63) == (31, 31)


def test_stores_of_other_stamps_and_useless_options_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 3, 21, 21), np.float32))
    ingest(tmp_path / "x.npz", out=tmp_path / "stamps.zarr")
    night = write_night(tmp_path / "night", 1)
    with pytest.raises(InputError, match="no alerts"):
        ingest(night, out=tmp_path / "stamps.zarr")
    with pytest.raises(InputError, match="--halo would do nothing for alert packets"):
        ingest(night, out=tmp_path / "other.zarr", halo=3)
    with pytest.raises(InputError, match="only for alert packets"):
        ingest(tmp_path / "x.npz", out=tmp_path / "other.zarr", stamp_size=3)
    with pytest.raises(InputError, match="ztf"):
        ingest(night, out=tmp_path / "other.zarr", kind="ztff")
    with pytest.raises(InputError, match="no field diaSource"):
        ingest(night, out=tmp_path / "other.zarr", kind="lsst")
    with pytest.raises(InputError, match="names no alert packets"):
        ingest(tmp_path / "nowhere", out=tmp_path / "other.zarr", kind="auto")
    with pytest.raises(InputError, match="ingest them apart"):
        ingest([night, tmp_path / "x.npz"], out=tmp_path / "other.zarr")
    assert not (tmp_path / "other.zarr").exists()


def test_two_ingests_at_once_are_refused(tmp_path):
    night = write_night(tmp_path / "night", 1)
    stamps = ingest(night, out=tmp_path / "stamps.zarr").source
    with alone_in(stamps, "ingests into"), pytest.raises(InputError, match="another process ingests into"):
        ingest(night, out=tmp_path / "stamps.zarr")


def _survive(tmp_path: Path, kills: int, packets: int) -> int:
    """Stop an ingest after some of its blocks again and again, and compare at the end; stops between two blocks."""
    night, objects, added = tmp_path / "night", tmp_path / "stamps.zarr" / "objects", 80
    write_night(night, packets)
    command = [sys.executable, "-m", "workflows.cli", "ingest", str(night), "--out", str(tmp_path / "stamps.zarr")]
    command += ["--block", "4"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    random, halfway = np.random.default_rng(1), 0
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for stopped in range(kills):
        write_night(night, added, first=packets + added * stopped)
        there, more = len(list(objects.iterdir())), int(random.integers(0, 12))
        with subprocess.Popen(command, start_new_session=True, **quiet) as run:
            while run.poll() is None and len(list(objects.iterdir())) < there + more:
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.02))
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
        ids = _ids(str(tmp_path / "stamps.zarr"))
        assert len(set(ids)) == len(ids)
        halfway += more > 0 and len(ids) < packets + added * (stopped + 1)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    wanted = [FIRST_CANDID + number for number in range(packets + added * kills)]
    assert _ids(str(tmp_path / "stamps.zarr")) == wanted
    return halfway


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_twenty_times_nothing_is_lost_or_doubled(tmp_path):
    assert _survive(tmp_path, kills=20, packets=40) > 10


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("place", "rows", "names"),
    [
        ("ztf", 18, {"objectId", "drb", "zero_point"}),
        ("gattini", 9, {"objectId", "fluxpsf"}),
        ("winter", 6, {"objectId", "scorr"}),
        ("turbo", 6, {"objectId", "psra1"}),
        ("rubin_schema_7.1.parquet", 50, {"diaObjectId", "reliability"}),
    ],
)
def test_packets_of_surveys(shared_data, tmp_path, place, rows, names):
    result = ingest(shared_data / "alerts" / place, kind="auto", out=tmp_path / "stamps.zarr")
    stamps = Stamps.open(result.source)
    assert (result.rows, result.failed) == (rows, ())
    assert names <= set(stamps.columns)
    assert len(set(_ids(result.source))) == rows
    image, _, _ = stamps.read_rows(range(rows))
    assert np.isfinite(image).mean(axis=(1, 2, 3)).min() > 0.4
    table = stamps.labels()
    assert np.isfinite(table["ra"].to_numpy()).all()
    if place == "ztf":
        path = sorted((shared_data / "alerts" / place).iterdir())[0]
        found = next(records(Packet("x", str(path)), Reading())).record
        assert table["object_id"].to_pylist()[0] == int(path.stem) == found["candid"]
        np.testing.assert_allclose(table["zero_point"].to_numpy(), table["magzpsci"].to_numpy())
    elif "zero_point" in table.column_names:
        assert table["zero_point"].null_count == rows  # Vega, or nobody says


@pytest.mark.slow
def test_the_page_of_alerts_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    """Every block of docs/alerts.md, in order, in a folder with the packets of two nights."""
    page = (Path(__file__).parents[1] / "docs" / "alerts.md").read_text()
    monkeypatch.chdir(tmp_path)
    positive = {True: "t", False: "f"}
    for number in range(208):
        record = alert(number, isdiffpos=positive[number % 2 == 0])
        if number % 2:  # another look for the other class
            record["cutoutDifference"] = record["cutoutTemplate"]
        folder = "night1" if number < 200 else "night2"
        write_packet(tmp_path / folder / f"{FIRST_CANDID + number}.avro", record)
    blocks = re.findall(r"```(bash|toml|python)\n(.*?)```", page, re.DOTALL)
    assert [kind for kind, _ in blocks].count("bash") >= 3
    for kind, text in blocks:
        if kind == "toml":
            Path(re.match(r"# file: (\S+)", text)[1]).write_text(text)
        elif kind == "python":
            exec(compile(text, "docs/alerts.md", "exec"), {})
        else:
            for line in text.replace("\\\n", "").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["astroml-plugin"]:
                    assert main(words[1:]) == 0, capsys.readouterr().err
    assert "208" in capsys.readouterr().out
