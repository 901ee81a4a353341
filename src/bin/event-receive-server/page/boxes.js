// The page of boxes. It shows /api/boxes and refreshes every few seconds; boxes with problems come first. Data from a box is
// inserted as text only, never as markup.
"use strict";

const TEXTS = {
  en: {
    title: "Boxes", events: "Events", live: "Live", connecting: "Connecting…", broken: "Connection lost, trying again…",
    gone: "Gone", gone_note: "not heard of in time", bad: "Not well", bad_note: "see why in the table", good: "Well",
    good_note: "nothing to do", filter: "Name, serial number, address, reason…", empty_title: "No box has reported yet",
    empty_text: "Set the box's monitor_server_url to this address; in a fleet, to a gateway's:", state: "State", box: "Box", heard: "Heard of",
    cameras: "Cameras", backlog: "Waiting", machine: "CPU · memory · disk", why: "Why", ago: (time) => `${time} ago`,
    every: (time) => `every ${time}`, online: (on, all) => `${on} of ${all} online`, none: "none",
    events_wait: (count) => `${count} events`, dropped: (count) => `${count} dropped`, last_error: "last error: ",
    offline: "offline: ", silent: "no report since then", more: (count) => `and ${count} more: use the search field`,
  },
  zh: {
    title: "盒子", events: "事件", live: "实时更新", connecting: "正在连接…", broken: "连接已断开，正在重试…",
    gone: "失联", gone_note: "未按时上报", bad: "异常", bad_note: "原因见表格", good: "正常",
    good_note: "无需处理", filter: "名称、序列号、地址、原因…", empty_title: "还没有盒子上报",
    empty_text: "请将盒子的 monitor_server_url 设为本地址；盒子较多时设为网关的地址：", state: "状态", box: "盒子", heard: "最近上报",
    cameras: "摄像头", backlog: "积压", machine: "CPU · 内存 · 磁盘", why: "原因", ago: (time) => `${time}前`,
    every: (time) => `每 ${time}`, online: (on, all) => `${on}/${all} 在线`, none: "无",
    events_wait: (count) => `${count} 条事件`, dropped: (count) => `丢弃 ${count} 条`, last_error: "最近错误：",
    offline: "离线：", silent: "此后没有上报", more: (count) => `还有 ${count} 个：请使用搜索框`,
  },
};
const EVERY_MS = 3000;
const MOST_ROWS = 2000;

let shown = null;
let state = "connecting";

function text(key) { return TEXTS[language][key]; }

function time(seconds) {
  const units = language === "zh" ? [[86400, " 天"], [3600, " 小时"], [60, " 分钟"], [1, " 秒"]]
    : [[86400, " d"], [3600, " h"], [60, " min"], [1, " s"]];
  const [size, unit] = units.find(([size]) => seconds >= size * 2) || units[3];
  return `${Math.round(seconds / size)}${unit}`;
}

/** The state of a box's uplink. The server does not check it: a member may be of any type. */
function uplinkOf({ sophon_uplink }) {
  const { backlog, dropped, last_error_code: code } = sophon_uplink || {};
  const count = (value) => (typeof value === "number" ? value : undefined);
  return { backlog: count(backlog), dropped: count(dropped), code: typeof code === "string" ? code : "" };
}

function why(box) {
  const { gateway_ext_data: ext, sub_devices: devices } = box.report, { code } = uplinkOf(box.report);
  const reasons = [];
  if (box.state === "gone") reasons.push(text("silent"));
  if (ext.status_desc) reasons.push(ext.status_desc);
  const offline = devices.filter((device) => device.ep_status === "offline").map((device) => device.ep_name || device.ep_id);
  if (offline.length > 0) reasons.push(text("offline") + offline.join(", "));
  if (code) reasons.push(text("last_error") + code);
  return reasons.join(" · ");
}

function row(box) {
  const { report } = box, { gateway_ext_data: ext, sub_devices: devices } = report, uplink = uplinkOf(report);
  const online = devices.filter((device) => device.ep_status === "online").length;
  const percent = (value) => (typeof value === "number" ? `${Math.round(value)} %` : "–");
  const waiting = [uplink.backlog === undefined ? "–" : text("events_wait")(uplink.backlog)];
  if (uplink.dropped > 0) waiting.push(text("dropped")(uplink.dropped));
  const period = box.period_seconds === null ? "" : ` · ${text("every")(time(box.period_seconds))}`;
  return {
    state: text(box.state),
    box: [report.gateway_name, box.box, report.gateway_ip].filter((part) => part).join("\n"),
    heard: text("ago")(time(box.heard_seconds)) + period,
    cameras: devices.length === 0 ? text("none") : text("online")(online, devices.length),
    backlog: waiting.join("\n"),
    machine: [ext.cpu_use, ext.memory_use, ext.disk_use].map(percent).join(" · "),
    why: why(box),
  };
}

function showRows() {
  at("live").dataset.state = state;
  at("live-text").textContent = text(state);
  if (!shown) return;
  for (const name of ["gone", "bad", "good"]) at(name).textContent = shown.counts[name].toLocaleString(language);
  at("gone-tile").classList.toggle("bad", shown.counts.gone > 0);
  at("bad-tile").classList.toggle("bad", shown.counts.bad > 0);
  at("empty").hidden = shown.boxes.length > 0;
  at("table").hidden = shown.boxes.length === 0;
  const wanted = at("filter").value.trim().toLowerCase();
  const all = shown.boxes.map((box) => [box.state, row(box)]);
  const rows = all.filter(([, cells]) => Object.values(cells).some((cell) => cell.toLowerCase().includes(wanted)));
  at("rows").replaceChildren(...rows.slice(0, MOST_ROWS).map(([kind, cells]) => {
    const line = document.createElement("tr");
    line.dataset.state = kind;
    for (const cell of Object.values(cells)) {
      const column = document.createElement("td");
      column.textContent = cell;
      line.append(column);
    }
    return line;
  }));
  at("more").hidden = rows.length <= MOST_ROWS;
  at("more").textContent = text("more")(rows.length - MOST_ROWS);
}

function showAll() {
  showTexts(TEXTS);
  at("filter").placeholder = text("filter");
  at("filter").setAttribute("aria-label", text("filter"));
  at("url").textContent = `${location.origin}/SophonFogStatus`;
  showRows();
}

async function follow() {
  try {
    const answer = await fetch("/api/boxes");
    if (!answer.ok) throw new Error(`/api/boxes answered ${answer.status}`);
    shown = await answer.json();
    state = "live";
  } catch {
    state = "broken";
  }
  setTimeout(follow, EVERY_MS); // before the rows are shown: it looks again whatever is in them
  showRows();
}

onLanguage(showAll);
at("filter").addEventListener("input", showRows);
showAll();
follow();
