#!/usr/bin/env bash
# mini_httpd runs a CGI program that gets a POST, and does not send the program's answer.
#
# Guess before the run: mini_httpd, like busybox httpd, passes a POST to a CGI program and its answer back; at most a large body
# needs a setting.
# Seen with mini-httpd 1.30-3 (Debian 12): after 10 POSTs of 100 bytes, the program has all 10 bodies, and the client has no
# answer (the connection ends). GET is answered. The process that copies the body to the program shuts the connection down for
# writing when it is done (strace: shutdown(4, SHUT_WR)), while the program still works. With bodies of some hundred KB it is a
# race, which the program sometimes wins. busybox httpd 1.35.0 answers all.
# For a receiver: every event is stored and none is acknowledged, so each comes again and again. mini_httpd also gives the
# program no X-Event-Id by which it could notice. Use another server.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
debian mini-httpd=1.30-3 busybox=1:1.35.0-4+deb12u1+b1
mkdir -p www/cgi-bin
cat >www/cgi-bin/receive <<CGI
#!/bin/sh
head -c "\${CONTENT_LENGTH:-0}" >/dev/null
[ "\$REQUEST_METHOD" = POST ] && echo "\$CONTENT_LENGTH bytes" >>"$FOLDER/stored"
sleep 0.2
printf 'Content-Type: text/plain\\r\\n\\r\\nstored\\n'
CGI
chmod +x www/cgi-bin/receive

# A port that is free now.
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# attempts NAME PORT: ten POSTs to the server there, once it answers a GET.
attempts() {
    local url=http://127.0.0.1:$2/cgi-bin/receive answered=0
    until curl -s --noproxy '*' "$url" | grep -q stored; do sleep 0.1; done
    : >stored
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if head -c 100 /dev/zero | curl -s --noproxy '*' --data-binary @- "$url" | grep -q stored; then answered=$((answered + 1)); fi
    done
    echo "$1: $(grep -c '^100 bytes$' stored) stored, $answered answered" >>seen
}

first=$(port)
root/bin/busybox httpd -f -p "127.0.0.1:$first" -h www &
attempts busybox "$first"
second=$(port)
root/usr/sbin/mini_httpd -D -p "$second" -h 127.0.0.1 -d "$FOLDER/www" -c 'cgi-bin/*' -u "$(id -un)" 2>/dev/null &
attempts mini_httpd "$second"
cat >expected <<'SEEN'
busybox: 10 stored, 10 answered
mini_httpd: 10 stored, 0 answered
SEEN
same expected seen
