// The page of the box. It reads /api/status every two seconds, and changes /api/settings. Data from the box or from a server is
// inserted as text only, never as markup.
"use strict";

const EVERY = 2000;
const at = (id) => document.getElementById(id);
const kept = (store, key) => { try { return store.getItem(key); } catch { return null; } };
const keep = (store, key, value) => { try { store.setItem(key, value); } catch { /* kept for this page only */ } };

let language = TEXTS[kept(localStorage, "language")] ? kept(localStorage, "language") : navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
let token = kept(sessionStorage, "token");
let live = "connecting";
let status = null;
let settings = null; // the settings that the form was filled with
let revision = null; // their revision
let theirs = null; // newer settings by somebody else, while this form has changes
let dirty = false;
let letters = { count: 0, dead: [] }; // dead letters, and their number when the list was requested
let message = null; // the form's message: [tone, function that returns its text]
let results = null; // of the test event

const text = (key) => TEXTS[language][key];
const number = (value) => value.toLocaleString(language);
const set = (element, value) => { if (element.textContent !== value) element.textContent = value; };

function duration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const whole = Math.max(0, Math.round(seconds));
  const first = units.findIndex(([size]) => whole >= size);
  if (first < 0) return `0 ${text("s")}`;
  const [size, name] = units[first];
  const rest = units[first + 1] && Math.floor((whole % size) / units[first + 1][0]);
  const more = rest && first < 2 ? ` ${rest} ${text(units[first + 1][1])}` : "";
  return `${Math.floor(whole / size)} ${text(name)}${more}`;
}

function bytes(count) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, count)) / 10));
  return `${(count / 1024 ** power).toLocaleString(language, { maximumFractionDigits: power > 1 ? 1 : 0 })} ${units[power]}`;
}

function made(tag, className, content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (content !== undefined) element.textContent = content;
  return element;
}

/** The texts of a failure: what is wrong, and what to do. */
const explained = (code) => text("errors")[ERRORS[code] || "other"];

// --- Requests to the box ---

class Failure extends Error {}

async function ask(path, body) {
  const headers = { ...(token ? { Authorization: `Bearer ${token}` } : {}), ...(body ? { "Content-Type": "application/json" } : {}) };
  const asked = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body: body ? JSON.stringify(body) : undefined, cache: "no-store" });
  const answer = await asked.json();
  if (asked.status === 401) logIn();
  if (!asked.ok) throw Object.assign(new Failure(answer.error.message), { code: asked.status });
  return answer;
}

function logIn() {
  set(at("login-wrong"), token ? text("token_wrong") : "");
  token = null;
  if (!at("login").open) at("login").showModal();
}

at("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  try {
    status = await ask("api/status");
    keep(sessionStorage, "token", token);
    at("login").close();
    await readSettings();
    show();
  } catch (error) {
    if (!(error instanceof Failure)) set(at("login-wrong"), text("gone"));
  }
});
at("login").addEventListener("cancel", (event) => event.preventDefault());

/** If somebody else changed the settings, an unchanged form shows the new ones; a changed form keeps its own, and asks. */
async function readSettings() {
  if (status.config.revision === (theirs || { revision }).revision) return;
  const fresh = await ask("api/settings");
  if (!settings || !dirty) return take(fresh);
  theirs = differing(fresh.data, settings).length ? fresh : null;
  revision = theirs ? revision : fresh.revision;
  showConflict();
}

function take(fresh) {
  settings = fresh.data;
  revision = fresh.revision;
  theirs = null;
  fillForm();
  showConflict();
}

const differing = (one, other) => Object.keys(one).filter((key) => JSON.stringify(one[key]) !== JSON.stringify(other[key]));

/** The page does not wait for this: a hanging disk must not block it. */
function readLetters() {
  const { dead_letters: count, dead_letters_evicted: evicted } = status.spool;
  if (letters.count === count && letters.evicted === evicted) return;
  Object.assign(letters, { count, evicted });
  if (count) ask("api/dead-letters?limit=20").then(({ dead }) => { letters.dead = dead; show(); }, () => { letters.count = -1; });
}

async function look() {
  try {
    if (!at("login").open) {
      status = await ask("api/status");
      await readSettings();
      readLetters();
      live = "live";
    }
  } catch (error) {
    live = error instanceof Failure ? "connecting" : "broken";
  }
  show();
  setTimeout(look, document.hidden ? 5 * EVERY : EVERY);
}

// --- Display ---

function show() {
  at("live").dataset.state = live;
  set(at("live-text"), text(live));
  if (!status) return;
  showBanner();
  const { shares } = status;
  set(at("acknowledged"), number(shares.acknowledged));
  set(at("waiting"), number(shares.spooled + shares.open));
  set(at("waiting-note"), text("waiting_note")(number(shares.spooled)));
  const undelivered = shares.dead + shares.evicted + shares.quarantined + shares.vanished + shares.expired + shares.refused + shares.lost;
  set(at("undelivered"), number(undelivered));
  at("lost-tile").classList.toggle("bad", undelivered > 0);
  showServers();
  showKept();
  showHour();
  set(at("rings"), status.rings.map(ringLine).join(" · "));
  showBalance();
  set(at("about"), text("about")(status.version, duration(status.uptime_seconds)));
}

/** Problems to show, the most serious first. */
function troubles() {
  const found = [];
  for (const server of status.destinations) {
    if (server.state !== "up") found.push(text("states")[server.state] + text("colon") + server.url);
  }
  if (status.spool.problem) found.push(text("spool_trouble") + status.spool.problem);
  for (const parked of status.spool.parked) found.push(text("parked_banner")(number(parked.events)) + parked.url);
  for (const ring of status.rings) {
    if (ring.state && ring.state.used > 0.9 * ring.state.capacity) found.push(text("ring_full"));
    if (ring.state && ring.state.dropped > 0) found.push(text("dropped")(number(ring.state.dropped)));
    if (ring.is_removed) found.push(text("ring_removed") + ring.path);
    if (ring.recognizer === "died" && ring.recognizer_seconds > 10) found.push(text("recognizer_died") + ring.path);
    if (ring.problem && !ring.is_removed && ring.recognizer !== "died" && status.health.problems.some((problem) => problem.includes(ring.path))) found.push(text("ring_trouble") + ring.problem);
  }
  if (status.pending_restart.length) found.push(text("pending")(status.pending_restart.join(text("comma"))));
  if (status.config.problem) found.push(text("config_trouble") + status.config.problem);
  if (status.privileges.problem) found.push(text("less_protected") + status.privileges.problem);
  if (!status.clock_is_set) found.push(text("clock"));
  if (!status.randomness_is_ready) found.push(text("randomness"));
  return found;
}

function showBanner() {
  const found = troubles();
  const none = status.destinations.length === 0;
  const idle = status.events.read === 0 && status.shares.acknowledged === 0;
  at("banner").hidden = false;
  at("banner").dataset.tone = found.length ? "bad" : none || idle ? "wait" : "good";
  set(at("banner-title"), text(found.length ? "unwell" : none || idle ? "idle" : "well"));
  const list = at("banner-list"), shown = [...list.children].map((item) => item.textContent);
  const lines = found.length || !none ? found : [text("no_servers")];
  // Replace the list only if it changed, so that a screen reader does not repeat it.
  if (shown.join("\n") !== lines.join("\n")) list.replaceChildren(...lines.map((line) => made("li", "", line)));
}

function showServers() {
  const list = at("servers"), { destinations } = status;
  at("no-servers").hidden = destinations.length > 0;
  while (list.children.length > destinations.length) list.lastElementChild.remove();
  while (list.children.length < destinations.length) list.append(at("server").content.firstElementChild.cloneNode(true));
  destinations.forEach((server, index) => showServer(list.children[index], server));
}

function showServer(article, server) {
  const find = (selector) => article.querySelector(selector);
  const untried = server.state === "up" && server.last_success_seconds === null;
  article.dataset.state = untried ? "untried" : server.state;
  set(find(".pill"), text("states")[untried ? "untried" : server.state]);
  set(find(".url"), server.url);
  const waiting = server.in_flight + server.queued + server.backlog.events;
  const facts = [text("n_delivered")(number(server.acknowledged)), text("n_waiting")(number(waiting), server.backlog.bytes ? bytes(server.backlog.bytes) : "")];
  if (!untried) facts.unshift(text("since")(duration(server.since_seconds)));
  if (server.last_answer) facts.push(text("last_answer")(server.last_answer));
  if (server.failed_tries) facts.push(text("n_failed")(number(server.failed_tries)));
  if (server.next_try_seconds !== null) facts.push(text("next_try")(duration(server.next_try_seconds)));
  if (server.standing_in) facts.push(text("standing_in")(server.standing_in));
  if (server.in_order) facts.push(text("in_order"));
  if (server.bytes_per_second) facts.push(text("at_most")(bytes(server.bytes_per_second)));
  if (server.off_hours) facts.push(text("off_hours"));
  if (server.period_seconds) facts.push(text("period")(duration(server.period_seconds)));
  if (server.next_round_seconds !== null) facts.push(text("next_round")(duration(server.next_round_seconds)));
  if (server.expired) facts.push(text("n_expired")(number(server.expired)));
  set(find(".facts"), facts.join(" · "));
  showLimit(find(".limit"), server.limit);
  const trouble = find(".trouble");
  trouble.hidden = !server.last_error;
  if (!server.last_error) return;
  const past = server.state === "up", [what, todo] = explained(server.last_error_code);
  trouble.classList.toggle("past", past);
  set(find(".what"), (past ? text("past")(duration(server.last_error_seconds)) : "") + what);
  set(find(".todo"), todo);
  set(find("summary"), text("details"));
  set(find("details code"), server.last_error);
}

/** Shows a server's size limit: larger events fail, and smaller ones do not. */
function showLimit(box, limit) {
  box.hidden = !limit;
  if (!limit) return;
  const what = text("limit")(bytes(limit.takes_body_bytes), bytes(limit.refuses_body_bytes));
  box.replaceChildren(made("p", "what", what), ...whatToSet(limit.likely));
}

/** The setting for each server product that may have the limit. */
function whatToSet(likely) {
  return likely.flatMap(({ server, setting }) => [made("p", "", text("likely")(server)), made("pre", "", setting)]);
}

function ringLine(ring) {
  const last = ring.last_event_seconds === null ? text("no_event") : text("last_event")(duration(ring.last_event_seconds));
  return text("recognizer")[ring.recognizer](duration(ring.recognizer_seconds)) + last;
}

/** Shows events that stay on flash: those of removed destinations, and those that a server refused. */
function showKept() {
  const { parked, dead_letters } = status.spool;
  at("kept").hidden = parked.length === 0 && dead_letters === 0;
  const lines = parked.map(({ url, events, bytes: size }) => entry("wait", url, text("parked")(number(events), bytes(size)), ""));
  for (const { url, events } of dead_letters ? letters.dead : []) {
    for (const letter of events) {
      const time = letter.time ? new Date(letter.time * 1000).toLocaleString(language) : "";
      const tries = letter.tries ? text("tries")(number(letter.tries)) : "";
      lines.push(entry("bad", url, [letter.status || "", time, tries, letter.event].filter(Boolean).join(" · "), letter.reason || ""));
    }
  }
  const known = letters.dead.reduce((sum, { events }) => sum + events.length, 0);
  if (dead_letters) lines.push(made("p", "quiet", text("letters")(number(dead_letters), number(Math.min(known, dead_letters)))));
  const list = at("letters");
  if (list.textContent !== lines.map((line) => line.textContent).join("")) list.replaceChildren(...lines);
}

function entry(tone, url, facts, reason) {
  const box = made("div", "entry");
  box.dataset.tone = tone;
  box.append(made("code", "url", url), made("p", "quiet", facts));
  if (reason) box.append(made("p", "", reason));
  return box;
}

function showHour() {
  const { delivered, mean_ms } = status.history;
  const total = delivered.reduce((sum, count) => sum + count, 0);
  const spent = delivered.reduce((sum, count, index) => sum + count * (mean_ms[index] || 0), 0);
  set(at("hour-text"), text("hour_text")(number(total), total ? number(Math.round(spent / total)) : null));
  const plot = at("plot"), width = plot.clientWidth || 600, height = 150, top = 18;
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const most = Math.max(1, ...delivered), slowest = Math.max(1, ...mean_ms.map((ms) => ms || 0));
  const x = (index) => 8 + (width - 16) * index / delivered.length, step = (width - 16) / delivered.length;
  const shape = (tag, attributes, content) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (content) element.textContent = content;
    return element;
  };
  const bars = delivered.map((count, index) => {
    const tall = (height - top - 4) * count / most;
    return shape("rect", { class: "rate", x: x(index), y: height - tall, width: Math.max(1, step - 1), height: tall, rx: 1 });
  });
  const known = mean_ms.map((ms, index) => ms === null ? null : [x(index) + step / 2, height - (height - top - 4) * ms / slowest]);
  let path = "", pen = "M";
  for (const point of known) {
    if (point) path += `${pen}${point.map((value) => value.toFixed(1)).join(" ")}${pen === "M" ? "h.1" : ""}`;
    pen = point ? "L" : "M";
  }
  const left = shape("text", { x: 8, y: 13 }, `${number(most)} / min`);
  const right = shape("text", { x: width - 8, y: 13, "text-anchor": "end" }, `${number(Math.round(slowest))} ms`);
  plot.replaceChildren(...bars, ...(path ? [shape("path", { class: "latency", d: path })] : []), ...(total ? [left, right] : []));
}

const TONES = { acknowledged: "good", sent: "good", spooled: "wait", open: "wait", filtered: "quiet", handed_over: "quiet" };

function showBalance() {
  const { read, ...events } = status.events;
  const { entered, recovered, inherited, resent, failed_tries, in_transit, ...shares } = status.shares;
  at("balance").replaceChildren(sum(text("sum_events"), read, events), sum(text("sum_shares"), entered + recovered + inherited + resent, shares));
}

function sum(title, total, parts) {
  const box = made("div", "sum"), heading = made("h3", "", title), stack = made("div", "stack"), list = made("ul", "parts");
  heading.append(made("span", "", number(total)));
  stack.setAttribute("aria-hidden", "true");
  for (const [name, count] of Object.entries(parts)) {
    if (!count && !["acknowledged", "sent", "filtered"].includes(name)) continue;
    const tone = TONES[name] || "bad", item = made("li", "", text("parts")[name] || name), piece = made("span");
    item.dataset.tone = piece.dataset.tone = tone;
    item.append(made("strong", "", number(count)));
    list.append(item);
    if (!count) continue;
    piece.style.flexGrow = count;
    stack.append(piece);
  }
  box.append(heading, stack, list);
  return box;
}

// --- The settings ---

function fillForm() {
  at("urls").replaceChildren();
  (settings.event_server_url.length ? settings.event_server_url : [""]).forEach(addRow);
  for (const radio of at("settings").elements.format) radio.checked = radio.value === settings["content-type"];
  at("threshold").value = settings.threshold;
  at("unit").value = settings.timestamp_unit;
  at("reg-pic").checked = settings.real_need_reg_pic;
  const more = Object.keys(settings.more).length > 0;
  at("more").value = at("more").defaultValue = more ? JSON.stringify(settings.more, null, 2) : "";
  at("further").open = more;
  changed(false);
}

function addRow(url) {
  const row = at("url-row").content.firstElementChild.cloneNode(true);
  const input = row.querySelector("input");
  input.value = url;
  input.placeholder = "http://192.168.1.19:9528/RealTimeEvent";
  row.querySelector("button").addEventListener("click", () => {
    const next = row.nextElementSibling || row.previousElementSibling;
    row.remove();
    if (!next) addRow("");
    (next || at("urls").firstElementChild).querySelector("input").focus();
    nameRows();
    changed(true);
  });
  at("urls").append(row);
  nameRows();
  return input;
}

function nameRows() {
  [...at("urls").children].forEach((row, index) => {
    row.querySelector("input").setAttribute("aria-label", text("url_label")(index + 1));
    row.querySelector("button").setAttribute("aria-label", `${text("remove_url")}: ${index + 1}`);
    row.querySelector("button").title = text("remove_url");
  });
}

function changed(yes) {
  dirty = yes;
  at("undo").hidden = !yes;
  if (yes) say(null);
}

function say(tone, words) {
  message = tone && [tone, words];
  at("saved").className = `message ${tone || ""}`;
  set(at("saved"), tone ? words() : "");
}

const NAMES = { event_server_url: "urls", "content-type": "format", threshold: "threshold", timestamp_unit: "unit", real_need_reg_pic: "reg_pic", more: "further" };

/** Shows the question which changes to keep, while it is open. */
function showConflict() {
  at("conflict").hidden = !theirs;
  if (theirs) set(at("conflict-text"), text("conflict")(differing(theirs.data, settings).map((key) => text(NAMES[key])).join(text("comma"))));
}

/** The key of the text about a faulty address. The box checks it again. */
function faultOf(url, all) {
  if (url === "") return all.length > 1 ? "empty" : null;
  if (/\s/.test(url)) return "spaces";
  if (!/^https?:\/\/[^/?#]+/i.test(url)) return "scheme";
  if (url.includes("#")) return "fragment";
  if (/^https?:\/\/[^/?]*@/i.test(url)) return "login";
  return all.filter((other) => other === url).length > 1 ? "twice" : null;
}

function mark(row, words) {
  const note = row.querySelector(".message"), input = row.querySelector("input");
  note.hidden = !words;
  set(note, words || "");
  words ? input.setAttribute("aria-invalid", "true") : input.removeAttribute("aria-invalid");
}

/** The further settings; undefined if the text is not a JSON object. */
function furtherSettings() {
  const written = at("more").value.trim();
  if (written === "") return {};
  try {
    const more = JSON.parse(written);
    return more && typeof more === "object" && !Array.isArray(more) ? more : undefined;
  } catch { return undefined; }
}

/** Whether there is a number that JavaScript may have rounded. */
function isRounded(value) {
  if (typeof value === "number") return Math.abs(value) > Number.MAX_SAFE_INTEGER;
  return value !== null && typeof value === "object" && Object.values(value).some(isRounded);
}

/** The box's message about a faulty value; that about a key of the form itself in the page's language. */
const fault = (said) => {
  const found = /^(event_server_url|threshold)\b/.test(said) && FAULTS.find(([pattern]) => pattern.test(said));
  return found ? text("faults")[found[1]] : said;
};

async function save(event) {
  event.preventDefault();
  const rows = [...at("urls").children], urls = rows.map((row) => row.querySelector("input").value.trim());
  const faults = urls.map((url) => faultOf(url, urls));
  rows.forEach((row, index) => mark(row, faults[index] && text("faults")[faults[index]]));
  const threshold = at("threshold").value.trim().replace(",", ".");
  const odd = threshold === "" || !Number.isFinite(Number(threshold));
  odd ? at("threshold").setAttribute("aria-invalid", "true") : at("threshold").removeAttribute("aria-invalid");
  if (odd) say("bad", () => text("faults").number);
  const first = rows[faults.findIndex(Boolean)];
  const more = furtherSettings();
  const wrong = !more ? "json" : at("more").value !== at("more").defaultValue && isRounded(more) ? "rounded" : null;
  wrong ? at("more").setAttribute("aria-invalid", "true") : at("more").removeAttribute("aria-invalid");
  if (wrong) say("bad", () => text("faults")[wrong]);
  if (first || odd || wrong) return (first ? first.querySelector("input") : at(odd ? "threshold" : "more")).focus();
  await busy(at("save"), async () => {
    say("quiet", () => text("saving"));
    try {
      const form = {
        event_server_url: urls.filter(Boolean), "content-type": at("settings").elements.format.value,
        threshold: Number(threshold), timestamp_unit: at("unit").value, real_need_reg_pic: at("reg-pic").checked, more,
      };
      // Send only the keys changed here; the others keep their present values.
      const changes = Object.fromEntries(differing(form, settings).map((key) => [key, form[key]]));
      const send = () => ask("api/settings", { ...changes, revision });
      take(await send().catch(async (error) => {
        if (error.code !== 412) throw error;
        status = await ask("api/status");
        await readSettings();
        if (theirs) throw error;
        return send(); // the values that this form shows have not changed
      }));
      say("good", () => text("saved"));
      status = await ask("api/status");
      show();
    } catch (error) {
      if (theirs && error.code === 412) return say(null); // the form shows the question
      const said = error instanceof Failure ? error.message : null;
      const row = said && rows[Number((said.match(/^event_server_url\[(\d+)\]/) || [])[1])];
      if (row) mark(row, fault(said));
      say("bad", () => text("not_saved") + (said ? fault(said) : text("gone")));
    }
  });
}

async function busy(button, work) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  await work().finally(() => button.removeAttribute("aria-busy"));
}

// --- The test event ---

const LARGE = [20000, 300000, 1000000, 4194304]; // the sizes of `sophon-uplink try`

// Sends one event per size and shows each result when it arrives. null is the test card.
const sendTest = (sizes) => (event) => busy(event.target, async () => {
  results = "testing";
  showResults();
  const arrived = [];
  try {
    for (const size of sizes) {
      arrived.push(...(await ask("api/test-event", size && { picture_bytes: size })).results);
      results = [...arrived];
      showResults();
    }
  } catch (error) {
    results = error instanceof Failure ? error.message : "gone";
  }
  showResults();
});

function showResults() {
  if (results === null) return;
  if (typeof results === "string") {
    return at("tested").replaceChildren(made("p", "message", text(results) || results));
  }
  const notes = dirty ? [made("p", "message quiet", text("unsaved"))] : [];
  if (results.length === 0) notes.push(made("p", "message bad", text("nobody")));
  if (results.some(({ delivered, proven }) => delivered && !proven)) notes.push(made("p", "quiet", text("unproven")));
  at("tested").replaceChildren(...notes, ...results.map(result));
}

function result({ url, picture_bytes, delivered, proven, status: code, milliseconds, error, error_code, answer, likely }) {
  const box = made("div", "result");
  box.dataset.tone = delivered ? "good" : "bad";
  box.append(made("code", "url", url), made("strong", "", text(delivered ? proven ? "proven" : "arrived" : "not_arrived")));
  box.append(made("p", "quiet", text("pictures")(bytes(picture_bytes))));
  if (code) box.append(made("p", "", text("answered")(code, number(milliseconds))));
  if (error) explained(error_code).forEach((line) => box.append(made("p", "", line)));
  box.append(...whatToSet(likely));
  if (answer) box.append(made("p", "quiet", text("server_said")), made("pre", "", answer));
  if (error) {
    const details = made("details"), code = made("code", "", error);
    details.append(made("summary", "", text("details")), code);
    box.append(details);
  }
  return box;
}

// --- The whole page ---

function showLanguage() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  for (const element of document.querySelectorAll("[data-text]")) set(element, text(element.dataset.text));
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  nameRows();
  for (const row of at("urls").children) mark(row, null);
  if (message) say(...message);
  showResults();
  if (theirs) showConflict();
  show();
}

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    language = button.dataset.language;
    keep(localStorage, "language", language);
    showLanguage();
  });
}
at("settings").addEventListener("submit", save);
at("settings").addEventListener("input", () => changed(true));
at("add-url").addEventListener("click", () => { addRow("").focus(); changed(true); });
at("undo").addEventListener("click", () => { theirs ? take(theirs) : fillForm(); say(null); });
at("take-theirs").addEventListener("click", () => { take(theirs); say(null); });
at("save-mine").addEventListener("click", () => {
  revision = theirs.revision; // the person has seen the other changes
  at("settings").requestSubmit();
});
at("send-test").addEventListener("click", sendTest([null]));
at("send-large").addEventListener("click", sendTest(LARGE));
addEventListener("resize", () => status && showHour());
showLanguage();
look();
