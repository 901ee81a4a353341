#!/usr/bin/env bash
# Two middlewares for Idempotency-Key surprise: one answers 409 to a request that it has taken before. The other repeats a 500
# for ever, or takes a request twice.
#
# Guess before the run: a request that is repeated because its answer was lost gets the first answer again. One that is repeated
# because of a 500 is processed again, because that is why its sender repeats it. express-idempotency 1.0.6 (with Express
# 4.21.2) does so.
# Seen: django-idempotency-key 1.3.0 (with Django 4.2.16) answers 409 to a request that it answered with 200.
# asgi-idempotency-header 0.2.0 (with Starlette 0.38.6) repeats a 500 whose body is JSON and never calls the handler again. If
# the answer's body is text, it stores nothing, and takes the repeated request a second time.
# For a receiver: IDEMPOTENCY_KEY = {"CONFLICT_STATUS_CODE": None} for django-idempotency-key; for asgi-idempotency-header JSON
# in every 2xx and text in every 5xx. Or use a unique key in your own store.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python asgi-idempotency-header==0.2.0 starlette==0.38.6 fastapi==0.115.0 httpx==0.27.2 django==4.2.16 django-idempotency-key==1.3.0
node_packages express@4.21.2 express-idempotency@1.0.6
cat >keys.py <<'CODE'
import asyncio
import httpx
import django
from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.urls import path
from idempotency_header_middleware import IdempotencyHeaderMiddleware
from idempotency_header_middleware.backends import MemoryBackend
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

KEY = "5f0c1d9a7be24c3388d1f06a42b9e7c5-1042"
calls = 0
# What the handler says when it is called for the first time, and then.
SCRIPT = {"/taken": [200, 200], "/failed": [500, 200]}


def told(what, statuses):
    print(f"{what}: {statuses[0]}, then {statuses[1]}; the handler was called {'once' if calls == 1 else 'twice'}")


def status_of(place):
    global calls
    calls += 1
    return SCRIPT[place][min(calls, 2) - 1]


async def starlette_with(answer, name):
    global calls
    for place in SCRIPT:
        calls = 0
        app = Starlette(routes=[Route(place, lambda request: answer({"said": place}, status_of(request.url.path)), methods=["POST"])])
        app.add_middleware(IdempotencyHeaderMiddleware, backend=MemoryBackend())
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://box") as client:
            statuses = [(await client.post(place, headers={"Idempotency-Key": KEY})).status_code for _ in range(2)]
        told(f"asgi-idempotency-header, {name}, {place[1:]}", statuses)


def view(request):
    return JsonResponse({"said": request.path}, status=status_of(request.path))


urlpatterns = [path(place[1:], view) for place in SCRIPT]


def django_with(options, name):
    global calls
    from django.core.cache import cache
    from django.test import Client
    settings.IDEMPOTENCY_KEY = options
    for place in SCRIPT:
        calls = 0
        cache.clear()
        client = Client(raise_request_exception=False)
        statuses = [client.post(place, HTTP_IDEMPOTENCY_KEY=KEY).status_code for _ in range(2)]
        told(f"django-idempotency-key, {name}, {place[1:]}", statuses)


asyncio.run(starlette_with(JSONResponse, "JSON"))
asyncio.run(starlette_with(lambda body, status: PlainTextResponse("said", status), "text"))
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=["idempotency_key.middleware.IdempotencyKeyMiddleware"], SECRET_KEY="x")
django.setup()
django_with({}, "as it comes")
django_with({"CONFLICT_STATUS_CODE": None}, "CONFLICT_STATUS_CODE None")
CODE
cat >keys.js <<'CODE'
const express = require("express");
const idempotency = require("express-idempotency");

(async () => {
    for (const [place, script] of [["taken", [200, 200]], ["failed", [500, 200]]]) {
        const app = express();
        let calls = 0;
        app.use(idempotency.idempotency());
        app.post("/", (request, response) => {
            if (idempotency.getSharedIdempotencyService().isHit(request)) return;
            response.status(script[Math.min(++calls, 2) - 1]).json({ said: place });
        });
        const server = app.listen(0, "127.0.0.1");
        await new Promise((done) => server.once("listening", done));
        const statuses = [];
        for (let time = 0; time < 2; time++) {
            const answer = await fetch(`http://127.0.0.1:${server.address().port}/`, { method: "POST", headers: { "Idempotency-Key": `key-${place}` } });
            await answer.text();
            statuses.push(answer.status);
        }
        console.log(`express-idempotency, ${place}: ${statuses[0]}, then ${statuses[1]}; the handler was called ${calls === 1 ? "once" : "twice"}`);
        server.closeAllConnections();
        server.close();
    }
})();
CODE
venv/bin/python -W ignore keys.py >seen 2>errors || { cat errors >&2; exit 1; }
node keys.js >>seen
cat >expected <<'SEEN'
asgi-idempotency-header, JSON, taken: 200, then 200; the handler was called once
asgi-idempotency-header, JSON, failed: 500, then 500; the handler was called once
asgi-idempotency-header, text, taken: 200, then 200; the handler was called twice
asgi-idempotency-header, text, failed: 500, then 200; the handler was called twice
django-idempotency-key, as it comes, taken: 200, then 409; the handler was called once
django-idempotency-key, as it comes, failed: 500, then 200; the handler was called twice
django-idempotency-key, CONFLICT_STATUS_CODE None, taken: 200, then 200; the handler was called once
django-idempotency-key, CONFLICT_STATUS_CODE None, failed: 500, then 200; the handler was called twice
express-idempotency, taken: 200, then 200; the handler was called once
express-idempotency, failed: 500, then 200; the handler was called twice
SEEN
same expected seen
