"""Each line of the threat model in docs/security.md has a test here, by its number."""

import random
import re
import struct
import zlib
from pathlib import Path

import pytest

from helpers.loops import run
from pellucid.studio.guard import Guard
from pellucid.studio.jobs import JobRequest
from studio.conftest import BASE, KEPT, ORIGIN

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
FORM = {"verb": "explain", "model": "net-a", "sample": "cat", "method": "grad-cam"}
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100


def ask(app, visitor, data=FORM, file=None, headers=ORIGIN):
    async def work():
        async with visitor() as made:
            files = {"file": file} if file else {"file": ("", b"")}
            return await made.post("/jobs", data=data, files=files, headers=headers)

    return run(work())


def test_every_row_has_a_test():
    rows = re.findall(r"^\| (T\d+) \|", PAGE.read_text(), re.M)
    tests = re.findall(r"^def test_(t\d+)_", Path(__file__).read_text(), re.M)
    assert len(rows) >= 12
    assert sorted(map(str.upper, set(tests))) == sorted(rows)


def test_t1_without_the_token_nothing_is_told(client):
    async def work():
        async with client() as made:
            found = {p: (await made.get(p)) for p in ("/", "/jobs", "/library", "/results/" + "0" * 16, "/nothing")}
            wrong = await made.get("/", params={"token": "wrong"})
            cookie = await made.get("/jobs", headers={"cookie": "pellucid-8760=wrong." + "0" * 32})
            return [*found.values(), wrong, cookie]

    for answer in run(work()):
        assert (answer.status_code, answer.content) == (403, b"")


def test_t1_the_token_leaves_the_address_and_its_cookie_is_no_script_s(client):
    async def work():
        async with client() as made:
            return await made.get("/", params={"token": "right"})

    answer = run(work())
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:8760.evil.example", "", "[::1]"]
)
def test_t2_another_host_name_is_refused(host, visitor):
    async def work():
        async with visitor() as made:
            return await made.get("/jobs", headers={"host": host})

    answer = run(work())
    assert (answer.status_code, answer.content) == (403, b"")


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://127.0.0.1:8761", "https://127.0.0.1:8760"]
)
def test_t3_a_form_of_another_page_is_refused(origin, app, visitor):
    answer = ask(app, visitor, headers={} if origin is None else {"origin": origin})
    assert answer.status_code == 403
    assert list(app.studio.queue.files) == []


def test_t4_pages_run_their_own_scripts_only(visitor):
    async def work():
        async with visitor() as made:
            return [
                await made.get(p) for p in ("/", "/jobs", "/library", "/compare", "/model", "/importance", "/video")
            ]

    for answer in run(work()):
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]*src=)[^>]*>|\son\w+=|\sstyle=|https?://", answer.text)


def test_t5_names_are_never_markup(app, visitor):
    evil = "<img src=x onerror=alert(1)>"
    answer = ask(app, visitor, file=(f"{evil}.png", PNG), data=FORM | {"target": evil})
    job = next(iter(app.studio.queue.files))
    job.error, job.state = evil, "failed"

    async def work():
        async with visitor() as made:
            app.studio.queue.files.get(job.id).owner = await whose(app, made)
            return [await made.get(p) for p in (f"/results/{job.id}", "/jobs", f"/library?q={evil}")]

    assert answer.status_code == 303
    for page in run(work()):
        assert page.status_code == 200
        assert "<img" not in page.text
        assert "&lt;img" in page.text


async def whose(app, made):
    """The owner of what this client asks."""
    await made.post("/jobs", data=FORM, headers=ORIGIN)
    return list(app.studio.queue.files)[-1].owner


PATHS = [
    "/etc/passwd",
    "../../etc/passwd",
    "file:///etc/passwd",
    "http://evil.example/x.png",
    "sample:../x",
    "~/x",
    "\0",
]


@pytest.mark.parametrize("path", PATHS)
def test_t6_no_path_and_no_address_of_a_visitor_is_opened(path, app, visitor):
    for name in ("sample", "suite", "input", "file", "folder"):
        data = {k: v for k, v in FORM.items() if k != "sample"} | {name: path}
        answer = ask(app, visitor, data=data)
        assert answer.status_code == 400
        assert "There is nothing to look at" in answer.text
    assert list(app.studio.queue.files) == []


@pytest.mark.parametrize(
    "name", ["../../../x.png", "..\\..\\x.png", "/etc/x.png", "con.png", "a\0b.png", ".png", "x" * 300 + ".png"]
)
def test_t7_an_upload_is_kept_under_a_name_made_here(name, app, visitor, settings):
    assert ask(app, visitor, file=(name, PNG)).status_code == 303
    job = next(iter(app.studio.queue.files))
    kept = Path(job.asked.input)
    assert kept.resolve().is_relative_to(settings.inner / "uploads")
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}\.png", kept.name)
    assert re.fullmatch(r"[0-9a-f]{16}", kept.parent.name)


@pytest.mark.parametrize(("name", "data"), [
    ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ("x.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ("x.png", b"\xef\xbb\xbf \n<?xml version='1.0'?><svg/>"),
    ("x.html", b"<html>"),
    ("x.pt", b"PK\x03\x04"),
    ("x.npz", b"PK\x03\x04"),
    ("x", b"MZ"),
    ("x.png", b""),
])  # fmt: skip
def test_t8_markup_programs_and_weights_are_not_taken(name, data, app, visitor, settings):
    answer = ask(app, visitor, file=(name, data))
    assert answer.status_code == 400
    assert list(app.studio.queue.files) == []
    assert [f for f in (settings.inner / "uploads").rglob("*") if f.is_file()] == []


def test_t9_large_uploads_end_at_the_cap(app, visitor, settings):
    assert ask(app, visitor, file=("x.png", PNG + b"\0" * 250_000)).status_code == 400  # told, since little was sent
    assert ask(app, visitor, file=("x.png", b"\0" * 1_500_000)).status_code == 413

    async def streamed():
        async def parts():
            for _ in range(200):
                yield b"\0" * 100_000

        async with visitor() as made:
            return await made.post(
                "/jobs", content=parts(), headers=ORIGIN | {"content-type": "multipart/form-data; boundary=x"}
            )

    assert run(streamed()).status_code in (400, 413)  # no length was given beforehand
    assert [f for f in (settings.inner / "uploads").rglob("*") if f.is_file()] == []


def test_t9_a_bomb_is_refused_by_the_reader_that_the_command_line_uses(tmp_path):
    from pellucid.errors import MediaError
    from pellucid.media import read_image

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000_000))
        + chunk(b"IEND", b"")
    )
    file = tmp_path / "bomb.png"
    file.write_bytes(bomb)
    with pytest.raises(MediaError):
        read_image(str(file))


@pytest.mark.parametrize("model", ["resnet50", "/tmp/model.pt", "hf:someone/else", "readable:x.json", "../x", ""])
def test_t10_only_models_of_the_registry_are_loaded(model, app, visitor):
    answer = ask(app, visitor, data=FORM | {"model": model})
    assert answer.status_code == 400
    assert "net-a, net-b" in answer.text
    assert list(app.studio.queue.files) == []


def test_t11_each_visitor_sees_their_own_jobs(app, visitor):
    async def work():
        async with visitor() as one, visitor() as two:
            place = (await one.post("/jobs", data=FORM, headers=ORIGIN)).headers["location"]
            mine, theirs = await one.get("/jobs.json"), await two.get("/jobs.json")
            looks = [
                await two.get(place),
                await two.get(f"{place}/page"),
                await two.post(f"{place.replace('results', 'jobs')}/cancel", headers=ORIGIN),
            ]
            return mine.json(), theirs.json(), looks, await one.get(place)

    mine, theirs, looks, own = run(work())
    assert len(mine) == 1
    assert theirs == []
    assert [a.status_code for a in looks] == [404] * 3
    assert all(a.content == b"" for a in looks)
    assert own.status_code == 200
    assert [j.state for j in app.studio.queue.files] == ["queued"]


def test_t12_a_visitor_cannot_fill_the_queue_or_the_disk(app, visitor, settings):
    async def work():
        async with visitor() as made:
            return [
                (await made.post("/jobs", data=FORM, headers=ORIGIN)).status_code for _ in range(settings.waiting + 2)
            ]

    answers = run(work())
    assert answers == [303] * settings.waiting + [400] * 2
    assert ask(app, visitor, data=FORM | {"target": "x" * 3000}).status_code == 400


def test_t13_a_link_shows_one_result_and_nothing_else(app, client, settings):
    for name in ("coffee.grad-cam", "coffee.rise"):
        for ending in (".json", ".npz"):
            (settings.home / f"{name}{ending}").write_bytes((KEPT / f"{name}{ending}").read_bytes())
    one, two = (s.id for s in app.studio.library.all())

    async def work():
        async with client() as made:
            right = await made.get(f"/shared/{one}/{app.studio.key(one)}")
            others = [
                f"/shared/{two}/{app.studio.key(one)}",
                f"/shared/{one}/{'0' * 64}",
                f"/shared/../jobs/{app.studio.key(one)}",
            ]
            return (
                right,
                [(await made.get(o)).status_code for o in others],
                (await made.get(f"/results/{one}")).status_code,
            )

    right, wrong, behind = run(work())
    assert right.status_code == 200
    assert "pellucid-view" in right.text
    assert set(wrong) <= {403, 404}
    assert behind == 403


def test_t13_without_the_option_there_are_no_links(tmp_path):
    from pellucid.studio.app import create
    from pellucid.studio.settings import StudioSettings

    studio = create(StudioSettings(tmp_path, token="right"))._app.state.studio
    assert studio.settings.share is False
    from fastapi import HTTPException

    from pellucid.studio.app import _shared

    with pytest.raises(HTTPException):
        _shared(studio, "0" * 16, studio.key("0" * 16))


def test_t14_a_result_is_shown_in_a_frame_that_reaches_nothing(app, visitor, settings):
    for ending in (".json", ".npz"):
        (settings.home / f"coffee.rise{ending}").write_bytes((KEPT / f"coffee.rise{ending}").read_bytes())
    [shelved] = app.studio.library.all()

    async def work():
        async with visitor() as made:
            return await made.get(f"/results/{shelved.id}/page"), await made.get(f"/results/{shelved.id}")

    frame, page = run(work())
    policy = frame.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert "script-src 'sha256-" in frame.text
    assert 'sandbox="allow-scripts"' in page.text


def test_t15_what_a_job_asks_is_data(app, visitor):
    assert ask(app, visitor, data=FORM | {"verb": "shell"}).status_code == 400
    assert ask(app, visitor, data=FORM | {"verb": "__class__"}).status_code == 400
    answer = ask(app, visitor, data=FORM | {"target": "$(touch x); `y`", "out": "/tmp", "weights": "x.pt"})
    assert answer.status_code == 303
    asked = next(iter(app.studio.queue.files)).asked
    assert set(asked.options) == {"method", "target", "check"}
    assert "'$(touch x); `y`'" in asked.command()  # quoted, for whoever copies it


def hostile(random):
    """A request that nothing good sends."""
    return (
        random.choice(METHODS),
        random.choice(PLACES),
        random.choice(HEADERS),
        random.randbytes(random.randrange(400)),
    )


METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "HEAD"]
PLACES = [
    "/results/../../etc/passwd",
    "/static/../settings.py",
    "/static/..%2f..%2fapp.py",
    "/%00",
    "/results/" + "f" * 16,
    "/results/" + "A" * 5000,
    "/jobs/'; drop/cancel",
    "/shared/x/y",
    "//evil.example/",
    "/.studio/secret",
    "/openapi.json",
    "/docs",
    "/compare/page?id=" + "../" * 50,
    "/labels?model=__class__&q=" + "x" * 500,
    "/library?model=%ff&q=%00",
]
HEADERS = [
    {"host": "evil.example"},
    {"origin": "http://evil.example"},
    {"content-length": "-5"},
    {"content-length": "99999999999"},
    {"cookie": "pellucid-8760=" + "x" * 3000},
    {"cookie": "pellucid-8760=right"},
    {"cookie": '=;;;"=\x01'},
    {"cookie": "pellucid-8760=right." + "g" * 32},
    {"transfer-encoding": "chunked"},
    {"x-forwarded-host": BASE},
    {"accept": "x" * 4000},
    {"sec-fetch-site": "cross-site"},
]


def test_t16_two_hundred_hostile_requests(app, client, visitor):
    draw = random.Random(0)

    async def work():
        found = []
        async with visitor() as inside:
            for k in range(200):
                method, path, headers, body = hostile(draw)
                made = inside if k % 2 and "cookie" not in headers else client()
                try:
                    answer = await made.request(method, path, headers=headers, content=body)
                except (ValueError, TypeError, UnicodeError):  # a client that will not even send it
                    continue
                found.append((answer.status_code, answer.content, path))
            alive = await inside.get("/jobs")
        return found, alive

    found, alive = run(work())
    assert len(found) > 150
    for status, content, path in found:
        assert status < 500, path
        assert b"Traceback" not in content
        assert b"root:" not in content
        assert not (
            status == 200 and path.startswith(("/results", "/static", "/shared", "/.studio", "/docs", "/openapi"))
        )
    assert alive.status_code == 200


def test_t16_a_websocket_is_closed():
    sent = []

    async def work():
        async def send(message):
            sent.append(message)

        await Guard(None, None)({"type": "websocket"}, None, send)

    run(work())
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_near_misses_are_offered_while_a_target_is_typed(visitor):
    async def work():
        async with visitor() as made:
            return [
                (await made.get("/labels", params={"model": "net-a", "q": q})).json() for q in ("tig", "taby", "zzz")
            ]

    assert run(work()) == [["tiger cat"], ["tabby"], []]


def test_the_command_of_a_job_is_the_command_line_s():
    asked = JobRequest(
        "explain",
        "net-a",
        "/inner/x.png",
        "my cat.png",
        {"method": "grad-cam,rise", "target": "a>b", "set": "samples=3\nx=1", "check": "1"},
    )
    said = "--model net-a --method grad-cam,rise --target 'a>b' --set samples=3 --set x=1 --check"
    assert asked.command() == f"pellucid explain 'my cat.png' {said}"
    assert JobRequest("activations", "net-a", "sample:cat", "", {"layer": "x"}).command() == (
        "pellucid visualize --activations sample:cat --model net-a --layer x"
    )
