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
    words(&["--reflink=auto"]),
    words(&["--reflink=never"]),
];
