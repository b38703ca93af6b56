//! What is said about the command beside its options, in `--help` and in the manual page.

/// A word or a command, and what it means.
pub(crate) type Meaning = (&'static str, &'static str);

pub(crate) const EXAMPLES: [Meaning; 12] = [
    ("ucp disk.img /backup/disk.img", "copy a file"),
    ("ucp photos /backup", "copy a directory: to /backup/photos if /backup exists"),
    ("ucp a b c /backup", "copy several into a directory"),
    ("ucp --durable disk.img /backup", "return only when the copy is on stable storage"),
    ("ucp --verify photos /backup", "read back from the disk what was written, and compare"),
    ("ucp -v photos /backup", "say what is copied, and how"),
    ("ucp --explain disk.img /backup", "say which way the data went, and why"),
    ("ucp --json photos /backup", "an account for programs, one JSON object a line"),
    ("ucp sum -a sha256 photos > list", "digests of all files below photos, for sha256sum -c"),
    ("ucp sum -c list", "check them"),
    ("ucp compare photos /backup/photos", "say in what two trees differ"),
    ("ucp doctor /backup", "what can be done there, and which way data would go"),
];

pub(crate) const EXIT_STATUS: [Meaning; 7] = [
    ("0", "all done"),
    ("1", "some files failed or were skipped, each named; or standard output took no more"),
    ("2", "wrong usage"),
    ("6", "a target, read back, is not what its source was"),
    ("8", "storage failed: full, an I/O error, read-only"),
    ("9", "the source changed while it was copied"),
    ("128 + N", "stopped by signal N"),
];

pub(crate) const SIGNALS: [Meaning; 2] = [
    ("SIGINT, SIGTERM, SIGHUP", "stop, and leave nothing half done; a second SIGINT ends at once"),
    ("SIGUSR1", "say on standard error how far it is, and go on"),
];

pub(crate) const ENVIRONMENT: [Meaning; 2] = [
    ("NO_COLOR", "if it is set and not empty, nothing is coloured"),
    ("TERM", "nothing is coloured on a dumb terminal"),
];

pub(crate) const FILES: [Meaning; 3] = [
    (
        ".ucp-*.part",
        "a file that is being made, beside its place, locked meanwhile. The next copy to the same \
         name removes what a killed one left",
    ),
    (
        ".ucp-*.stage",
        "the same of a directory. The same copy, made again before the next boot, goes on with it",
    ),
    (
        "/proc/sys/kernel/io_uring_disabled",
        "where the system may have forbidden io_uring; ucp then uses threads, and -v says so",
    ),
];

/// What follows the options in `-h`.
pub(super) const HINT: &str = "'ucp --help' says more, with examples; 'ucp man' prints the manual.";

/// What follows the options in `--help`.
pub(super) fn after_help() -> String {
    let sections = [
        ("Examples", &EXAMPLES[..]),
        ("Exit status", &EXIT_STATUS),
        ("Signals", &SIGNALS),
        ("Environment", &ENVIRONMENT),
    ];
    sections.map(|(title, rows)| section(title, rows)).join("\n")
}

pub(super) fn section(title: &str, rows: &[Meaning]) -> String {
    let width = rows.iter().map(|(word, _)| word.len()).max().unwrap_or_default();
    let line = |(word, meaning): &Meaning| format!("  {word:width$}  {meaning}\n");
    format!("{title}:\n{}", rows.iter().map(line).collect::<String>())
}
