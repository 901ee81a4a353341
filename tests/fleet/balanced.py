"""The whole way through a load balancer, as examples/fleet sets it up, while gateways die under load. Then the demo, and a slice of
the campaign."""

import http.client
import ssl
import sys
from pathlib import Path

from boxes import SMALL
from scene import check
from whole import Whole

BOXES, EVENTS = 4, 60


def answer_of(balancer, ca):
    """What the load balancer says while it has no gateway: status and Retry-After."""
    trusted = ssl.create_default_context(cafile=ca)
    connection = http.client.HTTPSConnection("127.0.0.1", balancer.port, timeout=60, context=trusted)
    try:
        connection.request("POST", "/RealTimeEvent", b"{}", {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Retry-After")
    finally:
        connection.close()


def goes_on_without_gateways(scene, program, own):
    """One gateway dies under load: the other one takes all. Both die: the boxes keep what the load balancer refuses by itself."""
    whole = Whole(scene, BOXES, balancer=program, talks=False)
    whole.boxes.publish(EVENTS, 40, SMALL, seed=1)
    dying, other = whole.gateways
    scene.wait(lambda: dying.metric("published_total") >= 10, "a gateway had taken some events")
    dying.kill()
    scene.wait(lambda: not whole.boxes.is_publishing(), "the recognizer had published all")
    whole.boxes.publish(EVENTS, None, SMALL, seed=2)
    scene.wait(whole.is_over, "every event was consumed")
    check(other.metric("published_total") >= EVENTS, "the other gateway took what came after")

    other.kill()
    by_itself = f"{program} answered {own} by itself, with no Retry-After"
    scene.wait(lambda: answer_of(whole.balancer, scene.dir / "ca.crt") == (own, None), by_itself)
    whole.boxes.publish(EVENTS, None, SMALL, seed=3)
    told = f"the server answered {own}"
    refused = "a box was refused by the load balancer"
    scene.wait(lambda: any(told in scene.log(f"{name}/uplink") for name in whole.boxes.names), refused)
    check(whole.consumed() == 2 * EVENTS, "nobody can have taken more")
    whole.gateways = [whole.gateway(number) for number in range(2)]
    report, failure = whole.run_out()
    check(report.agrees and report.expected == 3 * EVENTS and not failure, report.verdict(), *report.details(), failure)


def test_gateways_that_die_behind_haproxy_cost_no_event(scene):
    goes_on_without_gateways(scene, "haproxy", 503)


def test_gateways_that_die_behind_nginx_cost_no_event(scene):
    goes_on_without_gateways(scene, "nginx", 502)


def test_a_slice_of_the_campaign_with_faults_of_every_kind(scene):
    """scripts/soak fleet, with few boxes and events."""
    command = [Path(__file__).with_name("campaign"), sys.executable, scene.programs, 6]
    campaign = scene.start("campaign", command, FLEET_EVENTS="200", FLEET_RATE="20", TMPDIR=str(scene.dir))
    scene.running.remove(campaign)
    scene.ending.append(campaign)
    scene.wait(lambda: campaign.poll() is not None, "the campaign ended", patience=900)
    said = scene.log("campaign").splitlines()
    worth = ("SEED=", "SKIPPED", "the faults were", "0 lost")
    scene.notes += [line.strip() for line in said if any(word in line for word in worth)]
    check(campaign.returncode == 0, "\n      ".join(said))


def test_the_demo_of_a_fleet_compares_everything_and_leaves_nothing(scene):
    """scripts/fleet-demo without its building."""
    command = [sys.executable, "-B", Path(__file__).with_name("demo.py"), scene.programs, 3, 30]
    demo = scene.start("demo", command, TMPDIR=str(scene.dir))
    scene.running.remove(demo)
    scene.ending.append(demo)
    scene.wait(lambda: demo.poll() is not None, "the demo ended")
    said = scene.log("demo")
    check(demo.returncode == 0 and "published 30, consumed 30, 0 lost, 0 twice" in said, said)
    left = [path for path in scene.dir.iterdir() if path.name.startswith("sophon-fleet.")]
    check(not left, "it left", *left)


TESTS = [value for name, value in list(globals().items()) if name.startswith("test_")]
