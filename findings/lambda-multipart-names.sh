#!/usr/bin/env bash
# Of two form parsers for AWS Lambda, one turns Chinese names into blanks if the gateway passes the body as text. The other
# reads nothing if the gateway passes it as base64. Neither reports an error.
#
# Guess before the run: a parser that gets API Gateway's event reads the form, however the gateway encodes the body.
# Seen: lambda-multipart-parser 1.0.1 reads a text body (isBase64Encoded false) as bytes, one for each character: U+5F20 U+4E09
# becomes a blank and a tab. aws-lambda-multipart-parser 0.1.3 ignores isBase64Encoded: for a base64 body it returns an object
# without a field. Each is right with the other kind. parse-multipart-data 1.5.0 and @remix-run/multipart-parser 0.16.3, which
# take bytes, are right with Buffer.from(event.body, event.isBase64Encoded ? "base64" : "utf8").
# For a receiver: add multipart/form-data to the gateway's binary media types, decode by isBase64Encoded, and parse bytes; or
# use JSON.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
node_packages lambda-multipart-parser@1.0.1 aws-lambda-multipart-parser@0.1.3 parse-multipart-data@1.5.0 @remix-run/multipart-parser@0.16.3
cat >form.mjs <<'CODE'
import { createRequire } from "module";
import { parseMultipart } from "@remix-run/multipart-parser";
const require = createRequire(import.meta.url);
const whole = require("lambda-multipart-parser");
const text = require("aws-lambda-multipart-parser");
const bytes = require("parse-multipart-data");

const fields = { identity_name: "\u5f20\u4e09", reg_pic: Buffer.alloc(3000, "jpeg").toString("base64"), score: "0.875" };
const parts = Object.entries(fields).map(([name, value]) => `--x\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`);
const form = Buffer.from(parts.join("") + "--x--\r\n");
const headers = { "Content-Type": "multipart/form-data; boundary=x" };

const shown = (value) => (value === undefined ? "nothing" : [...value].map((each) => "U+" + each.codePointAt(0).toString(16)).join(" "));
for (const isBase64Encoded of [true, false]) {
    const event = { headers, isBase64Encoded, body: form.toString(isBase64Encoded ? "base64" : "utf8") };
    const decoded = Buffer.from(event.body, isBase64Encoded ? "base64" : "utf8");
    const remix = {};
    for await (const part of parseMultipart(decoded, { boundary: "x" })) remix[part.name] = part.text;
    const read = {
        "lambda-multipart-parser": await whole.parse(event),
        "aws-lambda-multipart-parser": text.parse(event),
        "parse-multipart-data": Object.fromEntries(bytes.parse(decoded, "x").map((part) => [part.name, part.data.toString()])),
        "@remix-run/multipart-parser": remix,
    };
    for (const [parser, found] of Object.entries(read)) {
        const picture = found.reg_pic === fields.reg_pic ? "whole" : "not there";
        console.log(`${isBase64Encoded ? "base64" : "text  "} ${parser}: the name is ${shown(found.identity_name)}, the picture ${picture}`);
    }
}
CODE
node form.mjs >seen
cat >expected <<'SEEN'
base64 lambda-multipart-parser: the name is U+5f20 U+4e09, the picture whole
base64 aws-lambda-multipart-parser: the name is nothing, the picture not there
base64 parse-multipart-data: the name is U+5f20 U+4e09, the picture whole
base64 @remix-run/multipart-parser: the name is U+5f20 U+4e09, the picture whole
text   lambda-multipart-parser: the name is U+20 U+9, the picture whole
text   aws-lambda-multipart-parser: the name is U+5f20 U+4e09, the picture whole
text   parse-multipart-data: the name is U+5f20 U+4e09, the picture whole
text   @remix-run/multipart-parser: the name is U+5f20 U+4e09, the picture whole
SEEN
same expected seen
