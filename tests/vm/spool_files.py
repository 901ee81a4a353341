"""What lies in a spool, read by other code than the uplink's: the formats are in src/spool/file.rs and src/spool/group.rs."""

import struct
import zlib

MAGIC = b"SPOHEVNT"
HEADER = 64


GROUP, GROUP_HEAD = 3, 0x140


def event_id(path):
    """The id of the event in that file, or None where the uplink would not send it."""
    content = event_of(path.read_bytes(), int(path.stem))
    if len(content) < HEADER or content[:8] != MAGIC:
        return None
    header_crc = struct.unpack_from("<I", content, 0x3C)[0]
    length, record_crc = struct.unpack_from("<Q", content, 0x10)[0], struct.unpack_from("<I", content, 0x30)[0]
    record = content[HEADER:]
    if zlib.crc32(content[:0x3C]) != header_crc or len(record) != length or zlib.crc32(record) != record_crc:
        return None
    return f"{content[0x18:0x28].hex()}-{struct.unpack_from('<Q', content, 0x28)[0]}"


def event_of(content, number):
    """What a file has of the event with this number: a group's file has several."""
    for head in (content[:GROUP_HEAD], content[-GROUP_HEAD:]):
        if len(head) < GROUP_HEAD or head[:8] != MAGIC or struct.unpack_from("<I", head, 8)[0] != GROUP:
            continue
        header_crc, table_crc = struct.unpack_from("<I", head, 0x3C)[0], struct.unpack_from("<I", head, 0x30)[0]
        if zlib.crc32(head[:0x3C]) != header_crc or zlib.crc32(head[HEADER:]) != table_crc:
            continue
        first, count = struct.unpack_from("<2Q", head, 0x10)
        ends = [GROUP_HEAD, *struct.unpack_from(f"<{count}Q", head, HEADER)]
        at = number - first
        return content[ends[at]:ends[at + 1]] if 0 <= at < count else b""
    return content


def event_ids(spool):
    """The ids of all events that wait for a destination in this spool."""
    return {event_id(path) for path in spool.glob("to/*/*.event")} - {None}
