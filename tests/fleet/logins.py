"""How a gateway logs in: with a token, and with credentials (a JWT) at servers in operator mode. nats.conf's nkeys are in three_nodes.py."""

import base64
import hashlib
import json
import os
import time

import nkeys

from scene import Gateway, check, event, event_id
from servers import Node, operate

NO_LIMITS = {"subs": -1, "data": -1, "payload": -1}
OF_AN_ACCOUNT = {**NO_LIMITS, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
WITH_JETSTREAM = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
OF_A_GATEWAY = {"pub": {"allow": ["events.>", "$JS.API.STREAM.INFO.EVENTS"]}, "sub": {"allow": ["_INBOX.>"]}}


def secret(scene, name, text):
    path = scene.dir / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def refused(scene, node, name, *login, words):
    """A gateway that does not come in, and says what to look at."""
    gateway = Gateway(scene, node, *login, name=name, ready=False)
    scene.wait(lambda: "the servers refuse this login" in gateway.fault() and words in gateway.fault(), f"{name} said what to do")
    check(gateway.post(event(), event_id(1)).status == 503, "and takes nothing")
    scene.wait(lambda: "not ready" in scene.log(name) and words in scene.log(name), "the log said it, too")
    gateway.kill()


def test_a_gateway_logs_in_with_a_token(scene):
    node = Node(scene)
    node.config.write_text(node.config.read_text() + 'authorization { token: "correct-horse-battery" }\n')
    node.login = {"token": "correct-horse-battery"}
    node.start()
    operate(node, lambda stream: stream.create(num_replicas=1))
    good, bad = secret(scene, "token", "correct-horse-battery"), secret(scene, "wrong", "correct-horse-staple")
    gateway = Gateway(scene, node, "--token-file", good)
    check(gateway.post(event(), event_id(1)).status == 200, "taken")
    refused(scene, node, "wrong-token", "--token-file", bad, words=f"--token-file {bad}: put the token of the servers' config")
    refused(scene, node, "no-login", words="give --creds or --token-file")
    check("horse" not in scene.log("wrong-token") + scene.log("gateway"), "no token is in a log")
    good.chmod(0o644)
    unsafe = scene.start("unsafe", [scene.programs / "gateway", "--jetstream", node.url, "--token-file", good])
    check(unsafe.wait(60) == 1 and "chmod 600" in scene.log("unsafe"), "a file that others can read")
    scene.running.remove(unsafe)


def pair(prefix):
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(signer, key, kind, claims, **more):
    """A JWT of NATS, version 2: `signer` says that `key` is this."""
    body = {"iat": int(time.time()), "iss": signer.public_key.decode(), "name": kind, "sub": key.public_key.decode()}
    body |= {"nats": {**claims, "type": kind, "version": 2}, **more}
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    text = ".".join(base64url(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return f"{text}.{base64url(signer.sign(text.encode()))}"


class Operated(Node):
    """A server that trusts an operator, who has an account for the fleet."""

    def __init__(self, scene):
        super().__init__(scene)
        operator, system, self.account = (pair(kind) for kind in (nkeys.PREFIX_BYTE_OPERATOR, *[nkeys.PREFIX_BYTE_ACCOUNT] * 2))
        nobody = {"default_permissions": {"pub": {}, "sub": {}}}
        known = {self.account: {"limits": {**OF_AN_ACCOUNT, **WITH_JETSTREAM}, **nobody}, system: {"limits": OF_AN_ACCOUNT, **nobody}}
        accounts = [f"{key.public_key.decode()}: {jwt(operator, key, 'account', claims)}" for key, claims in known.items()]
        lines = [f"operator: {jwt(operator, operator, 'operator', {})}", f"system_account: {system.public_key.decode()}", "resolver: MEMORY"]
        lines.append(f"resolver_preload: {{ {', '.join(accounts)} }}")
        self.config.write_text(self.config.read_text() + "\n".join(lines) + "\n")
        self.login = {"user_credentials": str(self.credentials("operator", {"pub": {}, "sub": {}}))}

    def credentials(self, name, permissions, signer=None, **more):
        user = pair(nkeys.PREFIX_BYTE_USER)
        token = jwt(signer or self.account, user, "user", {**permissions, **NO_LIMITS}, **more)
        parts = (("NATS USER JWT", token), ("USER NKEY SEED", bytes(user.seed).decode()))
        text = "\n".join(f"-----BEGIN {what}-----\n{value}\n------END {what}------\n" for what, value in parts)
        return secret(self.scene, f"{name}.creds", text)


def test_a_gateway_logs_in_with_credentials(scene):
    node = Operated(scene).start()
    operate(node, lambda stream: stream.create(num_replicas=1))
    gateway = Gateway(scene, node, "--creds", node.credentials("gateway", OF_A_GATEWAY))
    check(gateway.post(event(), event_id(1)).status == 200, "taken")
    check(len(operate(node, lambda stream: stream.messages())) == 1, "and it is there")
    stranger = node.credentials("stranger", OF_A_GATEWAY, signer=pair(nkeys.PREFIX_BYTE_ACCOUNT))
    refused(scene, node, "stranger", "--creds", stranger, words=f"--creds {stranger}: its user has to be in")
    expired = node.credentials("expired", OF_A_GATEWAY, exp=int(time.time()) - 60)
    refused(scene, node, "expired", "--creds", expired, words="and not expired")
    # One whose permissions leave out STREAM.INFO comes in, and hears why it is not ready.
    narrow = node.credentials("narrow", {**OF_A_GATEWAY, "pub": {"allow": ["events.>"]}})
    gateway = Gateway(scene, node, "--creds", narrow, name="narrow", ready=False)
    scene.wait(lambda: "does not tell its settings" in gateway.fault(), "it said that it cannot look at the stream")


TESTS = [value for name, value in list(globals().items()) if name.startswith("test_")]
