#!/usr/bin/env python3
"""Copies events from the stream to PostgreSQL, each exactly once.

    python3 examples/fleet/consumer.py --servers nats://a:4222,… --database postgresql://… [--seed FILE] [--tls-ca FILE] [--count N]

It needs Python 3.11 or newer with nats-py, nkeys and psycopg (docs/fleet.md says how to get them).

The stream delivers at least once, and remembers ids only for its duplicate_window. A box that was offline for longer sends its
unacknowledged events again. So the id is a primary key here. An event and its pictures are one transaction, which is committed
before the message is acknowledged. A consumer that is killed at any moment leaves no partial event, and gets unacknowledged
messages again. Any number of these consumers may run.

A message that cannot be stored, however often it is tried, is terminated; the log says why, and its number in the stream, which keeps
it until max_age. Other failures, as of a lost connection to the database, end the program without an acknowledgement: start it again.

The durable consumer must exist (consumer.json); its max_ack_pending, max_batch and max_bytes limit the messages in flight.
"""

import argparse
import asyncio
import base64
import binascii
import hashlib
import itertools
import json
import logging
import signal
import ssl
import sys
from email import message_from_bytes
from email.policy import HTTP

import nats
import psycopg

# Per pull. Without a byte limit, a server too slow to send the whole batch in time sends all of it again.
BATCH, BYTES = 16, 32 << 20
PATIENCE = 3  # seconds that the server may wait for the next message
PING = 5  # seconds; two without an answer end a connection. The library's 120 keep it for minutes at a server that is cut off
NOTHING_YET = ("404", "408")  # the server has no messages; none came in time
JPEG = b"\xff\xd8\xff"
# A value that PostgreSQL never takes: half a character or 1e999 in its jsonb; a text that is too long for an index.
NEVER_STORED = (psycopg.DataError, psycopg.errors.ProgramLimitExceeded)
# What Python says of data that is not as expected.
NOT_AS_EXPECTED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
PULLS = itertools.count()
log = logging.getLogger("consumer")


class Unusable(Exception):
    """A message that cannot be stored, however often it is tried."""


def fields(content_type, data):
    """An event as a dict, from JSON or a form."""
    if not content_type.startswith("multipart/form-data"):
        return json.loads(data)
    form = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + data, policy=HTTP)
    event = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True).decode() for part in form.iter_parts()}
    return {**event, "score": float(event["score"]), "timestamp": int(event["timestamp"]), "ext_data": json.loads(event["ext_data"])}


def take_pictures(event, noted):
    """Removes the pictures that the gateway listed from the event: (name, digest, bytes). ValueError, KeyError: not as listed."""
    found = []
    for note in filter(None, noted.split(", ")):
        name, _, what = note.partition("=")
        holder, key = (event["ext_data"], name.removeprefix("ext_data/")) if name.startswith("ext_data/") else (event, name)
        key = {escaped(known): known for known in holder}[key]
        try:
            jpeg = base64.b64decode(holder[key], validate=True)
        except binascii.Error as error:
            raise ValueError(f"{name} is no base64") from error
        digest = hashlib.sha256(jpeg).hexdigest()
        if f"{digest}:{len(jpeg)}" != what or not jpeg.startswith(JPEG):
            raise ValueError(f"{name} is not what the gateway noted")
        holder[key] = {"sha256": digest, "bytes": len(jpeg)}
        found.append((name, digest, jpeg))
    return found


def escaped(name):
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 or byte in b"-_" else f"%{byte:02X}" for byte in name.encode())


def without_nul(value):
    """Removes the character NUL, which PostgreSQL does not allow in a text."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {without_nul(key): without_nul(one) for key, one in value.items()}
    return [without_nul(one) for one in value] if isinstance(value, list) else value


def read(message):
    """A message as a row: (kind, values, pictures). Unusable: it is none that a gateway made."""
    try:
        _, box, kind = message.subject.split(".")
        headers = message.headers
        event = fields(headers["Content-Type"], message.data)
        if kind == "status":
            return kind, (box, headers["Event-Received"], json.dumps(without_nul(event))), []
        pictures = take_pictures(event, headers.get("Event-Pictures", ""))
        event = without_nul(event)
        identity = event["identity_id"], event["identity_name"]
        "".join(identity).encode()  # a number, or half a character
        values = (headers["Nats-Msg-Id"], box, kind, int(headers["Event-Time"]) / 1000, float(headers["Event-Score"]))
        return kind, (*values, *identity, json.dumps(event)), pictures
    except NOT_AS_EXPECTED as error:
        raise Unusable(repr(error)) from error


async def insert(database, kind, values, pictures):
    """Stores a row. Returns whether it was new."""
    if kind == "status":
        await database.execute(
            "INSERT INTO boxes VALUES (%s, %s, %s) ON CONFLICT (box) DO UPDATE SET heard_at = excluded.heard_at,"
            " report = excluded.report WHERE boxes.heard_at < excluded.heard_at",
            values,
        )
        return True
    inserted = await database.execute(
        "INSERT INTO events VALUES (%s, %s, %s, to_timestamp(%s), %s, %s, %s, %s) ON CONFLICT DO NOTHING", values
    )
    if not inserted.rowcount:
        return False
    # In a fixed order, so that consumers cannot deadlock.
    for name, digest, jpeg in sorted(pictures, key=lambda picture: picture[1]):
        await database.execute("INSERT INTO pictures VALUES (%s, %s) ON CONFLICT DO NOTHING", (digest, jpeg))
        await database.execute("INSERT INTO event_pictures VALUES (%s, %s, %s)", (values[0], name, digest))
    return True


async def store(database, message):
    """Stores a message in one transaction. Returns whether it was new. Unusable: it cannot be stored."""
    kind, values, pictures = read(message)
    try:
        async with database.transaction():
            return await insert(database, kind, values, pictures)
    except NEVER_STORED as error:
        raise Unusable(repr(error)) from error


async def pull(client, inbox, arguments):
    """Requests the next messages. Ends after that many, or when the server says that there are no more for now, or refuses."""
    request = {"batch": BATCH, "max_bytes": BYTES, "expires": PATIENCE * 1_000_000_000}
    where = f"$JS.API.CONSUMER.MSG.NEXT.{arguments.stream}.{arguments.consumer}"
    reply = inbox.subject.replace("*", str(next(PULLS)))
    await client.publish(where, json.dumps(request).encode(), reply=reply)
    number = 0
    while number < BATCH:
        try:
            message = await inbox.next_msg(timeout=2 * PATIENCE)
        except nats.errors.TimeoutError:
            return  # the connection was lost: request again
        if status := (message.headers or {}).get("Status"):
            if message.subject != reply:
                continue  # the end of an earlier request
            why = message.headers.get("Description", status)
            if number == 0 and status not in NOTHING_YET and why != "Batch Completed":
                log.warning("the server refuses to send: %s", why)
                await asyncio.sleep(PATIENCE)
            return
        number += 1
        yield message


async def consume(arguments):
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    options = {"nkeys_seed": arguments.seed} if arguments.seed else {}
    if arguments.tls_ca:
        options["tls"] = ssl.create_default_context(cafile=arguments.tls_ca)
    client = await nats.connect(arguments.servers.split(","), max_reconnect_attempts=-1, ping_interval=PING, **options)
    database = await psycopg.AsyncConnection.connect(arguments.database, autocommit=True)
    encoding = database.info.parameter_status("server_encoding")
    if encoding != "UTF8":  # it has no characters for most names: all of their events would be left out
        sys.exit(f"the database's encoding is {encoding}: make one with the encoding UTF8")
    inbox = await client.subscribe(f"{client.new_inbox()}.*")  # a subject for each request
    new, known = 0, 0
    while not stopped.is_set() and (arguments.count is None or new < arguments.count):
        async for message in pull(client, inbox, arguments):
            try:
                is_new = await store(database, message)
            except Unusable as error:
                number = message.metadata.sequence.stream
                log.error("message %d, %s, cannot be stored and is left out: %s", number, message.subject, error)
                await message.term()
                continue
            await message.ack()
            new, known = new + is_new, known + (not is_new)
            log.info("%d stored, %d were there", new, known)
    await database.close()
    await client.drain()


class Loop(asyncio.SelectorEventLoop):
    """Closes a TLS connection after PATIENCE. asyncio waits 30 s for a server that is cut off, and nats-py waits with it."""

    async def start_tls(self, *arguments, **options):
        return await super().start_tls(*arguments, **{"ssl_shutdown_timeout": PATIENCE, **options})


def run(program):
    """Runs a coroutine to its end."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(program)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--stream", default="EVENTS")
    parser.add_argument("--consumer", default="store")
    parser.add_argument("--seed", help="the consumer's nkey")
    parser.add_argument("--tls-ca", help="CA certificates of the servers")
    parser.add_argument("--count", type=int, help="end after this many new messages")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    run(consume(parser.parse_args()))


if __name__ == "__main__":
    main()
