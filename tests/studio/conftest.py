"""A studio without a worker, asked in this process; a visitor is a client that showed the token."""

from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pellucid.studio.settings import StudioSettings

pytest.importorskip("fastapi", reason="the extra `studio` is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")

PORT = 8760
BASE = f"http://127.0.0.1:{PORT}"
ORIGIN = {"origin": BASE}
KEPT = Path(__file__).parents[1] / "results" / "kept"


@pytest.fixture
def settings(tmp_path):
    return StudioSettings(
        tmp_path / "results", models=("net-a", "net-b"), port=PORT, token="right", upload=200_000, share=True
    )


@pytest.fixture
def app(settings):
    from pellucid.studio.app import create

    made = create(settings)
    made.studio = made._app.state.studio
    made.studio.queue.catalogue = {
        "methods": [{"name": "grad-cam", "family": "cam", "cost": "1 forward", "needs": "a layer"}],
        "samples": {"cat": "a cat"},
        "suites": ["motion"],
        "features": ["superpixels"],
        "estimators": ["shapley"],
    }
    made.studio.queue.described["net-a"] = {"labels": ["tabby", "tiger cat", "lynx"], "layers": [], "clips": False}
    return made


@pytest.fixture
def client(app):
    def make(**headers):
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE, headers=headers)

    return make


@pytest.fixture
def visitor(client):
    @asynccontextmanager
    async def come(**headers):
        async with client(**headers) as made:
            answer = await made.get("/", params={"token": "right"})
            assert answer.status_code == 303
            yield made

    return come
