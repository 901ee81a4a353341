#!/usr/bin/env bash
# Python's email package, which PEP 594 recommends instead of the removed cgi module, reads a form's Chinese names as U+FFFD. If
# the part has a Content-Type, it reads them right.
#
# Guess before the run: get_content() of a form's part is the text that was sent, as with parsers made for forms.
# Seen with Python 3.11 (the script runs the machine's python3): the email package reads a part without a Content-Type as us-ascii,
# as in mail (RFC 2045), but forms are UTF-8 (RFC 7578 section 5.1.2). Each byte of a name becomes U+FFFD, without an error or an
# entry in `defects`; get_payload() does the same. get_payload(decode=True) has the bytes. Python's own cgi and multipart 1.2.1 are
# right in both cases. From Python 3.13 on there is no cgi of its own: then `import cgi` gets that of legacy-cgi 2.6.3.
# For a receiver: use part.get_payload(decode=True).decode(), or a parser for forms, or JSON.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python legacy-cgi==2.6.3 multipart==1.2.1
cat >form.py <<'CODE'
import io
import warnings
from email import policy
from email.parser import BytesParser

warnings.simplefilter("ignore")  # of Python's own cgi, which comes before that of legacy-cgi
import cgi
import multipart

NAME = "\u5f20\u4e09"
TYPE = "multipart/form-data; boundary=sophon"


def form(more):
    head = f'--sophon\r\nContent-Disposition: form-data; name="identity_name"\r\n{more}\r\n'
    return f"{head}{NAME}\r\n--sophon--\r\n".encode()


def by_email(body):
    message = BytesParser(policy=policy.HTTP).parsebytes(f"Content-Type: {TYPE}\r\n\r\n".encode() + body)
    part = next(message.iter_parts())
    assert not part.defects and not message.defects
    yield "email, get_content()", part.get_content()
    yield "email, get_payload()", part.get_payload()
    yield "email, get_payload(decode=True).decode()", part.get_payload(decode=True).decode()


def by_forms(body):
    about = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": TYPE, "CONTENT_LENGTH": str(len(body))}
    headers = {"content-type": TYPE, "content-length": str(len(body))}
    fields, _ = multipart.parse_form_data({**about, "wsgi.input": io.BytesIO(body)})
    yield "multipart", fields["identity_name"]
    yield "cgi", cgi.FieldStorage(fp=io.BytesIO(body), headers=headers, environ=about).getvalue("identity_name")


for how, more in [("no type", ""), ("text/plain; charset=utf-8", "Content-Type: text/plain; charset=utf-8\r\n")]:
    for reader, text in [*by_email(form(more)), *by_forms(form(more))]:
        print(f"{how}: {reader}: {'the name' if text == NAME else ascii(text)}")
CODE
venv/bin/python form.py >seen
cat >expected <<'SEEN'
no type: email, get_content(): '\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd'
no type: email, get_payload(): '\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd'
no type: email, get_payload(decode=True).decode(): the name
no type: multipart: the name
no type: cgi: the name
text/plain; charset=utf-8: email, get_content(): the name
text/plain; charset=utf-8: email, get_payload(): the name
text/plain; charset=utf-8: email, get_payload(decode=True).decode(): the name
text/plain; charset=utf-8: multipart: the name
text/plain; charset=utf-8: cgi: the name
SEEN
same expected seen
