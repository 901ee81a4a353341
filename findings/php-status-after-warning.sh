#!/usr/bin/env bash
# A receiver in PHP that finds no event answers 500, and the box reads 200: PHP has shown a warning first, so the status is gone.
#
# Guess before the run: http_response_code(500) is the status of the answer as long as the script itself has printed nothing; a form
# above post_max_size leaves $_POST empty, and the script can still choose its status.
# Seen: PHP 8.2 (Debian 12) without a php.ini has display_errors on and no output buffer. A warning, for example of a full disk, goes out
# at once, with status 200. http_response_code() then says false and changes nothing. For a form above post_max_size the warning goes
# out before the script's first line. With display_errors=0 both statuses are the script's.
# For a receiver: switch display_errors off, and refuse to work while it is on. docs/receivers.md says so.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
debian php8.2-cli=8.2.36-1~deb12u1 libargon2-1=0~20171227-0.3+deb12u1 libsodium23=1.0.18-1+deb12u1 libpcre2-8-0=10.42-1+deb12u2 \
    libedit2=3.1-20221030-2 libmagic1=1:5.44-3 "libxml2=2.9.14+dfsg-1.3~deb12u6"
cat >receiver.php <<'CODE'
<?php
if ($_SERVER['CONTENT_LENGTH'] > 5000) $why = count($_POST) . ' fields';
else $why = var_export((bool) fopen('/no/such/folder/event', 'xb'), true);
http_response_code(500);
exit("\n$why");
CODE
cat >ask.py <<'CODE'
import http.client
import socket
import subprocess
import sys
import time


def status(port, body):
    for _ in range(300):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/RealTimeEvent", body, {"Content-Type": "application/x-www-form-urlencoded"})
            answer = connection.getresponse()
            return f"{answer.status}, {answer.read().decode().splitlines()[-1]}"
        except ConnectionRefusedError:
            time.sleep(0.1)


for shown in ["1", None, "0"]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    set_to = [] if shown is None else ["-d", f"display_errors={shown}"]
    command = [sys.argv[1], "-n", *set_to, "-d", "post_max_size=5000", "-S", f"127.0.0.1:{port}", "receiver.php"]
    php = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    told = f"display_errors={shown}" if shown else "as it is"
    print(f"{told}, a file that cannot be made: {status(port, 'identity_id=7')}")
    print(f"{told}, a form above post_max_size: {status(port, 'identity_id=' + 9000 * '7')}")
    php.kill()
    php.wait()
CODE
python3 ask.py root/usr/bin/php8.2 >seen
cat >expected <<'SEEN'
display_errors=1, a file that cannot be made: 200, false
display_errors=1, a form above post_max_size: 200, 0 fields
as it is, a file that cannot be made: 200, false
as it is, a form above post_max_size: 200, 0 fields
display_errors=0, a file that cannot be made: 500, false
display_errors=0, a form above post_max_size: 500, 0 fields
SEEN
same expected seen
