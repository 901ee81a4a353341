"""Python's servers as their quick starts have them, each with its own limits: `stacks.py NAME PORT`.

Each answers with what it has received, as docs/receivers.md defines it.
"""
import asyncio
import base64
import hashlib
import json
import logging
import os
import sys


def received(event):
    """The answer to an event: a dict, or the fields of a form."""
    ext_data = event.get("ext_data") or {}
    if not isinstance(ext_data, dict):
        try:
            ext_data = json.loads(ext_data)
        except ValueError:  # cut
            ext_data = {}
    pictures = {"reg_pic": event.get("reg_pic"), "spot_pic": ext_data.get("spot_pic")}
    decoded = {name: base64.b64decode(text) for name, text in pictures.items() if text}
    return {"received": {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in decoded.items()}}


def flask(port):
    from flask import Flask, request

    app = Flask(__name__)

    @app.post("/")
    def receive():
        return received(request.get_json() if request.is_json else request.form)

    exec(os.environ.get("SETTING", ""), {"app": app})  # the line that `try` prints, taken as it stands
    app.run(port=port)


def quart(port):
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from quart import Quart, request

    app = Quart(__name__)

    @app.post("/")
    async def receive():
        return received(await request.get_json() if request.is_json else await request.form)

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    asyncio.run(serve(app, config))


def django(port):
    from django.conf import settings
    from django.core.servers.basehttp import WSGIServer, run
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse
    from django.urls import path

    def receive(request):
        is_json = request.content_type == "application/json"
        return JsonResponse(received(json.loads(request.body) if is_json else request.POST))

    settings.configure(ROOT_URLCONF=(path("", receive),), ALLOWED_HOSTS=["*"], SECRET_KEY="a test's")
    run("127.0.0.1", port, get_wsgi_application(), threading=True, server_cls=WSGIServer)


def fastapi(port):
    import uvicorn
    from fastapi import FastAPI, Request

    app = FastAPI()

    @app.post("/")
    async def receive(request: Request):
        is_json = request.headers["content-type"] == "application/json"
        return received(await request.json() if is_json else await request.form())

    uvicorn.run(app, port=port)


def aiohttp(port):
    from aiohttp import web

    async def receive(request):
        is_json = request.content_type == "application/json"
        return web.json_response(received(await request.json() if is_json else await request.post()))

    app = web.Application()
    app.router.add_post("/", receive)
    web.run_app(app, host="127.0.0.1", port=port)


def litestar(port):
    import uvicorn
    from litestar import Litestar, Request, post

    @post("/")
    async def receive(request: Request) -> dict:
        is_json = request.content_type[0] == "application/json"
        return received(await request.json() if is_json else await request.form())

    uvicorn.run(Litestar([receive]), port=port)


def falcon(port):
    import falcon
    import waitress

    class Receive:
        def on_post(self, request, answer):
            if request.content_type == "application/json":
                event = request.get_media()
            else:
                event = {part.name: part.text for part in request.get_media()}
            answer.media = received(event)

    app = falcon.App()
    app.add_route("/", Receive())
    waitress.serve(app, host="127.0.0.1", port=port)


def bottle(port):
    import bottle

    @bottle.post("/")
    def receive():
        request = bottle.request
        return received(request.json if request.json is not None else request.forms)

    bottle.run(host="127.0.0.1", port=port)


def tornado(port):
    import tornado.web

    class Receive(tornado.web.RequestHandler):
        def post(self):
            is_json = self.request.headers["Content-Type"] == "application/json"
            fields = {name: values[0] for name, values in self.request.body_arguments.items()}
            self.write(received(json.loads(self.request.body) if is_json else fields))

    async def serve():
        tornado.web.Application([("/", Receive)]).listen(port, "127.0.0.1")
        await asyncio.Event().wait()

    asyncio.run(serve())


def cherrypy(port):
    import cherrypy

    class Receive:
        @cherrypy.expose
        @cherrypy.tools.json_in(force=False)
        @cherrypy.tools.json_out()
        def index(self, **fields):
            return received(getattr(cherrypy.request, "json", None) or fields)

    cherrypy.config.update({"server.socket_port": port})
    cherrypy.quickstart(Receive())


logging.basicConfig(level=logging.WARNING)
globals()[sys.argv[1]](int(sys.argv[2]))
