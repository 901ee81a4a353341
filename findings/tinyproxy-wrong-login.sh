#!/usr/bin/env bash
# tinyproxy answers 401, and not 407, to a wrong password. The status then says that the server asks for a login, and not the
# proxy.
#
# Guess before the run: a proxy answers 407 without a login and with a wrong one, to CONNECT and to other requests; 401 is the
# server's (RFC 9110, 15.5.2 and 15.5.8). proxy.py 2.4.10 does so.
# Seen: tinyproxy 1.11.1 (Debian 12) answers 407 without a login, and 401 with WWW-Authenticate to a wrong one, as a server
# does.
# For a client: a 401 to CONNECT comes from the proxy, too. With plain http, tell the operator to check both logins.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
debian tinyproxy-bin=1.11.1-2.1+deb12u1
python proxy.py==2.4.10
ports=$(python3 -c 'import socket
holders = [socket.socket() for _ in range(2)]
for holder in holders: holder.bind(("127.0.0.1", 0))
print(*[holder.getsockname()[1] for holder in holders])')
read -r one other <<<"$ports"
printf 'Port %s\nListen 127.0.0.1\nTimeout 60\nLogLevel Critical\nBasicAuth gate pa55word\n' "$one" >tinyproxy.conf
root/usr/bin/tinyproxy -d -c tinyproxy.conf >/dev/null 2>&1 &
venv/bin/proxy --hostname 127.0.0.1 --port "$other" --num-workers 1 --basic-auth gate:pa55word >/dev/null 2>&1 &
cat >ask.py <<'CODE'
import base64
import socket
import sys
import time


def ask(port, request, password):
    login = base64.b64encode(f"gate:{password}".encode()).decode() if password else None
    header = f"Proxy-Authorization: Basic {login}\r\n" if login else ""
    for _ in range(300):
        try:
            connection = socket.create_connection(("127.0.0.1", port), 5)
            break
        except OSError:
            time.sleep(0.1)
    connection.sendall(f"{request} HTTP/1.1\r\nHost: cloud.example\r\n{header}\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece:
            break
        head += piece
    words = head.decode(errors="replace").lower()
    asks = [name for name in ("proxy-authenticate", "www-authenticate") if f"\n{name}:" in words]
    return f"{words.split()[1]} {' '.join(asks)}".strip()


for name, port in (("tinyproxy", int(sys.argv[1])), ("proxy.py", int(sys.argv[2]))):
    for request in ("CONNECT cloud.example:443", "GET http://cloud.example/"):
        for what, password in (("no login", None), ("a wrong one", "pa55w0rd")):
            print(f"{name}, {request.split()[0]}, {what}: {ask(port, request, password)}")
CODE
python3 ask.py "$one" "$other" >seen
cat >expected <<'SEEN'
tinyproxy, CONNECT, no login: 407 proxy-authenticate
tinyproxy, CONNECT, a wrong one: 401 www-authenticate
tinyproxy, GET, no login: 407 proxy-authenticate
tinyproxy, GET, a wrong one: 401 www-authenticate
proxy.py, CONNECT, no login: 407 proxy-authenticate
proxy.py, CONNECT, a wrong one: 407 proxy-authenticate
proxy.py, GET, no login: 407 proxy-authenticate
proxy.py, GET, a wrong one: 407 proxy-authenticate
SEEN
same expected seen
