"""What is kept of a conversion is whole, or made anew; and it is kept once, on disk or in memory."""

from __future__ import annotations

import gc
import hashlib
import json
import subprocess
import sys
import weakref

import pytest
import torch

from helpers.nets import noise, settled
from helpers.runtimes import Small, coalitions, scores_in
from pellucid.engine.runtimes import shelf
from pellucid.engine.runtimes.asked import installed

pytestmark = pytest.mark.skipif(installed("openvino") is None, reason="needs pellucid[fast]")


@pytest.fixture(autouse=True)
def own_shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path))
    return tmp_path / shelf.KIND


def spoiled_cut(file, _others):
    file.write_bytes(file.read_bytes()[:-100])


def spoiled_bit(file, _others):
    data = bytearray(file.read_bytes())
    data[-50] ^= 1
    file.write_bytes(bytes(data))


def spoiled_version(file, _others):
    data = file.read_bytes()
    file.write_bytes(data.replace(b"openvino 20", b"openvino 19", 1))


def written(file, program):
    """A whole file with a right hash, and another program."""
    head = json.loads(file.read_bytes()[: shelf._HEAD])
    head |= {"bytes": len(program), "sha256": hashlib.sha256(program).hexdigest()}
    file.write_bytes(json.dumps(head).encode().ljust(shelf._HEAD) + program)


def spoiled_sound_but_another(file, others):
    """Another network's program: only the proof can tell."""
    written(file, others.read_bytes()[shelf._HEAD :])


def spoiled_no_program(file, _others):
    written(file, b"junk")


def spoiled_empty(file, _others):
    written(file, b"")


@pytest.mark.parametrize(
    "spoil",
    [spoiled_cut, spoiled_bit, spoiled_version, spoiled_sound_but_another, spoiled_no_program, spoiled_empty],
)
def test_a_spoiled_file_is_made_anew(spoil, own_shelf):
    net, x = settled(Small()), noise(1, 3, 16, 16)
    masks = coalitions((16, 16))
    expected, _ = scores_in("openvino", net, x, masks)
    (file,) = own_shelf.iterdir()
    sound = file.read_bytes()
    torch.manual_seed(5)
    scores_in("openvino", settled(Small()), x, masks)
    (others,) = set(own_shelf.iterdir()) - {file}
    spoil(file, others)
    assert file.read_bytes() != sound
    again = settled(Small())
    again.load_state_dict(net.state_dict())
    found, cost = scores_in("openvino", again, x, masks)
    assert cost.ran.name == "openvino"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert len(file.read_bytes()) > 1000
    third = settled(Small())
    third.load_state_dict(net.state_dict())
    assert shelf.taken(_key(third, x)) is not None


def _key(net, x):
    from pellucid.engine.runtimes.converted import Reader, key_of

    return key_of(Reader(net, ()), x, "openvino", "f32")


def test_a_file_that_another_process_writes_meanwhile_does_no_harm(own_shelf):
    key = {"runtime": "openvino 1", "precision": "f32"}
    shelf.keep(key, b"a" * 1000)
    (file,) = own_shelf.iterdir()
    with file.open("rb") as reading:  # somebody reads while it is replaced
        shelf.keep(key, b"b" * 1000)
        assert reading.read().endswith(b"a" * 1000)
    assert bytes(shelf.taken(key)) == b"b" * 1000
    assert [f.suffix for f in own_shelf.iterdir()] == [".program"]  # no half file is left


def test_a_program_is_mapped_where_it_lies_and_its_pages_come_back():
    key, program = {"runtime": "openvino 1", "precision": "f32"}, bytes(range(256)) * 300
    kept = shelf.keep(key, program)
    found = shelf.taken(key)
    for mapped in (kept, found):
        assert isinstance(mapped, shelf.mmap.mmap)
        shelf.unread(mapped)
        assert bytes(mapped) == program


def test_nothing_of_a_conversion_stays_in_memory(monkeypatch):
    """Neither the trace, nor the program as it was made: what runs lies in the mapped file."""
    from pellucid.engine.runtimes import openvino

    traced, made, taken = [], [], []
    trace, convert, load = torch.jit.trace, openvino.convert, openvino.load

    def traces(*args, **how):
        found = trace(*args, **how)
        traced.append(weakref.ref(found))
        return found

    def converts(*args):
        found = convert(*args)
        made.append(weakref.ref(found))
        return found

    def loads(blob, precision):
        taken.append(type(blob))
        return load(blob, precision)

    monkeypatch.setattr(torch.jit, "trace", traces)
    monkeypatch.setattr(openvino, "convert", converts)
    monkeypatch.setattr(openvino, "load", loads)
    net, x = settled(Small()), noise(1, 3, 16, 16)
    assert scores_in("openvino", net, x, coalitions((16, 16)))[1].ran.name == "openvino"
    gc.collect()
    assert [each() for each in traced + made] == [None, None]
    assert taken == [shelf.mmap.mmap]


@pytest.mark.slow
def test_two_processes_convert_at_once(own_shelf):
    code = """
import torch, pellucid as pl
torch.manual_seed(0); torch.set_num_threads(1)
from pellucid.heatmaps import get_method
net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
with pl.runtime("openvino"):
    found = get_method("rise", samples=64).explain(net.eval(), torch.rand(1, 3, 16, 16), [1])[0]
print(found.cost.ran.name, float(found.values.sum()))
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert said[0].startswith("openvino")
    assert said[0] == said[1]
    assert len(list(own_shelf.iterdir())) == 1


def test_no_place_to_keep_it_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    net, x = settled(Small()), noise(1, 3, 16, 16)
    for place in ("off", str(tmp_path / "file")):
        monkeypatch.setenv("PELLUCID_CACHE", place)
        assert scores_in("openvino", net, x, coalitions((16, 16)))[1].ran.name == "openvino"
