// Checks that a request comes from the box: `X-Signature: t=SECONDS,v1=HEX`, HMAC-SHA256 of SECONDS.BODY with the key in
// SIGN_KEY_FILE, at most 5 minutes old. Without SIGN_KEY_FILE every request is accepted.
const crypto = require("crypto");
const fs = require("fs");

const LINE_END = "\n".charCodeAt(0);
const text = process.env.SIGN_KEY_FILE && fs.readFileSync(process.env.SIGN_KEY_FILE);
const KEY = text && text.at(-1) === LINE_END ? text.subarray(0, -1) : text;

/** Use this before the parsers: it hashes the body while it arrives. */
exports.hash = (request, response, next) => {
    const [, seconds, hex] = /^t=([0-9]{1,12}),v1=([0-9a-f]{64})$/.exec(request.get("X-Signature") || "") || [];
    if (KEY && !hex) return response.status(401).json({ error: "there is no X-Signature" });
    if (!KEY) return next();
    const hmac = crypto.createHmac("sha256", KEY).update(`${seconds}.`);
    request.on("data", (chunk) => hmac.update(chunk));
    request.isSigned = () =>
        crypto.timingSafeEqual(hmac.digest(), Buffer.from(hex, "hex")) && Math.abs(Date.now() / 1000 - seconds) < 300;
    next();
};

/** Use this after the parsers, which have read the whole body. */
exports.check = (request, response, next) => {
    if (!request.isSigned || request.isSigned()) return next();
    response.status(401).json({ error: "the signature is wrong or old" });
};
