"""The pages of the studio, and what they do. No path and no address of a visitor is ever opened: ids are looked up."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.datastructures import UploadFile

from pellucid.errors import PellucidError
from pellucid.keep.files import write_bytes
from pellucid.language import LANGUAGES, chosen, speaking, translated
from pellucid.studio.guard import Guard
from pellucid.studio.jobs import JobFiles, JobRequest, StudioJob, is_id
from pellucid.studio.library import Library, Shelved
from pellucid.studio.queue import JobQueue
from pellucid.studio.settings import StudioSettings
from pellucid.studio.templates import render
from pellucid.studio.uploads import UploadError, kept, kept_together, stored

FRAME = (
    "sandbox allow-scripts allow-popups allow-downloads; default-src 'none'; img-src data:; media-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""What the frame of a result may do: run its script (the page's own policy names that one alone), reach nothing."""

_RUN = ("runtime", "precision")
_OPTIONS = {
    "explain": ("method", "target", "layer", "set", "many", "seed", "frames", "per-frame", "per-slice", "window", *_RUN,
                "stages", "check"),
    "importance": ("features", "by", "target", "layer", "regions", "removal", "baseline", "count", "segments",
                   "samples", "order", "seed", *_RUN),
    "visualize": ("layer", "channel", "target", "objective", "parametrization", "preset", "size", "exemplars", "by",
                  "seeds", "seed"),
    "activations": ("layer", "by", "target"),
    "distill": ("into", "concepts", "count", "depth", "features", "layer", "seed"),
    "more": ("samples", "max-samples", "max-evaluations", "tolerance"),
    "verify": (),
    "describe": (),
}  # fmt: skip
"""What a form may ask, by the names of the options on the command line."""

_LONGEST, _FEW, _COMPARED = 2_000, 12, 24  # letters of an option; near misses shown; results beside each other
_MANY = 500  # pictures to learn from, sent at once
_SETS = ("digits:", "sample:*")  # pictures to learn from that come with the program
_STATIC = {
    "page.css": ("render/viewer", "text/css"),
    "studio.css": ("studio/static", "text/css"),
    "studio.js": ("studio/static", "text/javascript"),
    "icon.svg": ("studio/static", "image/svg+xml"),
}


class Studio:
    """Everything behind the pages.

    Args:
        settings: what it was started with.
    """

    def __init__(self, settings: StudioSettings) -> None:
        self.settings = settings
        settings.inner.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.queue = JobQueue(settings, JobFiles(settings.inner / "jobs"))
        self.library = Library(settings.home)
        self._pages: dict[tuple[Any, ...], str] = {}
        self._secret = self._kept_secret()

    def job(self, id: str, visitor: str) -> StudioJob | None:
        """A visitor's own job."""
        job = self.queue.files.get(id)
        return job if job is not None and job.owner == visitor else None

    def visible(self, found: list[Shelved], visitor: str) -> list[Shelved]:
        """Results that a visitor may see: those that lie in the folder, and those of their own jobs."""
        jobs = {job.id: job.owner for job in self.queue.files}
        return [s for s in found if jobs.get(s.file.parent.name, visitor) == visitor]

    def results(self, id: str, visitor: str) -> list[Shelved]:
        """The results behind an id: of a job, or one of the library."""
        if self.job(id, visitor) is not None:
            return self.library.of_job(id)
        return [s for s in self.visible(self.library.all(), visitor) if s.id == id]

    async def page(self, shelved: list[Shelved]) -> str:
        """Results as a page, made once a language: by the worker for all of a job, else here."""
        made = self.settings.page(shelved[0].file.parent.name, chosen())
        if made.exists() and {s.file for s in shelved} == {s.file for s in self.library.of_job(made.stem)}:
            return await asyncio.to_thread(made.read_text)
        key = (chosen(), *((s.file, s.file.stat().st_mtime) for s in shelved))
        if key not in self._pages:
            self._pages[key] = await asyncio.to_thread(_page, shelved)
            while len(self._pages) > 32:
                self._pages.pop(next(iter(self._pages)))
        return self._pages[key]

    def key(self, id: str) -> str:
        """What shows one result to whoever has it."""
        return hmac.new(self._secret, id.encode(), hashlib.sha256).hexdigest()

    def near(self, model: str, text: str) -> list[str]:
        """Classes whose name holds a text, and those that are spelled much like it."""
        labels = self.queue.described.get(model, {}).get("labels") or []
        low = text.casefold()
        holding = [label for label in labels if low in label.casefold()]
        return list(dict.fromkeys([*holding, *get_close_matches(text, labels, n=_FEW, cutoff=0.6)]))[:_FEW]

    def _kept_secret(self) -> bytes:
        file = self.settings.inner / "secret"
        if not file.exists():
            write_bytes(file, secrets.token_bytes(32))
            file.chmod(0o600)
        return file.read_bytes()


def _page(shelved: list[Shelved]) -> str:
    from pellucid.verbs.report import report

    return report([s.file for s in shelved], limit=200.0, home=shelved[0].file.parent).text


def create(settings: StudioSettings) -> Guard:
    """The application, behind its guard."""
    studio = Studio(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await studio.queue.start()
        try:
            yield
        finally:
            await studio.queue.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.studio = studio
    _routes(app, studio)
    return Guard(app, settings)


def _visitor(request: Request) -> str:
    visitor: str = request.state.visitor
    return visitor


def _query(request: Request, **changed: str) -> str:
    """The address of this page with something changed, without its host."""
    return f"?{request.url.include_query_params(**changed).query}"


def _told(jobs: list[StudioJob], language: str) -> list[dict[str, Any]]:
    """How jobs stand: `state` for the script, the rest for who reads it."""
    with speaking(language):
        texts = [(job.told(), ("label", "error")) for job in jobs]
        return [{**t, **{k: translated(t[k]) for k in keys}, "said": translated(t["state"])} for t, keys in texts]


def _missing() -> HTTPException:
    return HTTPException(404)


class _Shown:
    """Pages with what all of them know, in the language that a visitor last chose (`?lang=zh` on any page)."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._cookie = f"pellucid-lang-{studio.settings.port}"

    def language(self, request: Request) -> str:
        """What a visitor reads: chosen now, or before, or for the studio."""
        wanted = (request.query_params.get("lang"), request.cookies.get(self._cookie))
        return next((name for name in wanted if name in LANGUAGES), chosen())

    def __call__(self, page: str, request: Request, status: int = 200, **values: Any) -> HTMLResponse:
        language = self.language(request)
        with speaking(language):
            answer = self._filled(page, request, status, **values)
        if request.query_params.get("lang") == language:
            answer.set_cookie(self._cookie, language, max_age=2_592_000, httponly=True, samesite="strict")
        return answer

    def _filled(self, page: str, request: Request, status: int, **values: Any) -> HTMLResponse:
        queue = self._studio.queue
        about = {
            "models": self._studio.settings.models,
            "catalogue": queue.catalogue,
            "described": queue.described,
            "here": request.url.path,
            "also": {name: _query(request, lang=name) for name in LANGUAGES},
        }
        waits = page in ("explain.html", "importance.html", "model.html") and not queue.catalogue
        return HTMLResponse(render("starting.html" if waits else page, **about, **values), status)

    async def frame(self, found: list[Shelved], request: Request) -> HTMLResponse:
        """Results as the page of a frame.

        Raises:
            HTTPException: there are none.
        """
        if not found:
            raise _missing()
        with speaking(self.language(request)):
            page = await self._studio.page(found)
        return HTMLResponse(page, headers={"content-security-policy": FRAME})


def _routes(app: FastAPI, studio: Studio) -> None:
    @app.exception_handler(404)
    async def not_found(_: Request, __: Exception) -> Response:
        return Response(status_code=404)

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in _STATIC:
            raise _missing()
        place, kind = _STATIC[name]
        return Response((files("pellucid") / place / name).read_bytes(), media_type=kind)

    shown = _Shown(studio)
    _asking(app, studio, shown)
    _jobs(app, studio, shown)
    _looking(app, studio, shown)


def _asking(app: FastAPI, studio: Studio, shown: _Shown) -> None:
    """Forms, and what they ask."""

    @app.get("/")
    async def explain(request: Request) -> HTMLResponse:
        return shown("explain.html", request, clips=False)

    @app.get("/video")
    async def video(request: Request) -> HTMLResponse:
        return shown("explain.html", request, clips=True)

    @app.get("/importance")
    async def importance(request: Request) -> HTMLResponse:
        return shown("importance.html", request)

    @app.get("/model")
    async def model(request: Request) -> HTMLResponse:
        name = request.query_params.get("name") or studio.settings.models[0]
        if name not in studio.settings.models:
            raise _missing()
        return shown("model.html", request, model=name, about=studio.queue.described.get(name))

    @app.get("/labels")
    async def labels(request: Request) -> JSONResponse:
        asked = request.query_params
        return JSONResponse(studio.near(asked.get("model", ""), asked.get("q", "")[:100]))

    @app.get("/costs")
    async def costs(request: Request) -> JSONResponse:
        about = studio.queue.described.get(request.query_params.get("model", ""), {})
        return JSONResponse(about.get("costs") or {})

    @app.post("/jobs")
    async def ask(request: Request) -> Response:
        visitor = _visitor(request)
        async with request.form(max_files=_MANY, max_fields=60) as form:
            texts = {k: [v for v in form.getlist(k) if isinstance(v, str)] for k in form}
            sent = [f for f in form.getlist("file") if isinstance(f, UploadFile) and f.filename]
            try:
                asked = await _asked(studio, visitor, texts, sent)
            except PellucidError as error:
                return shown("refused.html", request, 400, error=str(error))
        job = await studio.queue.put(visitor, asked)
        return RedirectResponse(f"/results/{job.id}", 303)


def _jobs(app: FastAPI, studio: Studio, shown: _Shown) -> None:
    """How jobs stand, told once or as they change; and their end."""
    queue = studio.queue

    @app.get("/jobs")
    async def jobs(request: Request) -> HTMLResponse:
        return shown("jobs.html", request, jobs=queue.files.of(_visitor(request)))

    @app.get("/jobs.json")
    async def states(request: Request) -> JSONResponse:
        return JSONResponse(_told(queue.files.of(_visitor(request)), shown.language(request)))

    @app.get("/events")
    async def events(request: Request) -> StreamingResponse:
        visitor, language = _visitor(request), shown.language(request)

        async def told() -> AsyncIterator[str]:
            before = ""
            while not await request.is_disconnected():
                now = json.dumps(_told(queue.files.of(visitor), language))
                if now != before:
                    yield f"data: {now}\n\n"
                    before = now
                await queue.changed(10.0)
                await asyncio.sleep(0.1)  # progress comes in bursts

        return StreamingResponse(told(), media_type="text/event-stream")

    @app.post("/jobs/{id}/cancel")
    async def cancel(id: str, request: Request) -> Response:
        job = studio.job(id, _visitor(request))
        if job is None:
            raise _missing()
        await queue.cancel(job)
        return RedirectResponse(f"/results/{id}", 303)


def _looking(app: FastAPI, studio: Studio, shown: _Shown) -> None:
    """Results: one, several beside each other, all."""

    @app.get("/results/{id}")
    async def result(id: str, request: Request) -> HTMLResponse:
        visitor = _visitor(request)
        job, found = studio.job(id, visitor), studio.results(id, visitor)
        if job is None and not found:
            raise _missing()
        link = f"/shared/{id}/{studio.key(id)}" if studio.settings.share and found else ""
        return shown("result.html", request, id=id, job=job, results=found, link=link)

    @app.get("/results/{id}/page")
    async def result_page(id: str, request: Request) -> HTMLResponse:
        return await shown.frame(studio.results(id, _visitor(request)), request)

    @app.get("/compare")
    async def compare(request: Request) -> HTMLResponse:
        ids = [i for i in request.query_params.getlist("id") if is_id(i)]
        found = studio.visible(studio.library.all(), _visitor(request))
        return shown("compare.html", request, results=[s for s in found if s.kind == "explanation"], ids=ids)

    @app.get("/compare/page")
    async def compare_page(request: Request) -> HTMLResponse:
        ids = set(request.query_params.getlist("id")[:_COMPARED])
        found = studio.visible(studio.library.all(), _visitor(request))
        return await shown.frame([s for s in found if s.id in ids], request)

    @app.get("/library")
    async def library(request: Request) -> HTMLResponse:
        wanted = {k: request.query_params.get(k, "") for k in ("model", "method", "verdict")}
        text = request.query_params.get("q", "")[:200]
        everything = studio.visible(studio.library.all(), _visitor(request))
        choices = {k: sorted({getattr(s, k) for s in everything} - {""}) for k in wanted}
        found = studio.visible(studio.library.find(text, **wanted), _visitor(request))
        return shown("library.html", request, results=found, choices=choices, wanted=wanted, text=text)

    @app.get("/shared/{id}/{key}")
    async def shared(id: str, key: str, request: Request) -> HTMLResponse:
        return await shown.frame(_shared(studio, id, key), request)


def _shared(studio: Studio, id: str, key: str) -> list[Shelved]:
    if not studio.settings.share or not is_id(id) or not hmac.compare_digest(key.encode(), studio.key(id).encode()):
        raise HTTPException(404)
    return studio.library.of_job(id) or [s for s in studio.library.all() if s.id == id]


def _result(studio: Studio, visitor: str, id: str) -> Shelved:
    """A result that this visitor may see.

    Raises:
        PellucidError: there is none.
    """
    found = studio.visible(studio.library.all(), visitor)
    wanted = next((s for s in found if s.id == id), None)
    if wanted is None:
        raise PellucidError("This result is not here any more: choose one of the library.")
    return wanted


async def _asked(studio: Studio, visitor: str, texts: dict[str, list[str]], sent: list[UploadFile]) -> JobRequest:
    """What a form asks, every part of it looked up or kept under a name made here.

    Raises:
        PellucidError: something that is not asked for here; the sentence says what.
    """
    settings = studio.settings

    def one(name: str) -> str:
        return (texts.get(name) or [""])[0].strip()

    verb, model = one("verb"), one("model")
    if verb not in _OPTIONS:
        raise PellucidError("This studio does not do that: choose one of its pages.")
    kept_result = _result(studio, visitor, one("result")) if verb in ("more", "verify") else None
    if kept_result is not None:
        model = kept_result.source
    if model not in settings.models:
        raise PellucidError(f"This studio was not started with that model: it has {', '.join(settings.models)}.")
    busy = [job for job in studio.queue.files.of(visitor) if not job.over]
    if len(busy) >= settings.waiting:
        raise PellucidError(f"You have {len(busy)} jobs waiting: let one end, or cancel one.")
    options = {name: ",".join(t.strip() for t in texts.get(name, ()) if t.strip()) for name in _OPTIONS[verb]}
    if any(len(value) > _LONGEST for value in options.values()):
        raise PellucidError(f"A field has more than {_LONGEST} letters: shorten it.")
    options = {name: value for name, value in options.items() if value or name == "check"}
    if kept_result is not None:
        return JobRequest(verb, model, str(kept_result.file), kept_result.file.name, options)
    if sent:
        return JobRequest(verb, model, *await _sent(studio, visitor, verb, sent), options)
    return JobRequest(verb, model, _chosen(studio, verb, one), "", options)


async def _sent(studio: Studio, visitor: str, verb: str, sent: list[UploadFile]) -> tuple[str, str]:
    """Uploads, kept: where they are, and what the visitor calls them."""
    settings = studio.settings
    folder = settings.inner / "uploads" / visitor
    room = settings.stored - stored(folder)
    if verb == "distill":
        home, shown = await kept_together(sent, folder, settings.upload, room)
        return str(home), shown
    if len(sent) > 1:
        raise UploadError("Send one file: several are taken to learn a readable model from.")
    file, shown = await kept(sent[0], folder, settings.upload, room)
    return str(file), shown


def _chosen(studio: Studio, verb: str, one: Callable[[str], str]) -> str:
    """What comes with the program and was chosen; empty where nothing is needed."""
    catalogue = studio.queue.catalogue
    if verb == "distill":
        if one("pictures") not in _SETS:
            raise UploadError("There is nothing to learn from: choose pictures, or one of the sets.")
        return one("pictures")
    if (sample := one("sample")) in catalogue.get("samples", ()):
        return f"sample:{sample}"
    if (suite := one("suite")) in catalogue.get("suites", ()):
        return f"suite:{suite}"
    if verb in ("explain", "importance", "activations"):
        raise UploadError("There is nothing to look at: choose a file, or one of the samples.")
    return ""
