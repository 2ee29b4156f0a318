"""Jobs survive whatever ends: the worker, the studio, or both, at any moment."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress

import pytest

from helpers.loops import run
from pellucid.studio.jobs import JobFiles, JobRequest
from pellucid.studio.queue import JobQueue
from pellucid.studio.settings import StudioSettings

WORKER = """
import json, os, sys, time
def say(**m):
    try: print(json.dumps(m), flush=True)
    except BrokenPipeError: os._exit(0)  # the studio was killed
say(kind="ready", methods=[])
for line in iter(sys.stdin.readline, ""):
    asked = json.loads(line)
    if asked["kind"] != "run": continue
    steps = int(asked["options"].get("steps", 3))
    if asked["verb"] == "fail": say(kind="failed", error="no such thing in " + asked["input"]); continue
    if asked["verb"] == "die": os._exit(9)
    if asked["verb"] == "break off": os.write(1, b'{"kind": "do'); os._exit(9)
    for k in range(steps):
        say(kind="progress", label="step", share=k / steps); time.sleep(0.01)
    if asked["verb"] == "explain":
        os.makedirs(asked["folder"], exist_ok=True)
        part = f"{asked['folder']}/{os.getpid()}.tmp"  # an orphan of a killed studio may still write its own
        with open(part, "w") as f: f.write("whole")
        os.replace(part, asked["folder"] + "/x.txt")
    say(kind="done", labels=[])
"""


def settings(tmp_path, **given):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return StudioSettings(tmp_path / "results", worker=(str(script),), grace=0.3, **given)


@asynccontextmanager
async def running(made):
    queue = JobQueue(made, JobFiles(made.inner / "jobs"))
    await queue.start()
    try:
        yield queue
    finally:
        await queue.close()


async def over(queue, seconds=300.0):  # however slow the machine is
    end = time.monotonic() + seconds
    while not all(job.over for job in queue.files):
        assert time.monotonic() < end, [job.state for job in queue.files]
        await queue.changed(0.2)


def test_jobs_are_done_in_order_and_written_down(tmp_path):
    made = settings(tmp_path)

    async def work():
        async with running(made) as queue:
            for k in range(4):
                await queue.put("me", JobRequest("explain", "net", f"sample:{k}"))
            await over(queue)
            return [(job.state, job.started) for job in queue.files]

    found = run(work())
    assert [state for state, _ in found] == ["done"] * 4
    assert [at for _, at in found] == sorted(at for _, at in found)
    again = JobFiles(made.inner / "jobs")
    assert [job.asked.input for job in again] == [f"sample:{k}" for k in range(4)]
    assert {job.state for job in again} == {"done"}


def test_a_failure_says_the_visitor_s_own_name_and_the_next_job_is_done(tmp_path):
    async def work():
        async with running(settings(tmp_path)) as queue:
            bad = await queue.put("me", JobRequest("fail", "net", "/inner/ab12/x.png", "holiday.png"))
            dead = await queue.put("me", JobRequest("die", "net"))
            broken = await queue.put("me", JobRequest("break off", "net"))
            good = await queue.put("me", JobRequest("explain", "net"))
            await over(queue)
            return bad, dead, broken, good

    bad, dead, broken, good = run(work())
    assert (bad.state, bad.error) == ("failed", "no such thing in holiday.png")
    for gone in (dead, broken):
        assert (gone.state, gone.attempts) == ("failed", 2)
        assert "ended while it computed this, twice" in gone.error
    assert good.state == "done"


def test_a_job_that_waits_and_one_that_runs_are_cancelled(tmp_path):
    async def work():
        async with running(settings(tmp_path)) as queue:
            runs = await queue.put(
                "me", JobRequest("explain", "net", options={"steps": "100000"})
            )  # which does not listen, for more than a quarter of an hour
            waits = await queue.put("me", JobRequest("explain", "net"))
            while runs.state != "running" or not runs.progress[0]:
                await queue.changed(0.1)
            await queue.cancel(waits)
            assert waits.state == "cancelled"
            await queue.cancel(runs)
            assert runs.state == "cancelling"
            await over(queue)
            after = await queue.put("me", JobRequest("explain", "net"))
            await over(queue)
            return runs, after

    runs, after = run(work())
    assert runs.state == "cancelled"
    assert after.state == "done"


def test_a_worker_killed_at_random_moments_loses_nothing(tmp_path):
    draw = random.Random(1)

    async def work():
        async with running(settings(tmp_path, waiting=100)) as queue:
            jobs = [await queue.put("me", JobRequest("explain", "net")) for _ in range(30)]
            for _ in range(20):
                await asyncio.sleep(draw.uniform(0.0, 0.12))
                for pid in queue.workers():
                    with suppress(ProcessLookupError):  # it ended meanwhile
                        os.kill(pid, signal.SIGKILL)
            await over(queue)
            return jobs

    jobs = run(work())
    for job in jobs:
        whole = tmp_path / "results" / job.id / "x.txt"
        assert job.state == "done" or "twice" in job.error
        assert job.state != "done" or whole.read_text() == "whole"
    assert sum(job.state == "done" for job in jobs) >= 20


SERVER = """
import asyncio, sys
from pathlib import Path
from pellucid.studio.jobs import JobRequest, JobFiles
from pellucid.studio.queue import JobQueue
from pellucid.studio.settings import StudioSettings

async def work():
    settings = StudioSettings(Path(sys.argv[1]), worker=(sys.argv[2],))
    queue = JobQueue(settings, JobFiles(settings.inner / "jobs"))
    await queue.start()
    for _ in range(int(sys.argv[3])):
        await queue.put("me", JobRequest("explain", "net", options={"steps": "5"}))
    print("ready", flush=True)
    while not all(job.over for job in queue.files):
        await queue.changed(0.2)
    await queue.close()
    print("over", flush=True)

asyncio.run(work())
"""


@pytest.mark.slow
def test_a_studio_killed_at_random_moments_resumes_what_was_queued(tmp_path):
    draw, made = random.Random(2), settings(tmp_path)
    script = tmp_path / "server.py"
    script.write_text(SERVER)

    def start(jobs):
        arguments = [sys.executable, str(script), str(made.home), made.worker[0], str(jobs)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    finished = {}
    for k in range(20):
        process = start(40 if k == 0 else 0)
        time.sleep(draw.uniform(0.0, 0.4))
        process.kill()
        process.wait()
        states = {f.stem: json.loads(f.read_text())["state"] for f in (made.inner / "jobs").glob("*.json")}
        assert len(states) == 40
        for id in [i for i, state in states.items() if state == "done"]:
            finished.setdefault(id, (made.home / id / "x.txt").read_text())
        assert set(finished) <= {i for i, state in states.items() if state == "done"}
    last = start(0)
    assert last.stdout.read() == "over\n"  # not `communicate`, which passes over what `readline` has in its buffer
    assert last.wait() == 0
    states = {json.loads(f.read_text())["state"] for f in (made.inner / "jobs").glob("*.json")}
    assert states == {"done"}


def test_a_broken_job_file_is_passed_over(tmp_path):
    folder = tmp_path / "jobs"
    job = JobFiles(folder).new("me", JobRequest("explain", "net"))
    (folder / "0123456789abcdef.json").write_text("{")
    (folder / "evil.json").write_text((folder / f"{job.id}.json").read_text())
    assert [j.id for j in JobFiles(folder)] == [job.id]
