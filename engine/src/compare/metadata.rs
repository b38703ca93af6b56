//! What is known of two files beside their bytes.

use std::collections::BTreeMap;

use super::Difference;
use crate::buffer::Buffer;
use crate::error::{Errno, Error};
use crate::limits::ATTRIBUTE_BYTES_MAX;
use crate::operation::{File, FileKind, FileStatus, GetAttribute, ListAttributes, Name, Operation};
use crate::sum::worker::Worker;

/// In what the status of two files of one kind differs.
pub(super) fn compare_status(a: &FileStatus, b: &FileStatus) -> Vec<Difference> {
    let mut differences = Vec::new();
    // The mode of a link means nothing.
    if a.mode != b.mode && a.kind != FileKind::SymbolicLink {
        differences.push(Difference::Mode(a.mode, b.mode));
    }
    if a.owner != b.owner {
        differences.push(Difference::Owner(a.owner, b.owner));
    }
    if a.group != b.group {
        differences.push(Difference::Group(a.group, b.group));
    }
    if a.modified != b.modified {
        differences.push(Difference::Modified(a.modified, b.modified));
    }
    differences
}

/// In which extended attributes two open files differ.
pub(super) async fn compare_attributes(
    worker: &Worker<'_>,
    a: &File,
    b: &File,
) -> Result<Vec<Difference>, Error> {
    let (mut a, mut b) = (attributes(worker, a).await?, attributes(worker, b).await?);
    a.retain(|name, value| b.get(name) != Some(value) || b.remove(name).is_none());
    b.retain(|name, _| !a.contains_key(name));
    let mut names: Vec<_> = a.into_keys().chain(b.into_keys()).collect();
    names.sort_unstable();
    Ok(names.into_iter().map(Difference::Attribute).collect())
}

async fn attributes(worker: &Worker<'_>, file: &File) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    let mut values = BTreeMap::new();
    let buffer = Buffer::Vec(vec![0; ATTRIBUTE_BYTES_MAX]);
    let list = Operation::ListAttributes(ListAttributes { file: file.clone(), buffer });
    let (length, operation) = match worker.io.perform_counted(list).await {
        Ok(listed) => listed,
        // There are none on this file system.
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => return Ok(values),
        Err(error) => return Err(error),
    };
    let Operation::ListAttributes(ListAttributes { buffer: names, .. }) = operation else {
        unreachable!("an operation comes back as itself")
    };
    let mut buffer = Buffer::Vec(Vec::new());
    let names = names.part(0, length).unwrap_or_default();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if let Buffer::Vec(bytes) = &mut buffer {
            bytes.resize(ATTRIBUTE_BYTES_MAX, 0);
        }
        let known = Name::new(name).map_err(|errno| Error::from_errno("read attribute", errno))?;
        let get = GetAttribute { file: file.clone(), name: known, buffer };
        match worker.io.perform_and_return(Operation::GetAttribute(get)).await {
            (Ok(length), Operation::GetAttribute(get)) => {
                let value = get.buffer.part(0, length).unwrap_or_default().to_vec();
                values.insert(name.to_vec(), value);
                buffer = get.buffer;
            }
            // It has gone since it was listed.
            (Err(error), Operation::GetAttribute(get)) if error.errno() == Some(Errno::ENODATA) => {
                buffer = get.buffer;
            }
            (Err(error), _) => return Err(error),
            _ => unreachable!("an operation comes back as itself"),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::WallTime;

    #[test]
    fn what_differs_is_named_and_nothing_else() {
        let file = FileStatus { mode: 0o644, owner: 1, group: 2, ..FileStatus::default() };
        let later = WallTime { seconds: 1, nanoseconds: 1 };
        let link = FileStatus { kind: FileKind::SymbolicLink, ..file };
        let cases = [
            (file, FileStatus { inode: 7, links: 3, changed: later, ..file }, vec![]),
            (file, FileStatus { mode: 0o600, ..file }, vec![Difference::Mode(0o644, 0o600)]),
            (link, FileStatus { mode: 0o777, ..link }, vec![]),
            (
                file,
                FileStatus { owner: 5, group: 6, modified: later, ..file },
                vec![
                    Difference::Owner(1, 5),
                    Difference::Group(2, 6),
                    Difference::Modified(WallTime::default(), later),
                ],
            ),
        ];
        for (a, b, want) in cases {
            assert_eq!(compare_status(&a, &b), want);
        }
    }
}
