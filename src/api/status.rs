//! `GET /api/status`: the uplink's status, and what only the API knows.

use serde_json::{Value, json};

use super::App;
use crate::health::{notes, problems};
use crate::status::Status;

/// The uplink's status, plus `health`, `history`, `config`, `privileges` and `api`.
pub fn report(app: &App, status: &Status) -> Value {
    let mut report = serde_json::to_value(status).expect("plain data");
    let problems = problems(status);
    report["health"] = json!({"ok": problems.is_empty(), "problems": problems, "notes": notes(status)});
    report["history"] = serde_json::to_value(app.uplink.history().last_hour()).expect("plain data");
    report["config"] = json!({
        "file": app.control.path(), "problem": app.control.trouble(), "revision": app.control.revision(),
    });
    report["privileges"] = serde_json::to_value(&app.confined).expect("plain data");
    report["api"] = json!({
        "listen": app.control.config().api.listen,
        "failed_to_listen": app.failures.get(),
        "last_problem": *app.problem.borrow(),
    });
    report
}
