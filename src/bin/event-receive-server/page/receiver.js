// The page of the receiving server. It shows /api/events and follows /api/stream; after every disconnect it fetches the list
// anew. Data from an event is inserted as text only, never as markup.
"use strict";

const TEXTS = {
  en: {
    title: "Event receiver", live: "Live", connecting: "Connecting…", broken: "Connection lost, trying again…",
    received: "Received", received_note: "events stored", duplicates: "Duplicates", duplicates_note: "came again, stored once",
    rejected: "Rejected", rejected_none: "nothing wrong so far", rejected_some: "see the reason below", cut: "cut short: ",
    last_rejection: "Last rejected", empty_title: "Waiting for the first event",
    empty_text: "Point the box's event_server_url at this address, or send an event by hand:",
    empty_stream: (name) => `Nothing is in the stream ${name} yet. Point the boxes' event_server_url at a gateway.`,
    person: "Person", box: "Box", from: "From", to: "To", all: "Show all", nothing_title: "Nothing found",
    nothing_text: "No event of those that are kept here is like that. New ones appear by themselves.",
    empty_hint: "It appears here by itself. Pictures go into reg_pic and ext_data.spot_pic as base64 of a JPEG.",
    registered: "Registered", spot: "On the spot", no_picture: "No picture", broken_picture: "Cannot be shown", score: "Score",
    boxes: "Boxes", history: "History", no_name: "(no name)", time: "Time", device: "Device", ip: "Device IP", unknown_keys: "Unknown keys", came: "received ",
    json: "JSON", "form-data": "form-data",
    persons: { 1: "Employee", 2: "Visitor", 3: "Blacklist", 4: "Stranger", 5: "VIP" },
    devices: { 0: "Gate", 1: "Capture camera", 2: "IPC, static", 3: "IPC, dynamic", 4: "Door access" },
  },
  zh: {
    title: "事件接收服务", live: "实时更新", connecting: "正在连接…", broken: "连接已断开，正在重试…",
    received: "已接收", received_note: "条事件已保存", duplicates: "重复", duplicates_note: "重复送达，只保存一次",
    rejected: "已拒绝", rejected_none: "目前没有错误", rejected_some: "原因见下方", cut: "中途断开：",
    last_rejection: "最近一次拒绝", empty_title: "正在等待第一条事件",
    empty_text: "请将盒子的 event_server_url 指向本地址，或手动发送一条事件：",
    empty_stream: (name) => `数据流 ${name} 中还没有事件。请将盒子的 event_server_url 指向网关。`,
    person: "人员", box: "盒子", from: "起始时间", to: "截止时间", all: "显示全部", nothing_title: "没有找到",
    nothing_text: "此处保留的事件中没有符合条件的。新事件会自动显示。",
    empty_hint: "事件会自动显示在这里。图片以 JPEG 的 base64 放入 reg_pic 和 ext_data.spot_pic。",
    registered: "注册照片", spot: "现场照片", no_picture: "无图片", broken_picture: "无法显示", score: "相似度",
    boxes: "盒子", history: "历史事件", no_name: "（无姓名）", time: "时间", device: "设备", ip: "设备 IP", unknown_keys: "未知字段", came: "接收于 ",
    json: "JSON", "form-data": "form-data",
    persons: { 1: "员工", 2: "访客", 3: "黑名单", 4: "陌生人", 5: "VIP" },
    devices: { 0: "闸机", 1: "抓拍机", 2: "IPC 静态", 3: "IPC 动态", 4: "门禁" },
  },
};
const MOST_CARDS = 200;
const INT32_MAX = 2147483647;

let events = []; // newest first
let counters = null;
let state = "connecting";

function text(key) { return TEXTS[language][key]; }

function moment(ms) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return String(ms);
  const options = { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  return new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en-GB", options).format(date);
}

// --- One event ---

function card(event, isNew) {
  const article = at("card").content.firstElementChild.cloneNode(true);
  const find = (selector) => article.querySelector(selector);
  const ext = event.ext_data;
  article.dataset.id = event.id;
  article.classList.toggle("new", isNew);
  const [registered, spot] = article.querySelectorAll("figure");
  picture(registered, event, "reg_pic", event.reg_pic, text("registered"));
  picture(spot, event, "spot_pic", ext.spot_pic, text("spot"));
  // Further pictures, each under its name.
  for (const [place, name] of event.pictures || []) {
    const figure = spot.cloneNode(true);
    picture(figure, event, `${place}/${encodeURIComponent(name)}`, true, name);
    spot.parentNode.append(figure);
  }
  find(".report").hidden = !event.report;
  find(".report").textContent = event.report ? text(event.report) : "";
  find(".name").textContent = event.identity_name || text("no_name");
  find(".id").textContent = event.identity_id;
  find(".group").textContent = event.group_name;
  const person = ext.person_type ?? 1; // absent means employee
  find(".person").textContent = text("persons")[person];
  find(".person").dataset.type = person;
  find(".score .label").textContent = text("score");
  find(".score strong").textContent = Number(event.score.toFixed(4));
  // Scores are 0 to 1 from some recognizers and 0 to 100 from others.
  const share = event.score > 1 ? event.score / 100 : event.score;
  find(".fill").style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  facts(find(".facts"), event);
  find(".format").textContent = text(event.format);
  find(".came").textContent = text("came") + moment(Date.parse(event.received_at));
  find(".event-id").textContent = event.id;
  find(".event-id").title = event.id;
  return article;
}

function picture(figure, event, kind, note, caption) {
  const link = figure.querySelector("a"), image = figure.querySelector("img"), none = figure.querySelector(".none");
  figure.querySelector("figcaption").textContent = caption;
  none.querySelector("span").textContent = text("no_picture");
  link.hidden = !note;
  none.hidden = Boolean(note);
  if (!note) return;
  image.alt = `${caption}: ${event.identity_name}`;
  image.onerror = () => {
    none.querySelector("span").textContent = text("broken_picture");
    link.hidden = true;
    none.hidden = false;
  };
  image.src = link.href = `/api/events/${encodeURIComponent(event.id)}/${kind}`;
}

function facts(list, event) {
  const { person_type, device_type, device_ip, spot_pic, ...more } = event.ext_data;
  const isPicture = (place, name) => (event.pictures || []).some((known) => known[0] === place && known[1] === name);
  const ms = Math.abs(event.timestamp) > INT32_MAX ? event.timestamp : event.timestamp * 1000;
  const rows = [[text("time"), moment(ms)]];
  if (event.box !== undefined) rows.push([text("box"), event.box]);
  if (device_type !== undefined) rows.push([text("device"), text("devices")[device_type]]);
  if (device_ip !== undefined) rows.push([text("ip"), device_ip]);
  for (const [place, members] of [["top", event.top || {}], ["ext_data", more]]) {
    for (const [name, value] of Object.entries(members)) {
      if (isPicture(place, name)) continue;
      rows.push([name, typeof value === "string" ? value : JSON.stringify(value)]);
    }
  }
  if (event.unknown_keys) rows.push([text("unknown_keys"), event.unknown_keys.join(", ")]);
  for (const [name, value] of rows) {
    const term = document.createElement("dt"), detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = value;
    list.append(term, detail);
  }
}

// --- The page ---

function showCounters() {
  at("live").dataset.state = state;
  at("live-text").textContent = text(state);
  if (!counters) return;
  for (const name of ["received", "duplicates", "rejected"]) {
    at(name).textContent = counters[name].toLocaleString(language);
  }
  const last = counters.last_rejection;
  const notes = [text(last ? "rejected_some" : "rejected_none")];
  if (counters.incomplete > 0) notes.push(text("cut") + counters.incomplete);
  at("rejected-note").textContent = notes.join(" · ");
  at("rejected-tile").classList.toggle("bad", counters.rejected > 0);
  at("reason").hidden = !last;
  if (!last) return;
  at("reason-time").textContent = moment(Date.parse(last.at));
  at("reason-list").replaceChildren(...last.errors.map((error) => {
    const item = document.createElement("li");
    item.textContent = error;
    return item;
  }));
}

function showAll() {
  showTexts(TEXTS);
  const event = '{"identity_id":"1001","identity_name":"Li Lei","group_name":"staff","reg_pic":"","timestamp":';
  const source = counters && counters.source;
  at("empty-text").textContent = source ? text("empty_stream")(source) : text("empty_text");
  at("try").hidden = Boolean(source);
  at("curl").textContent = `curl ${location.origin}/RealTimeEvent -H 'Content-Type: application/json' ` +
    `-d '${event}'$(date +%s)',"score":0.93,"ext_data":{"device_type":"0"}}'`;
  at("cards").replaceChildren(...events.map((event) => card(event, false)));
  showEmpty();
  showCounters();
}

function showEmpty() {
  const isEmpty = counters !== null && events.length === 0;
  at("empty").hidden = !isEmpty || wanted().toString() !== "";
  at("nothing").hidden = !isEmpty || wanted().toString() === "";
}

// Show new events once per frame, so that a burst does not freeze the page.
let fresh = [];
let drawing = false;

function arrived(event) {
  fresh.push(event);
  if (fresh.length > MOST_CARDS) fresh.shift();
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const known = new Set(events.map((event) => event.id));
    for (const event of fresh) {
      if (known.has(event.id)) continue;
      events.unshift(event);
      at("cards").prepend(card(event, true));
    }
    fresh = [];
    events.length = Math.min(events.length, MOST_CARDS);
    while (at("cards").childElementCount > MOST_CARDS) at("cards").lastElementChild.remove();
    showEmpty();
  });
}

// --- The search ---

// What the server is to search for; it is empty when nothing is. Times are the browser's.
function wanted() {
  const asked = new URLSearchParams();
  for (const { name, value, type } of at("search").elements) {
    if (!name || value.trim() === "") continue;
    asked.set(name, type === "datetime-local" ? String(new Date(value).getTime()) : value);
  }
  return asked;
}

let pause;

function searchSoon() {
  clearTimeout(pause);
  pause = setTimeout(again, 300, 0);
}

at("search").addEventListener("input", searchSoon);
at("search").addEventListener("reset", searchSoon);
at("search").addEventListener("submit", (submitted) => submitted.preventDefault());

// --- The server ---

let stream = null;
let retry;

async function fetchAll(asked) {
  const answer = await fetch(`/api/events?limit=${MOST_CARDS}&${asked}`);
  if (!answer.ok) throw new Error(`/api/events answered ${answer.status}`);
  return answer.json();
}

// Begins anew after so many milliseconds.
function again(ms) {
  stream.close();
  clearTimeout(retry);
  retry = setTimeout(follow, ms);
}

function follow() {
  const asked = wanted();
  const mine = stream = new EventSource(`/api/stream?${asked}`);
  // First the list, then the events that came meanwhile: the stream is open before the list is requested, so none is missed.
  let waiting = [];
  const broken = () => {
    if (mine !== stream) return;
    state = "broken";
    showCounters();
    again(2000);
  };
  stream.onopen = async () => {
    let list;
    try {
      list = await fetchAll(asked);
    } catch {
      return broken();
    }
    if (mine !== stream) return; // another search began meanwhile
    ({ events, ...counters } = list);
    fresh = [];
    state = "live";
    showAll();
    waiting.forEach(arrived);
    waiting = null;
    showCounters();
  };
  stream.addEventListener("stored", (message) => {
    const event = JSON.parse(message.data);
    waiting ? waiting.push(event) : arrived(event);
  });
  stream.addEventListener("counters", (message) => {
    counters = JSON.parse(message.data);
    showCounters();
  });
  stream.onerror = broken;
}

onLanguage(showAll);
showAll();
follow();
