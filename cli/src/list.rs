//! Lists of names or patterns that the user gives in a file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::quote;

/// What ends an item of a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Separator {
    Newline,
    Null,
}

/// Reads a list from a file, or from standard input if it is `-`. Empty items are left out.
///
/// # Errors
///
/// Why it can't be read, in words for the user.
pub(crate) fn read(path: &Path, separator: Separator) -> Result<Vec<OsString>, String> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => io::stdin().lock().read_to_end(&mut bytes),
        false => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|error| format!("cannot read the list {}: {error}", quote::always(path)))?;
    Ok(items(&bytes, separator))
}

fn items(bytes: &[u8], separator: Separator) -> Vec<OsString> {
    let end = if separator == Separator::Null { b'\0' } else { b'\n' };
    let items = bytes.split(|byte| *byte == end).filter(|item| !item.is_empty());
    items.map(|item| OsString::from_vec(item.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_where_the_user_says() {
        let cases: [(&[u8], Separator, &[&str]); 6] = [
            (b"", Separator::Newline, &[]),
            (b"a", Separator::Newline, &["a"]),
            (b"a\n\nb c\n", Separator::Newline, &["a", "b c"]),
            (b"a\r\n", Separator::Newline, &["a\r"]),
            (b"a\nb\0c\0", Separator::Null, &["a\nb", "c"]),
            (b"\0\0", Separator::Null, &[]),
        ];
        for (bytes, separator, want) in cases {
            assert_eq!(items(bytes, separator), want, "{bytes:?}");
        }
    }
}
