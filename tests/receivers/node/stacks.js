// Node's servers as their quick starts have them, each with its own limits: `node stacks.js NAME PORT`.
// Each answers with what it has received, as docs/receivers.md defines it.
"use strict";
const crypto = require("node:crypto");
const http = require("node:http");

/** The answer to an event: an object, or the fields of a form. */
function received(event) {
    let ext = event?.ext_data ?? {};
    if (typeof ext === "string") {
        try {
            ext = JSON.parse(ext);
        } catch {
            ext = {}; // cut
        }
    }
    const pictures = {};
    for (const [name, text] of [["reg_pic", event?.reg_pic], ["spot_pic", ext.spot_pic]]) {
        if (!text) continue;
        const data = Buffer.from(text, "base64");
        pictures[name] = { bytes: data.length, sha256: crypto.createHash("sha256").update(data).digest("hex") };
    }
    return { received: pictures };
}

const send = (answer, status, what) => {
    answer.writeHead(status, { "Content-Type": "application/json" });
    answer.end(JSON.stringify(what));
};

const stacks = {
    express(port) {
        const express = require("express");
        const app = express();
        app.post("/", express.json(), (request, answer) => answer.json(received(request.body)));
        app.listen(port, "127.0.0.1");
    },
    multer(port) {
        const app = require("express")();
        const forms = require("multer")().none();
        app.post("/", forms, (request, answer) => answer.json(received(request.body)));
        app.listen(port, "127.0.0.1");
    },
    busboy(port) {
        const app = require("express")();
        app.post("/", (request, answer) => {
            const fields = {};
            const parser = require("busboy")({ headers: request.headers });
            parser.on("field", (name, value) => (fields[name] = value));
            parser.on("close", () => answer.json(received(fields)));
            request.pipe(parser);
        });
        app.listen(port, "127.0.0.1");
    },
    fastify(port) {
        const app = require("fastify")();
        app.register(require("@fastify/multipart"), { attachFieldsToBody: "keyValues" });
        app.post("/", async (request) => received(request.body));
        app.listen({ port, host: "127.0.0.1" });
    },
    koa(port) {
        const app = new (require("koa"))();
        app.use(require("koa-body").koaBody({ multipart: true }));
        app.use((context) => (context.body = received(context.request.body)));
        app.listen(port, "127.0.0.1");
    },
    async hapi(port) {
        const server = require("@hapi/hapi").server({ port, host: "127.0.0.1" });
        const options = { payload: { multipart: true } };
        server.route({ method: "POST", path: "/", options, handler: (request) => received(request.payload) });
        await server.start();
    },
    multiparty(port) {
        const { Form } = require("multiparty");
        const receive = (request, answer) =>
            new Form().parse(request, (error, fields) => {
                if (error) return send(answer, error.status ?? error.statusCode ?? 500, { error: error.message });
                send(answer, 200, received(Object.fromEntries(Object.entries(fields).map(([name, [value]]) => [name, value]))));
            });
        http.createServer(receive).listen(port, "127.0.0.1");
    },
    formidable(port) {
        const { formidable } = require("formidable");
        const receive = async (request, answer) => {
            const [fields] = await formidable().parse(request);
            send(answer, 200, received(Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, [value].flat()[0]]))));
        };
        http.createServer(receive).listen(port, "127.0.0.1");
    },
    hono(port) {
        const { Hono } = require("hono");
        const app = new Hono();
        app.post("/", async (context) => {
            const isJson = context.req.header("content-type") === "application/json";
            return context.json(received(isJson ? await context.req.json() : await context.req.parseBody()));
        });
        require("@hono/node-server").serve({ fetch: app.fetch, port, hostname: "127.0.0.1" });
    },
};

stacks[process.argv[2]](Number(process.argv[3]));
