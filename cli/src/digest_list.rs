//! Lists of digests that are checked: read line by line, as the lines are needed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ucp_engine::digest::{Algorithm, ListedDigest};
use ucp_engine::sum::Expected;

/// A list that is being read.
pub(crate) struct DigestList<F> {
    lines: Box<dyn BufRead + Send>,
    is_ended_by_nul: bool,
    told: Vec<Algorithm>,
    state: Arc<Mutex<ListState>>,
    on_malformed: F,
}

/// What was found in a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListState {
    /// Lines, of all kinds.
    lines: u64,
    /// Lines that say something.
    pub(crate) proper: u64,
    /// Lines that are none.
    pub(crate) malformed: u64,
    /// Why it could not be read to its end.
    pub(crate) failure: Option<String>,
}

/// Bytes of a line that are looked at: a digest, and the longest name, with each byte escaped. No
/// longer line is one of a list.
const LINE_BYTES_MAX: u64 = 64 << 10;

impl<F: FnMut(u64)> DigestList<F> {
    /// Opens a list; `-` is standard input. Calls `on_malformed` with the number of each line that is
    /// none.
    pub(crate) fn open(
        path: &Path,
        is_ended_by_nul: bool,
        told: &[Algorithm],
        on_malformed: F,
    ) -> io::Result<Self> {
        let lines: Box<dyn BufRead + Send> = match path.as_os_str() == "-" {
            true => Box::new(BufReader::new(io::stdin())),
            false => Box::new(BufReader::new(File::open(path)?)),
        };
        let state = Arc::default();
        Ok(Self { lines, is_ended_by_nul, told: told.to_vec(), state, on_malformed })
    }

    /// What was found in it, also once it was given away.
    pub(crate) fn state(&self) -> Arc<Mutex<ListState>> {
        Arc::clone(&self.state)
    }

    fn lock(&self) -> MutexGuard<'_, ListState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next line without what ends it; none at the end. Of a line that is too long only its start.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let end = if self.is_ended_by_nul { b'\0' } else { b'\n' };
        let mut line = Vec::new();
        self.lines.by_ref().take(LINE_BYTES_MAX).read_until(end, &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() == Some(&end) {
            line.pop();
        } else if line.len() as u64 == LINE_BYTES_MAX {
            skip_until(&mut self.lines, end)?;
            // It may have been cut off at what looks like an end.
            line.insert(0, b'?');
        }
        if !self.is_ended_by_nul && line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }
}

fn skip_until(lines: &mut dyn BufRead, end: u8) -> io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        let (used, is_done) = match buffer.iter().position(|byte| *byte == end) {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        lines.consume(used);
        if is_done {
            return Ok(());
        }
    }
}

impl<F: FnMut(u64)> Iterator for DigestList<F> {
    type Item = Expected;

    fn next(&mut self) -> Option<Expected> {
        loop {
            let line = match self.next_line() {
                Ok(line) => line?,
                Err(error) => {
                    self.lock().failure = Some(error.to_string());
                    return None;
                }
            };
            let listed = ListedDigest::parse(&line, &self.told);
            let mut state = self.lock();
            state.lines += 1;
            match listed {
                Some(listed) => {
                    state.proper += 1;
                    return Some(listed.into());
                }
                None if line.starts_with(b"#") => {}
                None => {
                    state.malformed += 1;
                    let number = state.lines;
                    drop(state);
                    (self.on_malformed)(number);
                }
            }
        }
    }
}

/// The state of a list.
pub(crate) fn look(state: &Mutex<ListState>) -> ListState {
    state.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(text: &str, is_ended_by_nul: bool) -> (Vec<String>, Vec<u64>) {
        let mut malformed = Vec::new();
        let list = DigestList {
            lines: Box::new(Cursor::new(text.to_owned())),
            is_ended_by_nul,
            told: Vec::new(),
            state: Arc::default(),
            on_malformed: |number| malformed.push(number),
        };
        let names = list.map(|expected| expected.path.display().to_string()).collect();
        (names, malformed)
    }

    #[test]
    fn lines_are_taken_whatever_ends_them_and_others_counted() {
        let long = format!("{}\n00000000  c\n", "0".repeat(1 << 20));
        let cases: [(&str, bool, &[&str], &[u64]); 6] = [
            ("00000000  a\n# remark\n\nno\n00000000  b", false, &["a", "b"], &[3, 4]),
            ("00000000  a\r\n", false, &["a"], &[]),
            ("00000000  a\nb\0CRC32 (c\\) = 00000000\0", true, &["a\nb", "c\\"], &[]),
            ("", false, &[], &[]),
            ("no", false, &[], &[1]),
            (&long, false, &["c"], &[1]),
        ];
        for (text, is_ended_by_nul, names, malformed) in cases {
            let (got, bad) = read(text, is_ended_by_nul);
            assert_eq!(
                (got, bad.as_slice()),
                (names.iter().map(|it| (*it).to_owned()).collect(), malformed)
            );
        }
    }
}
