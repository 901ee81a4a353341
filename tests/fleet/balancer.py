"""A load balancer in front of the gateways, with the files of examples/fleet: HAProxy, or nginx."""

import os
import shutil
import socket

from scene import check, free_port
from servers import EXAMPLES

# What the examples name, and a test has elsewhere.
LISTEN, GATEWAYS, TLS = "10.0.0.10:443", ("10.0.0.11:9528", "10.0.0.12:9528"), ("/etc/haproxy/fleet.pem", "/etc/nginx/fleet.pem")


class Balancer:
    """TLS with the certificate of the cluster's test CA, in front of two gateways, which need not run yet."""

    def __init__(self, scene, gateways, program=None):
        self.program = program or installed()
        self.scene, self.port = scene, free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        pem = scene.dir / "fleet.pem"
        pem.touch(mode=0o600)
        pem.write_text((scene.dir / "server.crt").read_text() + (scene.dir / "server.key").read_text())
        self.config = scene.dir / f"{self.program}.cfg"
        places = dict(zip(GATEWAYS, gateways)) | {LISTEN: f"127.0.0.1:{self.port}"} | {path: str(pem) for path in TLS}
        self.config.write_text(self.configured(places))
        nginx = ["nginx", "-e", "stderr", "-p", scene.dir, "-c", self.config]
        command = {"haproxy": ["haproxy", "-db", "-f", self.config], "nginx": nginx}
        self.process = scene.start("balancer", command[self.program])
        scene.wait(self.listens, f"{self.program} listened")

    def configured(self, places):
        text = (EXAMPLES / {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[self.program]).read_text()
        for address in (LISTEN, *GATEWAYS):
            check(address in text, address, "is not in the example")
        for there, here in places.items():
            text = text.replace(there, here)
        if self.program == "haproxy":
            return text
        # It stays in the foreground and writes into the test's folder only. Started as root it stays root, so that its worker can read
        # that folder.
        temporary = "".join(f"    {kind}_temp_path {self.scene.dir}/nginx-{kind};\n" for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;\n" if os.geteuid() == 0 else ""
        return f"{user}daemon off;\npid {self.scene.dir}/nginx.pid;\n" + text.replace("http {\n", "http {\n" + temporary, 1)

    def listens(self):
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


def installed():
    """The load balancer that is there; HAProxy is preferred, for it looks at the gateways' health by itself."""
    found = next(filter(shutil.which, ("haproxy", "nginx")), None)
    check(found, "there is neither HAProxy nor nginx")
    return found
