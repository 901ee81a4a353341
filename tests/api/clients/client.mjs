// node client.mjs LIBRARY KIND URL A B: the documented call with two URLs and without registered pictures.
import { createRequire } from "node:module";

const [library, kind, url, a, b] = process.argv.slice(2);
const call = { event_server_url: [a, b], real_need_reg_pic: false, "content-type": "json" };
const load = createRequire(`${process.env.MODULES ?? "."}/x.js`);

function filled(form) {
  for (const one of call.event_server_url) form.append("event_server_url", one);
  form.append("real_need_reg_pic", "false");
  form.append("content-type", "json");
  return form;
}

async function main() {
  if (library === "axios") {
    const axios = load("axios");
    if (kind === "json") return axios.post(url, call);
    // Lists as `event_server_url[]`.
    if (kind === "form") return axios.post(url, call, { headers: { "Content-Type": "application/x-www-form-urlencoded" } });
    return axios.postForm(url, call);
  }
  const ask = library === "undici" ? load("undici").fetch : fetch;
  const Form = library === "undici" ? load("undici").FormData : FormData;
  const json = { method: "POST", body: JSON.stringify(call), headers: { "Content-Type": "application/json" } };
  const forms = { form: () => filled(new URLSearchParams()), multipart: () => filled(new Form()) };
  const answer = await ask(url, kind === "json" ? json : { method: "POST", body: forms[kind]() });
  if (!answer.ok) throw new Error(await answer.text());
}

main().catch((error) => { console.error(error.response?.data ?? error); process.exit(1); });
