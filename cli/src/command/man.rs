//! `ucp man [DIRECTORY]`: the manual, from the same definitions as `--help`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use ucp_engine::{Errno, Error};

use crate::args::text::{ENVIRONMENT, EXAMPLES, EXIT_STATUS, FILES, Meaning, SIGNALS};
use crate::args::{ManualArguments, whole};
use crate::exit::ExitStatus;
use crate::report::{complain_of, print_whole};

/// The subcommand that is said to be the program itself.
const SAME: &str = "copy";

/// Prints the page, or writes all of them.
pub(crate) fn run(arguments: &ManualArguments, umask: u32) -> ExitStatus {
    let pages = pages();
    let Some(directory) = &arguments.directory else {
        let (_, page) = &pages[0];
        return print_whole(&mut io::stdout(), page);
    };
    for (name, page) in pages {
        let path = directory.join(name);
        if let Err(error) = write(&path, &page, umask) {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            complain_of(&Error::from_errno("write", errno).on(path));
            return ExitStatus::SomeFailed;
        }
    }
    ExitStatus::Done
}

fn write(path: &Path, page: &[u8], umask: u32) -> io::Result<()> {
    let mode = 0o666 & !umask;
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(page)
}

/// Names of files and what is in them, that of `ucp` itself first.
fn pages() -> Vec<(String, Vec<u8>)> {
    let whole = whole();
    let mut pages = vec![("ucp.1".to_owned(), main_page(&whole))];
    for command in whole.get_subcommands().filter(|command| command.get_name() != SAME) {
        let name = format!("ucp-{}", command.get_name());
        let command = command.clone().display_name(name.clone()).bin_name(name.replace('-', " "));
        let page = render(|page| Man::new(command.disable_help_flag(true)).render(page));
        pages.push((format!("{name}.1"), page));
    }
    pages
}

fn main_page(whole: &Command) -> Vec<u8> {
    let man = Man::new(whole.clone().mut_subcommand(SAME, |copy| copy.hide(true)));
    render(|page| {
        man.render_title(page)?;
        man.render_name_section(page)?;
        synopsis(whole).to_writer(page)?;
        man.render_description_section(page)?;
        man.render_options_section(page)?;
        man.render_subcommands_section(page)?;
        for (title, rows) in [
            ("EXIT STATUS", &EXIT_STATUS[..]),
            ("SIGNALS", &SIGNALS),
            ("ENVIRONMENT", &ENVIRONMENT),
            ("FILES", &FILES),
            ("EXAMPLES", &EXAMPLES),
        ] {
            section(title, rows).to_writer(page)?;
        }
        man.render_version_section(page)
    })
}

/// As in `--help`: what clap makes of the options would name each of them.
fn synopsis(whole: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let usage = whole.clone().render_usage().to_string();
    for line in usage.trim_start_matches("Usage:").lines() {
        let line = line.trim();
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        roff.text([bold(name), roman(format!(" {rest}"))]);
        roff.control("br", []);
    }
    roff
}

fn section(title: &str, rows: &[Meaning]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (word, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(*word)]);
        roff.text([roman(*meaning)]);
    }
    roff
}

fn render(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
    let mut page = Vec::new();
    write(&mut page).expect("memory takes all that is written");
    page
}
