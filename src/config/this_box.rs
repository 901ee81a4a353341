//! `box`: the names of this box, and the files with values that only the box knows.

use std::fs;
use std::path::{Path, PathBuf};

use super::ConfigFault;
use super::fields::Fields;

/// Maximum length of a serial number or a name, in bytes.
const LONGEST: usize = 128;

/// The values as written in the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThisBox {
    serial: Option<String>,
    serial_file: Option<PathBuf>,
    name: Option<String>,
    /// The registration code.
    pub dev_sno: Option<String>,
    /// A JSON file with the cameras, written by the recognizer.
    pub sub_devices_file: Option<PathBuf>,
}

impl ThisBox {
    /// Takes the key from the file's fields.
    pub(super) fn take(fields: &mut Fields<'_>) -> ThisBox {
        let mut fields = fields.object("box");
        let read = ThisBox {
            serial: text(&mut fields, "serial"),
            serial_file: fields.optional_path("serial_file"),
            name: text(&mut fields, "name"),
            dev_sno: text(&mut fields, "dev_sno"),
            sub_devices_file: fields.optional_path("sub_devices_file"),
        };
        if read.serial.is_some() && read.serial_file.is_some() {
            fields.fault("serial_file", None, "serial and serial_file do not go together");
        }
        fields.end();
        read
    }

    /// Whether the config gives a serial number or a file with it.
    pub fn has_serial(&self) -> bool {
        self.serial.is_some() || self.serial_file.is_some()
    }

    /// The serial number. Without one in the config, the hardware address.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn serial(&self) -> Result<String, ConfigFault> {
        match (&self.serial, &self.serial_file) {
            (Some(serial), _) => Ok(serial.clone()),
            (None, Some(file)) => text_of(file, "box.serial_file"),
            (None, None) => Ok(mac().unwrap_or_default()),
        }
    }

    /// The name for people. Without one in the config, the host name.
    ///
    /// # Errors
    /// The host name cannot be read.
    pub fn name(&self) -> Result<String, ConfigFault> {
        self.name.clone().map_or_else(hostname, Ok)
    }
}

fn text(fields: &mut Fields<'_>, key: &str) -> Option<String> {
    let allowed = "a text of 1 to 128 bytes without control characters";
    fields.take(key, allowed, |value| value.as_str().filter(|text| is_plain(text)).map(str::to_owned))
}

fn is_plain(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The host name of the box.
///
/// # Errors
/// It cannot be read.
pub fn hostname() -> Result<String, ConfigFault> {
    text_of("/proc/sys/kernel/hostname".as_ref(), "${hostname}")
}

/// Reads one line of text from a file. `key` is the config key that names the file.
fn text_of(path: &Path, key: &str) -> Result<String, ConfigFault> {
    let fault = |why: String| ConfigFault {
        key: key.into(),
        value: None,
        allowed: format!("a file with one line of text: {}: {why}", path.display()),
    };
    let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let text = text.trim_matches(['\0', ' ', '\t', '\r', '\n']).to_owned();
    if is_plain(&text) { Ok(text) } else { Err(fault(format!("it has not 1 to {LONGEST} bytes of plain text"))) }
}

/// The MAC address of the interface of the default route. Without one, that of the first interface by name that has one; or none.
pub fn mac() -> Option<String> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let mut routes = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let default = routes.find(|words| words.get(1) == Some(&"00000000")).map(|words| words[0].to_owned());
    let others = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut others: Vec<_> = others.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    others.sort_unstable();
    let address = |name: String| {
        let address = fs::read_to_string(format!("/sys/class/net/{name}/address")).ok()?.trim().to_owned();
        (!address.is_empty() && address != "00:00:00:00:00:00").then_some(address)
    };
    default.into_iter().chain(others).find_map(address)
}
