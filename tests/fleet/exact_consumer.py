"""A consumer that is exact by its own store, as examples/fleet/consumer.py is by PostgreSQL. SQLite needs no server.

    exact_consumer.py SERVERS SEED CA DATABASE

The event's id is the key. It stores the digests that it computed itself, not those that the gateway noted. It commits a batch before it
acknowledges the messages, so that it may be killed at any moment. If the stream has an id at a second place, the key keeps the message
out of `events`, and `again` shows it."""

import asyncio
import json
import logging
import signal
import sqlite3
import ssl
import sys
from pathlib import Path
from types import SimpleNamespace

import nats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "fleet"))
from consumer import PING, fields, pull, run, take_pictures  # noqa: E402

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, box TEXT NOT NULL, sequence INTEGER NOT NULL, pictures TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS again (id TEXT NOT NULL, sequence INTEGER NOT NULL, UNIQUE (id, sequence));
"""


def store(database, messages):
    """Stores messages in one transaction."""
    with database:
        for message in messages:
            event = fields(message.headers["Content-Type"], message.data)
            pictures = take_pictures(event, message.headers["Event-Pictures"])
            pictures = {name.rpartition("/")[2]: {"sha256": digest, "bytes": len(jpeg)} for name, digest, jpeg in pictures}
            event_id, sequence = message.headers["Event-Id"], message.metadata.sequence.stream
            row = (event_id, message.subject.split(".")[1], sequence, json.dumps(pictures))
            if database.execute("INSERT INTO events VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row).rowcount:
                continue
            (known,) = database.execute("SELECT sequence FROM events WHERE id = ?", (event_id,)).fetchone()
            if known != sequence:
                database.execute("INSERT INTO again VALUES (?, ?) ON CONFLICT DO NOTHING", (event_id, sequence))


async def consume(servers, seed, ca, path):
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(SCHEMA)
    tls = ssl.create_default_context(cafile=ca)
    client = await nats.connect(servers.split(","), max_reconnect_attempts=-1, ping_interval=PING, nkeys_seed=seed, tls=tls)
    inbox = await client.subscribe(f"{client.new_inbox()}.*")
    what = SimpleNamespace(stream="EVENTS", consumer="store")
    while not stopped.is_set():
        messages = [message async for message in pull(client, inbox, what)]
        store(database, messages)
        for message in messages:
            await message.ack()
    await client.drain()
    database.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    run(consume(*sys.argv[1:]))
