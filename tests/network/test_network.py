"""The promises about networks: slow, far and lossy links deliver everything once; a name's addresses are tried as RFC 8305 says.

    tests/network/run PROGRAMS [slice|full]     in namespaces of its own, see there
"""
import itertools
import json
import os
import random
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))
from box import Box  # noqa: E402
from network import Dns, Link, Network, Server  # noqa: E402

PROGRAMS = sys.argv[1]
NAME = "cloud.test"
# No assertion is on time; this is for what hangs.
LIMIT = 120


def status(box):
    with urllib.request.urlopen(f"{box.url}/api/status", timeout=10) as answer:
        return json.load(answer)


def resolv_conf(text="nameserver 127.0.0.1\noptions timeout:20 attempts:1\n"):
    Path(os.environ["SOPHON_RESOLV_CONF"]).write_text(text)


def pictures(folder, *sizes):
    generator = random.Random(7)
    for number, size in enumerate(sizes):
        (Path(folder) / f"{number}.jpg").write_bytes(generator.randbytes(size))
    return folder


def publish(box, count, folder):
    box.publish(count, rate=1000, pictures=folder)


# --- links ---

def test_every_event_arrives_once_over_slow_far_and_lossy_links(conditions, count, sizes, seed):
    """Every event arrives once over every link, without a failed try."""
    every = [Link(), *(Link(rate * 1000, rtt, loss) for rate, rtt, loss in conditions)]
    network = Network(every, seed)
    server = Server()
    urls = [f"http://10.{number}.0.2:{server.port}/{number}" for number in range(1, len(every))]
    slowest = min(link.rate for link in every)
    limit = LIMIT + 20 * count * sum(sizes) / len(sizes) * 2 * 4 / 3 / slowest
    for batch in (range(at, min(at + 16, len(urls))) for at in range(0, len(urls), 16)):
        with tempfile.TemporaryDirectory() as folder:
            box = Box(PROGRAMS, {"event_server_url": [urls[index] for index in batch]})
            publish(box, count, pictures(folder, *sizes))
            box.wait(lambda: all(one["acknowledged"] >= count for one in status(box)["destinations"]), "all is delivered", limit)
            told = status(box)["destinations"]
            box.stop()
        for index, one in zip(batch, told):
            link, address = every[index + 1], f"10.{index + 1}.0.2"
            got = [event for peer, event in server.got if peer == address]
            what = f"{link.rate / 1000:g} KB/s, {link.rtt} s, {link.loss:.0%} lost"
            assert one["failed_tries"] == 0, f"{what}: {one['failed_tries']} failed tries: {one['last_error']}"
            assert len(got) == len(set(got)) == count, f"{what}: {len(got)} came, {len(set(got))} different ones"
            print(f"  {what}: {count} events, {link.lost} packets lost, up to {link.most_queued / 1000:.0f} KB queued | ok", flush=True)


def a_slice_of_links(seed):
    conditions = [(2, 0.1, 0), (5, 0.6, 0.01), (10, 2.0, 0.05), (20, 0.3, 0.02), (50, 0.05, 0), (50, 1.0, 0.05), (2, 2.0, 0.02), (2, 0.02, 0.01)]
    test_every_event_arrives_once_over_slow_far_and_lossy_links(conditions, 5, (3_000, 6_000), seed)


def every_link(seed):
    conditions = list(itertools.product((2, 5, 10, 20, 50), (0.02, 0.5, 1.0, 2.0), (0, 0.01, 0.05)))
    test_every_event_arrives_once_over_slow_far_and_lossy_links(conditions, 12, (4_000, 20_000, 60_000), seed)


# --- names ---

class Names:
    """A destination that is a name, with what DNS knows of it."""

    def __init__(self, addresses, links=(0.01,), keeps_alive=False, config=None, **dns):
        self.network = NETWORK
        self.network.links[1:] = [Link(rtt=rtt) for rtt in links]
        self.network.dead.clear()
        self.network.syns.clear()
        DNS.zone, DNS.delay, DNS.silent = {NAME: addresses}, dns.get("delay", 0.0), dns.get("silent", ())
        self.server = Server(keeps_alive)
        self.box = Box(PROGRAMS, {"event_server_url": [f"http://{NAME}:{self.server.port}/"], **(config or {})})
        self.folder = tempfile.TemporaryDirectory()
        pictures(self.folder.name, 2_000)

    def send(self, count=1):
        got = len(self.server.got)
        publish(self.box, count, self.folder.name)
        self.box.wait(lambda: len(self.server.got) >= got + count, f"{count} events have come", LIMIT)

    def told(self):
        return status(self.box)["destinations"][0]

    def end(self):
        told = self.told()
        self.box.stop()
        self.folder.cleanup()
        return told


def test_the_address_that_answers_is_the_first_one_of_the_next_connection():
    names = Names(["10.1.0.2", "10.1.0.3"])
    names.network.dead.add("10.1.0.2")
    names.send()
    names.network.syns.clear()
    for _ in range(3):
        names.send()
    assert set(names.network.syns) == {"10.1.0.3"}, names.network.syns
    assert names.end()["failed_tries"] == 0


def test_a_dead_ipv6_address_costs_no_try():
    names = Names(["fd00::1", "10.1.0.3"])
    names.send(3)
    assert names.end()["failed_tries"] == 0


def test_eight_addresses_far_away_deliver():
    names = Names([f"10.1.0.{number}" for number in range(2, 10)], links=(0.7,))
    names.send(2)
    assert names.end()["failed_tries"] == 0


def test_slow_dns_and_a_dead_first_address_deliver():
    names = Names(["10.1.0.2", "10.1.0.3"], delay=1.0)
    names.network.dead.add("10.1.0.2")
    names.send()
    assert names.end()["failed_tries"] == 0


def test_a_dns_server_that_never_answers_for_ipv6_delivers():
    names = Names(["10.1.0.2"], silent=(28,))
    names.send(2)
    assert names.end()["failed_tries"] == 0


def test_an_address_that_refuses_is_named_although_the_dns_server_never_answers_for_ipv6():
    names = Names(["10.1.0.2"], silent=(28,), config={"timeouts_ms": {"connect": 1000}})
    names.server.close()
    publish(names.box, 1, names.folder.name)
    names.box.wait(lambda: names.told()["last_error"], "the failure is told")
    assert names.end()["last_error_code"] == "connect_refused"


def test_an_answer_for_ipv6_alone_that_leads_nowhere_waits_for_ipv4():
    names = Names(["fd00::1", "10.1.0.2"], silent=())
    DNS.delay = 0.2
    names.send()
    assert names.end()["failed_tries"] == 0


def test_a_dns_server_that_hangs_is_named():
    names = Names(["10.1.0.2"], silent=(1, 28), config={"timeouts_ms": {"connect": 1000}})
    publish(names.box, 1, names.folder.name)
    names.box.wait(lambda: names.told()["last_error"], "the failure is told")
    told = names.told()
    assert told["last_error_code"] == "dns_timeout" and "DNS server" in told["last_error"], told
    DNS.silent = ()
    names.box.wait(lambda: names.server.got, "DNS is back", LIMIT)
    names.end()


def test_a_name_that_is_unknown_is_told_from_a_server_that_hangs():
    names = Names([])
    publish(names.box, 1, names.folder.name)
    names.box.wait(lambda: names.told()["last_error"], "the failure is told")
    assert names.end()["last_error_code"] == "dns_failed"


def test_a_name_leads_to_no_link_local_or_metadata_address():
    names = Names(["169.254.169.254", "fe80::1", "100.100.100.200"])
    publish(names.box, 1, names.folder.name)
    names.box.wait(lambda: names.told()["last_error"], "the failure is told")
    assert names.end()["last_error_code"] == "address_forbidden"
    assert not names.network.syns


def test_a_server_that_moved_gets_the_events_although_the_old_one_still_answers():
    names = Names(["10.1.0.2"], keeps_alive=True, config={"timeouts_ms": {"connection_age": 500}})
    names.send()
    DNS.zone = {NAME: ["10.1.0.3"]}
    end = time.monotonic() + LIMIT
    while names.server.got[-1][0] != "10.1.0.3":
        assert time.monotonic() < end, names.server.got
        names.send()
    assert names.end()["failed_tries"] == 0


def main():
    global NETWORK, DNS
    what, seed = sys.argv[2], int(os.environ.get("SEED", "1"))
    print(f"seed {seed}, {Path('/proc/sys/net/ipv4/tcp_congestion_control').read_text().strip()}", flush=True)
    if what == "slice":
        a_slice_of_links(seed)
    elif what == "full":
        every_link(seed)
    else:
        resolv_conf()
        NETWORK, DNS = Network([Link(), Link()], seed), Dns({})
        for test in (
            test_the_address_that_answers_is_the_first_one_of_the_next_connection,
            test_a_dead_ipv6_address_costs_no_try,
            test_eight_addresses_far_away_deliver,
            test_slow_dns_and_a_dead_first_address_deliver,
            test_a_dns_server_that_never_answers_for_ipv6_delivers,
            test_an_answer_for_ipv6_alone_that_leads_nowhere_waits_for_ipv4,
            test_a_dns_server_that_hangs_is_named,
            test_a_name_that_is_unknown_is_told_from_a_server_that_hangs,
            test_a_name_leads_to_no_link_local_or_metadata_address,
            test_a_server_that_moved_gets_the_events_although_the_old_one_still_answers,
        ):
            test()
            print(f"  {test.__name__.removeprefix('test_').replace('_', ' ')} | ok", flush=True)


main()
