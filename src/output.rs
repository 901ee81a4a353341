//! What the commands print. A reader that has gone, as `| head -1` does, has what it wanted: that is a quiet success. A disk that is full
//! is an error, which the exit code tells even where nobody can read it. Neither is a panic, which is what `println!` makes of both.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

/// Prints to standard output; `program` is whom an error names.
pub fn print(program: &str, text: impl Display) -> ExitCode {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => not_printed(program, &error),
    }
}

/// What it means for `program` that standard output does not take what it prints.
pub fn not_printed(program: &str, error: &io::Error) -> ExitCode {
    if error.kind() == ErrorKind::BrokenPipe {
        return ExitCode::SUCCESS;
    }
    complain(program, format_args!("standard output cannot be written: {error}"));
    ExitCode::FAILURE
}

/// Says on standard error what is wrong. Where that cannot be written either, the exit code has to do.
pub fn complain(program: &str, what: impl Display) {
    let _ = writeln!(io::stderr(), "{program}: {what}");
}
