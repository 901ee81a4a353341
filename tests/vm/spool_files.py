"""What lies in a spool, read by other code than the uplink's: the format is in src/spool/file.rs."""

import struct
import zlib

MAGIC = b"SPOHEVNT"
HEADER = 64


def event_id(path):
    """The id of the event in that file, or None where the uplink would not send it."""
    content = path.read_bytes()
    if len(content) < HEADER or content[:8] != MAGIC:
        return None
    header_crc = struct.unpack_from("<I", content, 0x3C)[0]
    length, record_crc = struct.unpack_from("<Q", content, 0x10)[0], struct.unpack_from("<I", content, 0x30)[0]
    record = content[HEADER:]
    if zlib.crc32(content[:0x3C]) != header_crc or len(record) != length or zlib.crc32(record) != record_crc:
        return None
    return f"{content[0x18:0x28].hex()}-{struct.unpack_from('<Q', content, 0x28)[0]}"


def event_ids(spool):
    """The ids of all events that wait for a destination in this spool."""
    return {event_id(path) for path in spool.glob("to/*/*.event")} - {None}
