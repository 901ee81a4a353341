#!/usr/bin/env bash
# formidable takes a form's text that has a Content-Type for a file. An empty one fails the whole form: 500 from Koa.
#
# Guess before the run: RFC 7578 lets every part have a Content-Type (text/plain is the default), and browsers mark files by
# their file name. So a part without a file name is a field, with or without a type.
# Seen: formidable 3.5.4, and koa-body 8.0.1 with koa 3.3.0, which uses it, take each such part for a file without a name: no
# field is left. An empty text is an empty file. Empty files are refused by default, and the form with them. busboy 1.6.0,
# multer 2.5.0 and multiparty 4.3.1 read fields. Java's, .NET's and Python's clients (Jetty, System.Net.Http, aiohttp) send
# their texts with a type.
# For a sender: give texts no type. For a receiver with formidable: set part.mimetype to null in onPart if there is no file
# name, as the script does.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
node_packages formidable@3.5.4 koa-body@8.0.1 koa@3.3.0 busboy@1.6.0 multer@2.5.0 express@5.3.0 multiparty@4.3.1
cat >form.mjs <<'CODE'
import { createRequire } from "module";
import http from "http";
import Busboy from "busboy";
import express from "express";
import formidable from "formidable";
import Koa from "koa";
import { koaBody } from "koa-body";
import multer from "multer";
import multiparty from "multiparty";

const names = (object) => Object.keys(object ?? {}).length;
const told = (fields, files) => `${fields} fields, ${files} files`;
const read = (reader, tell) => (request, response) => reader.parse(request, (error, fields, files) => {
    tell(error ? `an error: ${error.message}` : told(names(fields), names(files)));
    response.end();
});
const servers = {
    busboy: (tell) => (request, response) => {
        let fields = 0, files = 0;
        const parser = Busboy({ headers: request.headers });
        parser.on("field", () => fields++).on("file", (_, file) => (files++, file.resume()));
        parser.on("close", () => (tell(told(fields, files)), response.end()));
        request.pipe(parser);
    },
    multer: (tell) => express().post("/", multer().any(), (request, response) => {
        tell(told(names(request.body), request.files.length));
        response.end();
    }),
    multiparty: (tell) => read(new multiparty.Form(), tell),
    formidable: (tell) => read(formidable(), tell),
    "formidable with onPart": (tell) => {
        const reader = formidable();
        reader.onPart = (part) => {
            if (!part.originalFilename) part.mimetype = null;
            reader._handlePart(part);
        };
        return read(reader, tell);
    },
    "koa-body": (tell) => {
        const app = new Koa();
        app.silent = true;
        app.use(koaBody({ multipart: true }));
        app.use((context) => {
            tell(told(names(context.request.body), names(context.request.files)));
            context.body = "";
        });
        return app.callback();
    },
};

const form = (typed, group) => {
    const part = (name, value) => `--x\r\nContent-Disposition: form-data; name="${name}"\r\n${typed ? "Content-Type: text/plain; charset=utf-8\r\n" : ""}\r\n${value}\r\n`;
    return part("identity_id", "1042") + part("group_name", group) + "--x--\r\n";
};
for (const group of ["Staff", ""]) {
    for (const typed of [false, true]) {
        for (const [name, make] of Object.entries(servers)) {
            let seen = "nothing";
            const server = http.createServer(make((text) => (seen = text))).listen(0, "127.0.0.1");
            await new Promise((done) => server.once("listening", done));
            const url = `http://127.0.0.1:${server.address().port}/`;
            const answer = await fetch(url, { method: "POST", headers: { "Content-Type": "multipart/form-data; boundary=x" }, body: form(typed, group) });
            await answer.text();
            console.log(`${typed ? "typed" : "plain"}, group_name "${group}": ${name} ${answer.status}, ${seen}`);
            server.closeAllConnections();
            server.close();
        }
    }
}
CODE
node form.mjs >seen 2>/dev/null
cat >expected <<'SEEN'
plain, group_name "Staff": busboy 200, 2 fields, 0 files
plain, group_name "Staff": multer 200, 2 fields, 0 files
plain, group_name "Staff": multiparty 200, 2 fields, 0 files
plain, group_name "Staff": formidable 200, 2 fields, 0 files
plain, group_name "Staff": formidable with onPart 200, 2 fields, 0 files
plain, group_name "Staff": koa-body 200, 2 fields, 0 files
typed, group_name "Staff": busboy 200, 2 fields, 0 files
typed, group_name "Staff": multer 200, 2 fields, 0 files
typed, group_name "Staff": multiparty 200, 2 fields, 0 files
typed, group_name "Staff": formidable 200, 0 fields, 2 files
typed, group_name "Staff": formidable with onPart 200, 2 fields, 0 files
typed, group_name "Staff": koa-body 200, 0 fields, 2 files
plain, group_name "": busboy 200, 2 fields, 0 files
plain, group_name "": multer 200, 2 fields, 0 files
plain, group_name "": multiparty 200, 2 fields, 0 files
plain, group_name "": formidable 200, 2 fields, 0 files
plain, group_name "": formidable with onPart 200, 2 fields, 0 files
plain, group_name "": koa-body 200, 2 fields, 0 files
typed, group_name "": busboy 200, 2 fields, 0 files
typed, group_name "": multer 200, 2 fields, 0 files
typed, group_name "": multiparty 200, 2 fields, 0 files
typed, group_name "": formidable 200, an error: options.allowEmptyFiles is false, file size should be greater than 0
typed, group_name "": formidable with onPart 200, 2 fields, 0 files
typed, group_name "": koa-body 500, nothing
SEEN
same expected seen
