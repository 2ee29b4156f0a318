"""Folders for the time being: gone afterwards, and swept away after a kill."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress

import pytest

from pellucid.keep import scratch as module
from pellucid.keep.scratch import scratch


@pytest.fixture
def above(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_scratch_folder_is_gone_afterwards_and_after_an_error(above):
    with suppress(KeyError), scratch() as folder:
        (folder / "x").write_text("x")
        assert above in folder.parents
        raise KeyError
    assert list(above.iterdir()) == []


def test_a_killed_process_is_swept_up_after_and_nobody_else(above):
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from pellucid.keep.scratch import scratch\n"
        "with scratch() as folder:\n"
        "    (folder / 'values').write_bytes(b'x')\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(above)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        theirs = above.joinpath(child.stdout.readline().strip())
        other = above / "pellucid-scratch-of-somebody"
        (other / "files").mkdir(parents=True)  # without a lock: who knows whose
        with scratch() as mine:
            module._sweep.cache_clear()
            with scratch():
                assert theirs.is_dir()
            old = theirs.parent / module._ALIVE
            os.utime(old, (0, 0))
            module._sweep.cache_clear()
            with scratch():
                assert theirs.is_dir(), "it is at work, however long ago it began"
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert (theirs / "values").exists()
            os.utime(old)
            module._sweep.cache_clear()
            with scratch():
                assert theirs.is_dir(), "so young that it may not be locked yet"
            os.utime(old, (0, 0))
            module._sweep.cache_clear()
            with scratch():
                assert not theirs.parent.exists()
            assert mine.is_dir()
        assert [path.name for path in above.iterdir()] == [other.name]
