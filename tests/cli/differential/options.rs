//! The options that both copiers have, one by one; calls take some of them at random.

/// Words that belong together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) words: &'static [&'static str],
}

const fn words(words: &'static [&'static str]) -> Choice {
    Choice { words }
}

/// Every option of GNU cp 9.1, with each of its values.
pub(crate) const CHOICES: &[Choice] = &[
    words(&["-R"]),
    words(&["-r"]),
    words(&["-H"]),
    words(&["-L"]),
    words(&["-P"]),
    words(&["-v"]),
    words(&["-a"]),
    words(&["-a"]),
    words(&["-p"]),
    words(&["-d"]),
    words(&["--preserve"]),
    words(&["--preserve=mode"]),
    words(&["--preserve=ownership"]),
    words(&["--preserve=timestamps"]),
    words(&["--preserve=links"]),
    words(&["--preserve=xattr"]),
    words(&["--preserve=all"]),
    words(&["--preserve=ownership,xattr"]),
    words(&["--preserve=links,mode,xattr"]),
    words(&["--no-preserve=mode"]),
    words(&["--no-preserve=ownership"]),
    words(&["--no-preserve=links"]),
    words(&["--no-preserve=xattr"]),
    words(&["--no-preserve=timestamps"]),
    words(&["--no-preserve=all"]),
    // Without SELinux cp refuses the one and takes no notice of the other.
    words(&["--preserve=context"]),
    words(&["-Z"]),
    words(&["-x"]),
    words(&["--copy-contents"]),
    words(&["--reflink=auto"]),
    words(&["--reflink=never"]),
    words(&["--reflink"]),
    words(&["--reflink=always"]),
    words(&["--sparse=auto"]),
    words(&["--sparse=always"]),
    words(&["--sparse=never"]),
    words(&["-n"]),
    words(&["-i"]),
    words(&["-f"]),
    words(&["-u"]),
    words(&["-b"]),
    words(&["--backup"]),
    words(&["--backup=none"]),
    words(&["--backup=simple"]),
    words(&["--backup=numbered"]),
    words(&["--backup=existing"]),
    words(&["--suffix=.old"]),
    words(&["-l"]),
    words(&["-s"]),
    words(&["--parents"]),
    words(&["--attributes-only"]),
    words(&["--remove-destination"]),
    words(&["--strip-trailing-slashes"]),
];
