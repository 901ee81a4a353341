//! Prints the output of commands. If the reader has gone, as with `| head -1`, it has what it wanted: the command succeeds. If
//! the disk is full, the exit code reports the error, even if nobody can read a message. `println!` would panic in both cases.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

/// Prints to standard output. `program` is the prefix of error messages.
pub fn print(program: &str, text: impl Display) -> ExitCode {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => not_printed(program, &error),
    }
}

/// Handles an error of standard output for `program`.
pub fn not_printed(program: &str, error: &io::Error) -> ExitCode {
    if error.kind() == ErrorKind::BrokenPipe {
        return ExitCode::SUCCESS;
    }
    complain(program, format_args!("standard output cannot be written: {error}"));
    ExitCode::FAILURE
}

/// Prints an error on standard error. If that fails too, only the exit code reports the error.
pub fn complain(program: &str, what: impl Display) {
    let _ = writeln!(io::stderr(), "{program}: {what}");
}
