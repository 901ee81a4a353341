//! The commands that look into a spool or send its dead letters again, whether an uplink runs or not.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use sophon_uplink::api::client;
use sophon_uplink::config::{self, Config, Url};
use sophon_uplink::confine::User;
use sophon_uplink::control::CheckedConfig;
use sophon_uplink::spool::dead::{PAGE, Wanted};
use sophon_uplink::spool::inspect::{Contents, Folder};
use sophon_uplink::spool::{Address, RealDisk, Resent, Spool, State};
use sophon_uplink::uplink;

use crate::command::complain;

/// Which dead letters to send again.
pub struct Letters {
    /// None: all.
    pub numbers: Option<Vec<u64>>,
    /// None: each goes to its original destination.
    pub to: Option<String>,
}

/// Inspects the spool of the config at `file`. If the running uplink has another one open, because a changed `spool.dir` waits
/// for a restart, inspects that one.
///
/// # Errors
/// Why the spool cannot be inspected.
pub fn look_into<T>(file: &Path, look: impl FnOnce(&Path, &Config) -> std::io::Result<T>) -> Result<T, String> {
    let (good, _) = CheckedConfig::read_or_last(file).map_err(|error| error.to_string())?;
    let open = client::status(file, None).ok().and_then(|status| status["spool"]["dir"].as_str().map(PathBuf::from));
    let dir = match open {
        Some(open) if open != good.config().spool.dir => {
            complain(format_args!("{} is open until a restart puts the config's spool.dir into force", open.display()));
            open
        }
        _ => good.config().spool.dir.clone(),
    };
    look(&dir, good.config()).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no spool at {}: nothing was ever spooled", dir.display()),
        _ => format!("the spool at {} cannot be read: {error}", dir.display()),
    })
}

/// The contents of the spool at `dir`, including what is parked under `config`.
///
/// # Errors
/// There is no spool, or it cannot be read.
pub fn contents(dir: &Path, config: &Config) -> std::io::Result<Contents> {
    Contents::of(dir, &uplink::addresses(config))
}

/// The dead letters as text for people, one per line.
pub fn dead_letters(folders: &[Folder]) -> String {
    let mut lines = Vec::new();
    for folder in folders {
        lines.extend(folder.events.iter().map(|letter| {
            let why = letter.reason.as_ref().map_or(String::new(), |reason| format!("\n    {reason}"));
            format!("{letter}  {} bytes  {}{why}", letter.bytes, folder.label())
        }));
    }
    if lines.is_empty() { "no dead letters".into() } else { lines.join("\n") }
}

/// Resends dead letters in batches: through the running uplink, or directly if none runs. Returns a summary.
///
/// # Errors
/// Why they were not sent.
pub fn resend(file: &Path, letters: &Letters) -> Result<String, String> {
    let by_root = nix::unistd::geteuid().is_root();
    if by_root {
        become_owner(config::folder_of(file))?; // the owner may write any path into the config
    }
    let (good, _) = CheckedConfig::read_or_last(file).map_err(|error| error.to_string())?;
    // Try the uplink first: it may have a spool open that differs from the one in the config.
    let Err(no_answer) = client::status(file, None) else {
        return in_batches(|after| ask_to_resend(file, letters, after));
    };
    let unknown = |to: &str| format!("{to} is not a destination of the config");
    let is_known = |url: &Url| good.config().destinations().any(|known| known == url);
    let known = |to: &str| Url::of_destination(to).ok().filter(is_known).ok_or_else(|| unknown(to));
    let to = letters.to.as_deref().map(known).transpose()?.map(|url| Address::from(&url).destination);
    if by_root {
        owns_spool(&good.config().spool.dir)?;
    }
    let (mut spool, found) = Spool::open(RealDisk::default(), &good.config().spool, &uplink::addresses(good.config()));
    match spool.state() {
        State::Usable => in_batches(|after| {
            let wanted = Wanted { numbers: letters.numbers.clone(), to, after };
            spool.resend_some(&wanted).map_err(|fault| fault.to_string())
        }),
        _ if found.unavailable.is_some_and(|fault| fault.is_claimed()) => Err(no_answer),
        State::Troubled(why) | State::Unavailable(why) => Err(why.clone()),
    }
}

/// Asks the running uplink to resend some of the letters.
fn ask_to_resend(file: &Path, letters: &Letters, after: Option<u64>) -> Result<Resent, String> {
    let mut wanted = match &letters.numbers {
        Some(numbers) => json!({ "numbers": numbers }),
        None => json!({ "all": true }),
    };
    if let Some(to) = &letters.to {
        wanted["to"] = json!(to);
    }
    if let Some(after) = after {
        wanted["after"] = json!(after);
    }
    let answer = client::post(file, "/api/dead-letters", &wanted)?;
    let resent = answer["resent"].as_u64().ok_or_else(|| format!("the uplink answered {answer}"))?;
    let skipped = answer["skipped"].as_object().into_iter().flatten();
    let skipped = skipped.map(|(url, letters)| (url.clone(), letters.as_u64().unwrap_or(0))).collect();
    Ok(Resent { resent, skipped, after: answer["after"].as_u64() })
}

/// Sends all batches and prints the progress. Returns a summary.
fn in_batches(mut send: impl FnMut(Option<u64>) -> Result<Resent, String>) -> Result<String, String> {
    let mut done = Resent::default();
    loop {
        let batch = send(done.after).map_err(|why| match done.resent {
            0 => why,
            resent => format!("{resent} dead letters wait to be sent again; the others failed: {why}"),
        })?;
        let before = done.resent / PAGE as u64;
        done.add(batch);
        if done.after.is_none() {
            break;
        }
        if done.resent / PAGE as u64 > before {
            complain(format_args!("{} dead letters so far", done.resent));
        }
    }
    let left = done.skipped.iter().map(|(url, letters)| {
        format!("{letters} for {url} stay: its destination is not in the config; --to URL sends them to another one")
    });
    let left = left.collect::<Vec<_>>().join("\n");
    match (done.resent, left.as_str()) {
        (0, left) if !left.is_empty() => Err(left.to_owned()),
        (resent, "") => Ok(format!("{resent} dead letters wait to be sent again")),
        (resent, left) => Ok(format!("{resent} dead letters wait to be sent again\n{left}")),
    }
}

/// If this process is root, becomes the user who owns the folder.
fn become_owner(folder: &Path) -> Result<(), String> {
    let Some(owner) = User::owner_of(folder) else { return Ok(()) };
    owner.become_it().map_err(|error| format!("cannot become user {owner}, who owns {}: {error}", folder.display()))
}

/// Checks that a spool is a real folder and belongs to this process's user. The uplink could not read files that root creates in
/// another user's folder, and a link may lead anywhere. If the process is still root, the config belongs to root, who may name
/// any spool; the process then becomes the spool's owner.
fn owns_spool(dir: &Path) -> Result<(), String> {
    let found = match std::fs::symlink_metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| format!("the spool at {} cannot be seen: {error}", dir.display()))?,
    };
    if !found.is_dir() {
        return Err(format!("{} is no folder, or a link: set spool.dir to the spool's own folder", dir.display()));
    }
    if nix::unistd::geteuid().is_root() {
        become_owner(dir)?;
    }
    let me = nix::unistd::geteuid().as_raw();
    if found.uid() != me {
        let (dir, owner) = (dir.display(), found.uid());
        return Err(format!(
            "the spool {dir} belongs to user {owner}, and the config's folder to user {me}: give both to the same user"
        ));
    }
    Ok(())
}
