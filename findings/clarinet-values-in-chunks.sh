#!/usr/bin/env bash
# clarinet, a streaming JSON parser, accepts a long value that is written in one piece. It refuses the same value in chunks, as
# it comes from a socket.
#
# Guess before the run: a streaming parser has one limit for a value, or none, and the size of the chunks changes nothing.
# Seen with clarinet 0.12.6: the limit is 64 KiB (`clarinet.MAX_BUFFER_LENGTH`), and is checked only between two writes. A value
# of 2 MB in one write is read whole. A value of 100,000 characters in chunks of 16 KiB is an error, "Max buffer length
# exceeded". So a test with a string in memory passes, and the server fails. jsonparse 1.3.1 and oboe 2.1.7 accept both.
# For a receiver: pictures are longer than the limit. Set clarinet.MAX_BUFFER_LENGTH = Infinity before the first parser is made.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
node_packages clarinet@0.12.6 jsonparse@1.3.1 oboe@2.1.7
cat >values.js <<'CODE'
const { Readable } = require("stream");
const clarinet = require("clarinet");
const JsonParse = require("jsonparse");
const oboe = require("oboe");

const chunks = (text, size) =>
    Array.from({ length: Math.ceil(text.length / size) }, (_, at) => text.slice(at * size, (at + 1) * size));

function byClarinet(pieces) {
    const parser = clarinet.parser();
    let value, problem;
    parser.onvalue = (found) => (value = found);
    parser.onerror = (error) => (problem ??= error.message.split("\n")[0]);
    try {
        pieces.forEach((piece) => parser.write(piece));
        parser.close();
    } catch {} // once there was an error, each further write throws it
    return problem ?? value.length;
}

function byJsonparse(pieces) {
    const parser = new JsonParse();
    let value;
    parser.onValue = function (found) {
        if (this.key === "reg_pic") value = found;
    };
    pieces.forEach((piece) => parser.write(piece));
    return value.length;
}

const byOboe = (pieces) =>
    new Promise((done) => oboe(Readable.from(pieces)).node("reg_pic", (value) => done(value.length)));

(async () => {
    for (const length of [60000, 100000, 2000000]) {
        const text = JSON.stringify({ reg_pic: "A".repeat(length) });
        for (const [how, pieces] of [["one piece", [text]], ["chunks of 16 KiB", chunks(text, 16384)]]) {
            console.log(`${length} in ${how}: clarinet ${byClarinet(pieces)}, jsonparse ${byJsonparse(pieces)}, oboe ${await byOboe(pieces)}`);
        }
    }
    clarinet.MAX_BUFFER_LENGTH = Infinity;
    console.log("MAX_BUFFER_LENGTH = Infinity:", byClarinet(chunks(JSON.stringify({ reg_pic: "A".repeat(2000000) }), 16384)));
})();
CODE
node values.js >seen
cat >expected <<'SEEN'
60000 in one piece: clarinet 60000, jsonparse 60000, oboe 60000
60000 in chunks of 16 KiB: clarinet 60000, jsonparse 60000, oboe 60000
100000 in one piece: clarinet 100000, jsonparse 100000, oboe 100000
100000 in chunks of 16 KiB: clarinet Max buffer length exceeded: textNode, jsonparse 100000, oboe 100000
2000000 in one piece: clarinet 2000000, jsonparse 2000000, oboe 2000000
2000000 in chunks of 16 KiB: clarinet Max buffer length exceeded: textNode, jsonparse 2000000, oboe 2000000
MAX_BUFFER_LENGTH = Infinity: 2000000
SEEN
same expected seen
