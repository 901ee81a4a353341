"""python client.py LIBRARY KIND URL A B: the documented call with two URLs and without registered pictures."""
import asyncio
import json
import sys
import urllib.parse
import urllib.request

library, kind, url, a, b = sys.argv[1:]
call = {"event_server_url": [a, b], "real_need_reg_pic": False, "content-type": "json"}
fields = [("event_server_url", a), ("event_server_url", b), ("real_need_reg_pic", "false"), ("content-type", "json")]
parts = [(name, (None, value)) for name, value in fields]


async def with_aiohttp():
    import aiohttp
    form = aiohttp.FormData(default_to_multipart=kind == "multipart")
    for name, value in fields:
        form.add_field(name, value)
    async with aiohttp.ClientSession() as session:
        async with session.post(url, **({"json": call} if kind == "json" else {"data": form})) as answer:
            assert answer.status == 200, await answer.text()

if library == "aiohttp":
    asyncio.run(with_aiohttp())
elif library == "urllib":
    # Its JSON says that it is a form.
    body = json.dumps(call) if kind == "json" else urllib.parse.urlencode(call, doseq=True)
    urllib.request.urlopen(url, body.encode()).read()
else:
    import importlib
    post = importlib.import_module(library).post
    given = {"json": {"json": call}, "form": {"data": call}, "multipart": {"files": parts}, "untyped": {"data": json.dumps(call)}}
    if library == "httpx" and kind == "untyped":
        given["untyped"] = {"content": json.dumps(call)}
    answer = post(url, **given[kind])
    assert answer.status_code == 200, answer.text
