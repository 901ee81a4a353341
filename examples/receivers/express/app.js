// A receiver with Express.   npm install express@5.3.0 multer@2.5.0
// STORE=/folder PORT=9528 node app.js
const crypto = require("crypto");
const express = require("express");
const fs = require("fs");
const multer = require("multer");
const path = require("path");
const signature = require("./signature");

const STORE = process.env.STORE || "store";
const LIMIT = 32 * 1024 * 1024; // size of a request in bytes; the default of express.json is 100 kB, of a field of multer 1 MiB

function toDisk(file, data) { // without data: fsyncs a folder
    const descriptor = fs.openSync(file, data === undefined ? "r" : "wx", 0o600);
    try {
        if (data !== undefined) fs.writeFileSync(descriptor, data);
        fs.fsyncSync(descriptor);
    } finally {
        fs.closeSync(descriptor); // a removed file takes space until it is closed
    }
}

function keep(id, event) {
    if (!/^[0-9a-f]{32}-[0-9]+(-history)?$/.test(id || "")) throw new TypeError("X-Event-Id is missing or malformed");
    if (typeof event.ext_data === "string") event.ext_data = JSON.parse(event.ext_data);
    event.timestamp = Number(event.timestamp);
    event.score = Number(event.score);
    const files = {}, received = {};
    for (const [name, holder] of [["reg_pic", event], ["spot_pic", event.ext_data]]) {
        const data = Buffer.from(holder[name] || "", "base64");
        holder[name] = null;
        if (data.length === 0) continue;
        files[`${name}.jpg`] = data;
        received[name] = { bytes: data.length, sha256: crypto.createHash("sha256").update(data).digest("hex") };
        holder[name] = { file: `${id}/${name}.jpg`, ...received[name] };
    }
    fs.mkdirSync(STORE, { recursive: true });
    const folder = fs.mkdtempSync(path.join(STORE, ".new-"));
    files["event.json"] = JSON.stringify({ id, ...event });
    try {
        for (const [file, data] of Object.entries(files)) toDisk(path.join(folder, file), data);
        toDisk(folder);
        fs.renameSync(folder, path.join(STORE, id)); // fails if the event is stored already
    } catch (error) {
        if (!fs.existsSync(path.join(STORE, id, "event.json"))) throw error; // e.g. a full disk: 500, and the event is sent again
    } finally {
        fs.rmSync(folder, { recursive: true, force: true }); // there is none after the rename
    }
    toDisk(STORE); // for a repeated event too: the first try may have ended just before this line
    return { status: "ok", received };
}

const app = express();
const parsers = [signature.hash, express.json({ limit: LIMIT }), multer({ limits: { fieldSize: LIMIT } }).none(), signature.check];
app.post("/RealTimeEvent", ...parsers, (request, response) => response.json(keep(request.get("X-Event-Id"), { ...request.body })));
app.use((error, request, response, next) => { // multer's errors have no status; without this they become 500
    const status = error.status || (error instanceof multer.MulterError ? 413 : error instanceof TypeError ? 400 : 500);
    response.status(status).json({ error: String(error.message) });
});
app.listen(process.env.PORT || 9528);
