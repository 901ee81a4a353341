//! The user that a process started as root becomes.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use nix::unistd::{self, Gid, Uid, getegid, geteuid, getgroups};

/// A user and a group. A parsed value is never root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub id: u32,
    /// Group id.
    pub group: u32,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.group)
    }
}

/// Parses `USER` or `USER:GROUP`, each as a number or a name. A number needs no user database; the group defaults to the same
/// number.
impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<User, String> {
        let (name, group) = text.split_once(':').map_or((text, None), |(name, group)| (name, Some(group)));
        let (id, own) = match name.parse() {
            Ok(id) => (id, id),
            Err(_) => match unistd::User::from_name(name) {
                Ok(Some(found)) => (found.uid.as_raw(), found.gid.as_raw()),
                _ => return Err(format!("there is no user {name:?} here; a number needs no user database")),
            },
        };
        let group = match group.map(|group| (group, group.parse())) {
            None => own,
            Some((_, Ok(id))) => id,
            Some((group, Err(_))) => match unistd::Group::from_name(group) {
                Ok(Some(found)) => found.gid.as_raw(),
                _ => return Err(format!("there is no group {group:?} here; a number needs no user database")),
            },
        };
        // The kernel treats the largest number as "unchanged", not as a user.
        if [id, group].iter().any(|id| [0, u32::MAX].contains(id)) {
            return Err(format!(
                "{text:?}: user and group must not be 0 or 4294967295; to stay root, leave --user out"
            ));
        }
        Ok(User { id, group })
    }
}

impl User {
    /// Whether this process already runs as that user.
    pub fn is_me(self) -> bool {
        geteuid().as_raw() == self.id && getegid().as_raw() == self.group
    }

    /// Makes the process that user permanently, in every thread: the C library sets the real, effective and saved ids. Drops all
    /// other groups.
    ///
    /// # Errors
    /// The process has no permission.
    pub fn become_it(self) -> nix::Result<()> {
        let (user, group) = (Uid::from_raw(self.id), Gid::from_raw(self.group));
        unistd::setgroups(&[])?;
        unistd::setresgid(group, group, group)?;
        unistd::setresuid(user, user, user)?;
        let is_done = self.is_me() && getgroups()?.iter().all(|other| *other == group);
        if is_done && unistd::setuid(Uid::from_raw(0)).is_err() { Ok(()) } else { Err(nix::errno::Errno::EPERM) }
    }

    /// The owner of the folder at `path`; links are followed. None if the owner is root or the number that means nobody.
    pub fn owner_of(path: &Path) -> Option<User> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(path).ok()?;
        let is_another = found.is_dir() && ![0, u32::MAX].contains(&found.uid());
        is_another.then(|| User { id: found.uid(), group: found.gid() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_or_names_and_never_root() {
        for (text, id, group) in [("65528", 65528, 65528), ("65528:7", 65528, 7), ("nobody:9", 65534, 9)] {
            assert_eq!(text.parse(), Ok(User { id, group }), "{text}");
        }
        for text in
            ["0", "root", "1:0", "0:1", "4294967295", "no-such-user", "1:no-such-group", "", ":", "1:", "-1", "1:2:3"]
        {
            assert!(text.parse::<User>().is_err(), "{text}");
        }
    }
}
